"""Whatever JSON a client sends."""

import json

from hypothesis import example, given, settings
from hypothesis import strategies as st

from tests.serving.conftest import json_schema, post

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner),
    max_leaves=6,
)
CONTENT = st.text(max_size=20) | st.lists(
    st.fixed_dictionaries({"type": st.just("text"), "text": st.text(max_size=9)}), max_size=2
)
MESSAGE = st.fixed_dictionaries(
    {"role": st.sampled_from(["system", "user", "assistant", "tool"]), "content": CONTENT | JSON}
)
KEYWORDS = ["type", "properties", "items", "enum", "anyOf", "$ref", "pattern", "maxLength", "not"]
SCHEMA_LIKE = st.dictionaries(
    st.sampled_from(KEYWORDS), st.sampled_from(["object", "string", "#", "("]) | JSON, max_size=3
)
FIELDS = {
    "temperature": st.floats(0, 2) | JSON,
    "top_p": st.floats(0, 1) | JSON,
    "max_tokens": st.integers(1, 5) | JSON,
    "stop": st.text(max_size=3) | st.lists(st.text(max_size=3)) | JSON,
    "seed": st.integers() | JSON,
    "stream": st.booleans() | JSON,
    "stream_options": JSON,
    "response_format": st.builds(json_schema, SCHEMA_LIKE) | JSON,
    "user": JSON,
}
BODY = JSON | st.fixed_dictionaries({"messages": st.lists(MESSAGE, max_size=3)}, optional=FIELDS)


COLD = {"messages": [{"role": "user", "content": "Hello"}], "max_tokens": 2, "temperature": 1e-39}


@given(BODY)
@example(COLD)  # a logit divided by it is infinite
@settings(max_examples=30)
def test_no_json_makes_the_server_fail(served, body):
    response = post(served, json.dumps(body).encode())

    assert response.status_code in (200, 400)
    if response.status_code == 400:
        assert response.json()["error"]["message"]
    assert served.engine.is_alive()
