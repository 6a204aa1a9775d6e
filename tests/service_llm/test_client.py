import json
import time
from collections import deque

import pytest

from llamaduo.service_llm.client import (
    Reply,
    Request,
    ServiceLLM,
    ServiceLLMError,
    read_reply,
    reply_columns,
)
from llamaduo.service_llm.journal import Journal
from tests.fakes.openai_server import FakeOpenAI, Fault

TICKET = "Triage this support ticket as JSON.\nWhere is my parcel? Order {number}."


def request(number, repeat=1):
    content = TICKET.format(number=number)
    return Request([{"role": "user", "content": content}], max_tokens=64, repeat=repeat)


def body(content, finish="stop", **message):
    choice = {
        "index": 0,
        "finish_reason": finish,
        "message": {"role": "assistant", "content": content, **message},
    }
    return json.dumps({"model": "m", "choices": [choice], "usage": {"prompt_tokens": 3}})


@pytest.fixture
def server():
    with FakeOpenAI() as running:
        yield running


@pytest.fixture
def service(server, tmp_path):
    journal = Journal(tmp_path / "journal.sqlite")
    yield ServiceLLM(
        endpoint="fake",
        base_url=server.base_url,
        model="m",
        api_key="sk-secret",
        journal=journal,
        concurrency=8,
        timeout_s=10,
    )
    journal.close()


def test_replies_keep_the_order_of_the_requests(service):
    replies = service.complete_all([request(f"ORD-{n}") for n in range(20)], "test")

    references = [json.loads(reply.text)["reference"] for reply in replies]
    assert references == [f"ORD-{n}" for n in range(20)]


def test_what_was_answered_is_not_sent_again(service, server):
    first = service.complete_all([request("ORD-1"), request("ORD-2")], "test")
    again = service.complete_all([request("ORD-2"), request("ORD-3")], "test")

    assert len(server.served) == 3
    assert again[0] == first[1]


def test_repeats_of_one_request_are_each_sent(service, server):
    service.complete_all([request("ORD-1", repeat=n) for n in (1, 2, 3)], "test")

    assert len(server.served) == 3


def test_equal_requests_of_one_call_are_sent_once(service, server):
    replies = service.complete_all([request("ORD-1")] * 3, "test")

    assert len(server.served) == 1
    assert replies == [replies[0]] * 3


@pytest.mark.parametrize("status", [429, 500, 503])
def test_a_passing_fault_is_tried_again(service, server, status):
    server.faults = deque([Fault(status, '{"error": {"message": "busy"}}')])

    (reply,) = service.complete_all([request("ORD-1")], "test")

    assert reply.failure is None
    assert [entry["status"] for entry in server.served] == [status, 200]


@pytest.mark.parametrize("status", [400, 401, 403, 404])
def test_a_lasting_fault_is_sent_once_and_stops_nobody_else(service, server, status):
    server.faults = deque([Fault(status, '{"error": {"message": "no such thing"}}')])

    replies = service.complete_all([request(f"ORD-{n}") for n in range(3)], "test")

    failures = [reply.failure for reply in replies if reply.failure]
    assert len(failures) == 1
    assert f"HTTP {status}" in failures[0]
    assert "no such thing" in failures[0]
    assert len(server.served) == 3


def test_an_endpoint_s_own_waiting_time_is_kept(service, server):
    busy = Fault(429, '{"error": {"message": "busy"}}', {"retry-after": "2"})
    server.faults = deque([busy])

    began = time.monotonic()
    (reply,) = service.complete_all([request("ORD-1")], "test")

    assert reply.failure is None
    assert time.monotonic() - began >= 2


def test_an_empty_quota_is_not_tried_again(service, server):
    error = {"error": {"message": "pay first", "code": "insufficient_quota"}}
    server.faults = deque([Fault(429, json.dumps(error))])

    (reply,) = service.complete_all([request("ORD-1")], "test")

    assert "pay first" in reply.failure
    assert len(server.served) == 1


def test_a_bad_answer_is_a_named_failure_and_is_asked_for_again_next_time(service, server):
    server.faults = deque([Fault(200, body("half of", finish="length"))])

    (reply,) = service.complete_all([request("ORD-1")], "test")
    (again,) = service.complete_all([request("ORD-1")], "test")

    assert reply.failure == "cut off"
    assert json.loads(again.text)["reference"] == "ORD-1"


@pytest.mark.parametrize(
    ("raw", "failure"),
    [
        ("<html>gateway</html>", "no chat completion"),
        ('{"choices": null}', "no chat completion (choices:"),
        ('{"choices": []}', "no chat completion (choices:"),
        ('{"choices": [null]}', "no chat completion (choices.0:"),
        ('{"choices": [{"message": "hello"}]}', "no chat completion (choices.0.message:"),
        ("[" * 100_000, "no chat completion"),
        ('{"choices": [{"message": {"content": "half \\ud83d"}}]}', "no chat completion"),
        ('{"error": {"message": "overloaded"}}', "overloaded"),
        ("[]", "no chat completion (body:"),
        (body(None), "empty"),
        (body(""), "empty"),
        (body("x", finish="content_filter"), "filtered"),
        (body(None, refusal="I will not"), "I will not"),
    ],
)
def test_a_body_without_a_whole_answer_is_a_named_failure(raw, failure):
    reply = read_reply(raw)

    assert reply.text is None
    assert failure in reply.failure


def test_a_call_that_only_fails_says_so_once():
    with pytest.raises(ServiceLLMError, match="all 2 requests failed, the first with: HTTP 401"):
        reply_columns([Reply(None, failure="HTTP 401: bad key")] * 2)


def test_the_key_is_not_shown(service):
    assert "sk-secret" not in repr(service)
