"""Whatever JSON a client sends."""

import json

from hypothesis import example, given, settings
from hypothesis import strategies as st

from llamaduo.serving.errors import Refusal
from llamaduo.serving.requests import parse
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
    "temperature": st.floats(0, 2),
    "top_p": st.floats(0, 1),
    "stop": st.lists(st.text(min_size=1, max_size=3), max_size=4),
    "seed": st.integers(-(2**63), 2**63),
    "stream": st.booleans(),
    "response_format": st.builds(json_schema, SCHEMA_LIKE),
}
BODY = JSON | st.fixed_dictionaries(
    {"messages": st.lists(MESSAGE, max_size=3)},
    optional={
        **{name: JSON for name in ("max_tokens", "stream_options", "user")},
        **{name: known | JSON for name, known in FIELDS.items()},
    },
)
REQUEST = st.fixed_dictionaries(
    {
        "messages": st.lists(
            st.fixed_dictionaries(
                {"role": st.sampled_from(["system", "user", "assistant"]), "content": CONTENT}
            ),
            min_size=1,
            max_size=3,
        ),
        "max_tokens": st.integers(1, 5),
    },
    optional=FIELDS,
)
COLD = {"messages": [{"role": "user", "content": "Hello"}], "max_tokens": 2, "temperature": 1e-39}


@given(BODY)
def test_any_json_is_read_or_refused_in_words(body):
    refusal = None
    try:
        parse(json.dumps(body).encode())
    except Refusal as error:
        refusal = error

    assert refusal is None or (refusal.status == 400 and refusal.body["error"]["message"])


@given(REQUEST)
@example(COLD)  # a logit divided by it is infinite
@settings(max_examples=settings.default.max_examples // 5)
def test_no_request_makes_the_server_fail(served, body):
    response = post(served, json.dumps(body).encode())

    has_schema = "response_format" in body
    assert response.status_code in ((200, 400) if has_schema else (200,)), response.text
    if response.status_code == 400:
        assert response.json()["error"]["message"]
    assert served.engine.is_alive()
