"""What is refused, by which status, and in which words."""

import functools
import json
import logging
import socket
from urllib.parse import urlsplit

import httpx2
import openai
import pytest

from llamaduo.serving.errors import Refusal
from llamaduo.serving.requests import parse
from tests.serving.conftest import json_schema, post, serving

KEY = "a-key-of-its-own"
HELLO = [{"role": "user", "content": "Hello"}]
SCHEMA = {"type": "object", "properties": {"a": {"enum": ["x"]}}, "required": ["a"]}


@pytest.fixture(scope="module")
def locked(release):
    """A server with a key, which reads little."""
    with serving(release, api_key=KEY, max_body=4000) as server:
        yield server


@pytest.mark.parametrize(
    ("changes", "param", "words"),
    [
        ({"tools": []}, "tools", "does not know 'tools'"),
        ({"logit_bias": {"1": 2.0}}, "logit_bias", "only be {}"),
        ({"top_logprobs": 3}, "top_logprobs", "only be 0"),
        (
            {"messages": [{"role": "user", "content": [{"type": "text"}]}]},
            "messages[0].content[0].text",
            "is missing",
        ),
        ({"response_format": {}}, "response_format", "needs a type: 'text', 'json_object' or"),
        ({"bananas": 1}, "bananas", "does not know"),
        ({"messages": None}, "messages", "is missing"),
        ({"messages": []}, "messages", "at least 1 item"),
        ({"messages": "Hello"}, "messages", "valid array"),
        ({"messages": [{"role": "tool", "content": "1"}]}, "messages[0].role", "'assistant'"),
        ({"messages": [{"role": "user"}]}, "messages[0].content", "is missing"),
        ({"messages": [*HELLO, {"role": "user", "content": 5}]}, "messages[1].content", "string"),
        (
            {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {}}]}]},
            "messages[0].content",
            "a part of type image_url; the student reads text only",
        ),
        ({"messages": [{**HELLO[0], "tool_calls": [{}]}]}, "messages[0].tool_calls", "only be []"),
        ({"temperature": 2.5}, "temperature", "less than or equal to 2"),
        ({"temperature": "0.5"}, "temperature", "valid number"),
        ({"top_p": -0.1}, "top_p", "greater than or equal to 0"),
        ({"max_tokens": 0}, "max_tokens", "greater than or equal to 1"),
        ({"max_tokens": True}, "max_tokens", "valid integer"),
        ({"stop": ["a", "b", "c", "d", "e"]}, "stop", "at most 4"),
        ({"stop": [""]}, "stop[0]", "at least 1 character"),
        ({"n": 2}, "n", "only be 1"),
        ({"logprobs": True}, "logprobs", "only be False"),
        ({"presence_penalty": 0.5}, "presence_penalty", "only be 0"),
        ({"stream_options": {"extra": 1}}, "stream_options.extra", "does not know"),
        ({"response_format": {"type": "xml"}}, "response_format", "'json_schema'"),
        (
            {"response_format": {"type": "json_schema", "json_schema": {"name": "it"}}},
            "response_format.json_schema.schema",
            "is missing",
        ),
    ],
)
def test_a_field_at_fault_is_named(changes, param, words):
    body = {"model": "any", "messages": HELLO, **changes}

    with pytest.raises(Refusal) as refused:
        parse(json.dumps(body).encode())

    error = refused.value.body["error"]
    assert refused.value.status == 400
    assert error["param"] == param
    assert words in error["message"]
    assert param in error["message"]
    assert error["type"] == "invalid_request_error"


def test_fields_that_change_nothing_are_taken():
    request = parse(
        json.dumps(
            {
                "messages": [{**HELLO[0], "name": "Ann", "tool_calls": None}],
                **{"n": 1, "logprobs": False, "presence_penalty": 0, "frequency_penalty": 0.0},
                **{"user": "u", "metadata": {"a": "b"}, "store": False, "service_tier": "auto"},
                **{"safety_identifier": "s", "prompt_cache_key": "k", "parallel_tool_calls": True},
                **{"response_format": {"type": "text"}, "stop": None, "tools": None},
            }
        ).encode()
    )

    assert request.messages[0].as_trained() == HELLO[0]
    assert request.json_schema is None


@pytest.mark.parametrize("body", [b"{", b"", b"\xff\xfe", b"[" * 10_000, b"5", b'{"a": NaN}'])
def test_a_body_that_is_no_json_object_is_told_so(body, merged):
    response = post(merged, body)

    assert response.status_code == 400
    assert response.json()["error"]["message"]


def test_a_body_beyond_the_limit_is_refused_and_the_next_one_read(locked):
    for words in (1000, 10_000, 1_000_000):
        with pytest.raises(openai.APIStatusError) as refused:
            locked.ask("word " * words)
        assert refused.value.status_code == 413
        assert refused.value.code == "body_too_large"

    assert locked.text("Hello")


@pytest.mark.parametrize(
    ("asked", "param"),
    [
        ({"max_completion_tokens": 401}, "max_completion_tokens"),
        ({"max_completion_tokens": 401, "max_tokens": 5}, "max_completion_tokens"),
        ({"max_tokens": 401}, "max_tokens"),
    ],
)
def test_more_tokens_than_an_answer_may_have_are_refused(asked, param, merged):
    with pytest.raises(openai.BadRequestError) as refused:
        merged.ask("Hello", **asked)

    assert refused.value.param == param
    assert f"'{param}' is 401" in refused.value.body["message"]
    assert "400 at most" in refused.value.body["message"]


def test_a_body_that_does_not_come_in_time_is_told_so(release):
    with serving(release, timeout_s=0.5) as served:
        address = urlsplit(served.base_url)
        with socket.create_connection((address.hostname, address.port), timeout=30) as client:
            client.sendall(
                b"POST /v1/chat/completions HTTP/1.1\r\nHost: it\r\nContent-Length: 10\r\n\r\n{"
            )
            status = client.makefile("rb").readline()

    assert status.startswith(b"HTTP/1.1 408 ")


def test_who_has_not_the_key_is_turned_away_and_health_is_everybody_s(locked):
    with pytest.raises(openai.AuthenticationError) as refused:
        locked.client(api_key="another").models.list()

    assert refused.value.code == "invalid_api_key"
    assert post(locked, b"{}").status_code == 401
    assert locked.health() == (200, {"status": "ok"})
    assert locked.text("Hello")


def test_web_pages_are_answered_only_by_a_server_with_a_key(locked, merged):
    body, page = json.dumps({"messages": HELLO}).encode(), {"Origin": "https://example.org"}

    assert post(merged, body, **page).status_code == 403
    assert post(locked, body, Authorization=f"Bearer {KEY}", **page).status_code == 200


def test_what_is_not_there_is_told_in_openai_s_shape(merged):
    unknown = post(merged, b"{}", path="/embeddings")
    wrong_method = httpx2.get(merged.base_url + "/chat/completions")

    assert unknown.status_code == 404
    assert "/v1/embeddings" in unknown.json()["error"]["message"]
    assert wrong_method.status_code == 405
    assert wrong_method.headers["Allow"] == "POST"
    assert wrong_method.json()["error"]["type"] == "invalid_request_error"


def test_the_student_is_the_only_model(merged):
    models = merged.client().models

    assert [model.id for model in models.list()] == ["student"]
    assert models.retrieve("student").id == "student"
    with pytest.raises(openai.NotFoundError, match="no model"):
        models.retrieve("other/one")


def test_the_merged_model_cannot_be_held_to_json_and_names_who_can(merged):
    with pytest.raises(openai.BadRequestError, match="GGUF") as refused:
        merged.ask("Hello", response_format=json_schema(SCHEMA))

    assert refused.value.param == "response_format.type"


def test_a_gguf_file_is_held_to_a_schema(gguf):
    for word in ("Hello", "Garden", "Engine"):
        text = gguf.text(word, response_format=json_schema({"enum": ["yes", "no"]}), max_tokens=60)
        some_object = gguf.text(word, response_format={"type": "json_object"}, max_tokens=60)

        assert json.loads(text) in ("yes", "no")
        assert some_object.startswith("{")


@pytest.mark.parametrize(
    ("schema", "words"),
    [
        ({"type": "nonsense"}, "is no JSON schema"),
        ({"$ref": "https://example.org/schema"}, "cannot enforce"),
        ({"type": "string", "pattern": "(?=a)b"}, "cannot enforce"),
        ({"not": {}}, "cannot enforce"),
        ({"$schema": 5}, "is no JSON schema"),
        ({"enum": [float("nan")]}, "a number that JSON does not have"),
        (functools.reduce(lambda inner, _: {"items": inner}, range(150), {}), "too deeply"),
    ],
)
def test_a_schema_that_would_not_be_enforced_is_refused(schema, words, gguf):
    body = {"messages": HELLO, "response_format": json_schema(schema)}
    for _ in range(2):
        response = post(gguf, json.dumps(body).encode())

        assert response.status_code == 400
        assert words in response.json()["error"]["message"]
        assert response.json()["error"]["param"] == "response_format.json_schema.schema"


def test_a_template_that_knows_no_such_conversation_is_told_without_its_path(
    merged, release, monkeypatch
):
    template = (
        "{% for m in messages %}{% if loop.index0 % 2 != (m.role == 'assistant') | int %}"
        "{{ raise_exception('roles must alternate') }}{% endif %}{{ m.content }}{% endfor %}"
    )
    monkeypatch.setattr(merged.student.tokenizer, "chat_template", template)

    with pytest.raises(openai.BadRequestError) as refused:
        merged.client().chat.completions.create(model="any", messages=[*HELLO, *HELLO])

    assert "user, user: roles must alternate" in refused.value.body["message"]
    assert str(release.folder) not in refused.value.body["message"]


def test_nothing_that_was_asked_or_answered_is_logged(release, part, caplog, capfd):
    with caplog.at_level(logging.DEBUG), serving(release, part, api_key=KEY) as served:
        answer = served.text("Geheimnis", max_tokens=5)
        list(served.ask("Geheimnis", stream=True))
        with pytest.raises(openai.BadRequestError):
            served.ask("Geheimnis " * 300)
        with pytest.raises(openai.AuthenticationError):
            served.client(api_key="Geheimnis").models.list()

    of_clients = ("openai", "httpx2", "httpcore2")
    records = [record for record in caplog.records if not record.name.startswith(of_clients)]
    logged = "\n".join(record.getMessage() for record in records)
    printed = "".join(capfd.readouterr())
    for secret in ("Geheimnis", answer, KEY):
        assert secret not in logged + printed


def test_a_failure_that_nobody_foresaw_tells_and_logs_nothing_of_a_request(caplog, release):
    class Failing:
        """An engine with a fault."""

        enforces_schemas = is_closed = False

        async def generate(self, prompt, sampling):
            raise RuntimeError(f"in {release.folder} with {prompt}")
            yield

        def is_alive(self):
            return True

        def close(self):
            pass

    with (
        serving(release, engine=Failing()) as served,
        pytest.raises(openai.InternalServerError) as failed,
    ):
        served.ask("Hello")

    assert failed.value.status_code == 500
    assert str(release.folder) not in str(failed.value.body) + caplog.text
    assert "RuntimeError" in caplog.text
    assert "in generate" in caplog.text
