import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llamaduo.service_llm.answers import counted_tokens, read_reply
from llamaduo.service_llm.failures import FailedAttempt, Failure, Retry
from tests.fakes.openai_server import HTML, completion

WHOLE = json.dumps(completion("yes"))


def failure_of(raw):
    with pytest.raises(FailedAttempt) as caught:
        read_reply(raw)
    return caught.value


@pytest.mark.parametrize(
    ("raw", "failure", "detail"),
    [
        (HTML, Failure.UNREADABLE, "a page of HTML or XML"),
        ('{"choices": null}', Failure.UNREADABLE, "choices:"),
        ('{"choices": []}', Failure.UNREADABLE, "choices:"),
        ('{"choices": [null]}', Failure.UNREADABLE, "choices.0:"),
        ('{"choices": [{"message": "hello"}]}', Failure.UNREADABLE, "choices.0.message:"),
        ("[" * 100_000, Failure.UNREADABLE, "no chat completion"),
        (
            '{"choices": [{"message": {"content": "half \\ud83d"}}]}',
            Failure.UNREADABLE,
            "no chat completion",
        ),
        ('{"error": {"message": "overloaded"}}', Failure.UNREADABLE, "overloaded"),
        ("[]", Failure.UNREADABLE, "body:"),
        ("", Failure.UNREADABLE, "body:"),
        (json.dumps(completion(None)), Failure.EMPTY, ""),
        (json.dumps(completion(" \n")), Failure.EMPTY, ""),
        (json.dumps(completion("x", "content_filter")), Failure.FILTERED, ""),
        (json.dumps(completion("x", "length")), Failure.CUT_OFF, ""),
        (json.dumps(completion(None, refusal="I will not")), Failure.REFUSED, "I will not"),
    ],
)
def test_a_body_without_a_whole_answer_is_a_named_failure(raw, failure, detail):
    failed = failure_of(raw)

    assert failed.failure is failure
    assert detail in failed.detail


@pytest.mark.parametrize(
    ("error", "retry"),
    [
        ({"message": "m", "code": 502}, Retry.AGAIN),
        ({"message": "m", "code": 429}, Retry.AGAIN),
        ({"message": "m", "code": 400}, Retry.NEVER),
        ({"message": "m", "code": "insufficient_quota"}, Retry.FATAL),
        ({"message": "m"}, Retry.AGAIN),
    ],
)
def test_an_error_inside_a_good_status_is_treated_as_that_error(error, retry):
    assert failure_of(json.dumps({"error": error})).retry is retry


@given(st.integers(min_value=0, max_value=len(WHOLE) - 1))
def test_a_body_that_was_cut_off_is_never_an_answer(length):
    assert failure_of(WHOLE[:length]).failure is Failure.UNREADABLE


@pytest.mark.parametrize(
    ("usage", "tokens"),
    [
        ({"prompt_tokens": 8, "completion_tokens": 9, "total_tokens": 17}, (8, 9)),
        ({"prompt_tokens": 8, "completion_tokens": 9, "total_tokens": 550}, (8, 542)),
        ({"prompt_tokens": 8}, (8, 0)),
        ({"prompt_tokens": -5, "completion_tokens": 1}, None),
        ({"prompt_tokens": 1e20, "completion_tokens": 1}, None),
        ({"prompt_tokens": 10**20, "completion_tokens": 1}, None),
        ({"prompt_tokens": None, "completion_tokens": 1.5}, None),
        ({"prompt_tokens": True}, None),
        ([], None),
        (None, None),
    ],
)
def test_an_odd_account_of_tokens_costs_no_answer(usage, tokens):
    reply = read_reply(json.dumps({**completion("yes"), "usage": usage}))

    assert reply.text == "yes"
    assert (reply.prompt_tokens, reply.completion_tokens) == (tokens or (0, 0))
    assert counted_tokens(usage) == tokens


@pytest.mark.parametrize("finish", ["stop", "STOP", None, "eos", "end_turn"])
def test_each_word_for_a_whole_answer_is_known(finish):
    assert read_reply(json.dumps(completion("yes", finish))).text == "yes"


@pytest.mark.parametrize(
    ("finish", "failure"),
    [
        ("MAX_TOKENS", Failure.CUT_OFF),
        ("content_filter: SAFETY", Failure.FILTERED),
        ("abort", Failure.UNREADABLE),
        ("insufficient_system_resource", Failure.UNREADABLE),
    ],
)
def test_an_answer_that_ended_otherwise_is_none(finish, failure):
    assert failure_of(json.dumps(completion("yes", finish))).failure is failure


def test_content_in_parts_is_read():
    parts = [{"type": "text", "text": "y"}, {"type": "text", "text": "es"}]

    assert read_reply(json.dumps(completion(parts))).text == "yes"


def test_an_answer_of_foreign_form_that_has_its_price_is_asked_for_once_more():
    raw = json.dumps({"output": "yes", "usage": {"prompt_tokens": 8}})

    assert failure_of(raw).retry is Retry.ONCE
