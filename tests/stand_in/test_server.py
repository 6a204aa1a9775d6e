import json
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor

import openai
import pytest

from llamaduo.stand_in.completion import complete
from llamaduo.stand_in.server import StandIn

MODEL = "stand-in-triage"
TICKET = [{"role": "user", "content": "Triage this support ticket as JSON.\nI forgot my password."}]
ANSWER = '{"category":"login","priority":"normal","product":"none","reference":"none"}'


@pytest.fixture(scope="module")
def stand_in():
    with StandIn() as running:
        yield running


@pytest.fixture
def client(stand_in):
    with openai.OpenAI(base_url=stand_in.base_url, api_key="none", max_retries=0) as client:
        yield client


def post(stand_in, body, path="/chat/completions"):
    request = urllib.request.Request(stand_in.base_url + path, body, method="POST")
    try:
        with urllib.request.urlopen(request) as response:
            return response.status, response.read()
    except urllib.error.HTTPError as refused:
        with refused:
            return refused.code, refused.read()


def error_of(stand_in, body, path="/chat/completions"):
    status, raw = post(stand_in, body, path)
    error = json.loads(raw)["error"]
    assert error.keys() == {"message", "type", "param", "code"}
    assert error["type"] == "invalid_request_error"
    return status, error["param"], error["code"]


def test_the_openai_client_gets_an_answer_from_the_stand_in(client):
    reply = client.chat.completions.create(model=MODEL, messages=TICKET)

    assert reply.choices[0].message.content == ANSWER
    assert reply.choices[0].finish_reason == "stop"
    assert reply.choices[0].message.refusal is None
    assert reply.model == MODEL
    assert reply.system_fingerprint == "embedded-stand-in"
    assert reply.usage.total_tokens == reply.usage.prompt_tokens + reply.usage.completion_tokens


def test_the_one_model_is_listed(client):
    assert [model.id for model in client.models.list()] == [MODEL]


def test_the_same_request_gets_the_same_bytes(stand_in):
    body = json.dumps({"model": MODEL, "messages": TICKET}).encode()

    assert post(stand_in, body) == post(stand_in, body)


def test_the_server_says_what_the_pure_function_says(client):
    reply = client.chat.completions.create(model=MODEL, messages=TICKET)

    assert reply.to_dict() == complete({"model": MODEL, "messages": TICKET})


def test_requests_at_the_same_time_get_their_own_answers(client):
    def answer(number):
        text = f"Triage this support ticket as JSON.\nWhere is my parcel ORD-{number}?"
        reply = client.chat.completions.create(
            model=MODEL, messages=[{"role": "user", "content": text}]
        )
        return json.loads(reply.choices[0].message.content)["reference"]

    with ThreadPoolExecutor(16) as pool:
        answers = list(pool.map(answer, range(100, 200)))

    assert answers == [f"ORD-{number}" for number in range(100, 200)]


@pytest.mark.parametrize(
    "response_format",
    [
        {"type": "json_object"},
        {"type": "json_schema", "json_schema": {"name": "labels", "schema": {"type": "object"}}},
    ],
)
def test_structured_output_is_accepted(client, response_format):
    reply = client.chat.completions.create(
        model=MODEL, messages=TICKET, response_format=response_format
    )

    assert reply.choices[0].message.content == ANSWER


def test_another_model_is_not_found(client):
    with pytest.raises(openai.NotFoundError) as refused:
        client.chat.completions.create(model="gpt-4o", messages=TICKET)

    assert refused.value.code == "model_not_found"
    assert "'gpt-4o'" in refused.value.message


def test_streaming_is_refused_by_name(client):
    with pytest.raises(openai.BadRequestError) as refused:
        client.chat.completions.create(model=MODEL, messages=TICKET, stream=True)

    assert (refused.value.param, refused.value.code) == ("stream", "unsupported_value")


@pytest.mark.parametrize("body", [b"", b"{", b"\xff", b"[" * 100_000])
def test_a_body_that_is_no_json_is_refused(stand_in, body):
    assert error_of(stand_in, body) == (400, None, None)


@pytest.mark.parametrize(
    ("change", "param", "code"),
    [
        ({"model": None}, "model", "missing_required_parameter"),
        ({"messages": None}, "messages", "missing_required_parameter"),
        ({"messages": []}, "messages", "invalid_type"),
        ({"messages": "Hello"}, "messages", "invalid_type"),
        ({"messages": ["Hello"]}, "messages[0]", "invalid_type"),
        ({"messages": [{"content": "Hello"}]}, "messages[0]", "invalid_type"),
        ({"messages": [{"role": "user"}]}, "messages[0].content", "invalid_type"),
        (
            {"messages": [{"role": "user", "content": [{"type": "image_url"}]}]},
            "messages[0].content",
            "invalid_type",
        ),
        ({"n": 2}, "n", "unsupported_value"),
        ({"max_completion_tokens": 0}, "max_completion_tokens", "invalid_value"),
        ({"response_format": {"type": "yaml"}}, "response_format.type", "invalid_value"),
        ({"response_format": "json_object"}, "response_format.type", "invalid_value"),
        ({"response_format": {"type": ["text"]}}, "response_format.type", "invalid_value"),
    ],
)
def test_an_invalid_request_is_refused_with_its_parameter(stand_in, change, param, code):
    body = json.dumps({"model": MODEL, "messages": TICKET, **change}).encode()

    assert error_of(stand_in, body) == (400, param, code)


def test_an_array_as_body_is_refused(stand_in):
    assert error_of(stand_in, b"[]") == (400, None, None)


def test_another_path_is_refused_in_the_same_shape(stand_in):
    assert error_of(stand_in, b"{}", "/embeddings") == (404, None, None)


def test_a_text_with_half_a_character_is_answered(stand_in):
    body = json.dumps({"model": MODEL, "messages": [{"role": "user", "content": "\ud800"}]})

    assert post(stand_in, body.encode())[0] == 200


def test_two_servers_have_ports_of_their_own_and_a_stopped_one_is_closed(stand_in):
    with StandIn() as other:
        url = f"{other.base_url}/models"
        assert other.base_url != stand_in.base_url
        urllib.request.urlopen(url).close()

    with pytest.raises(urllib.error.URLError):
        urllib.request.urlopen(url)
