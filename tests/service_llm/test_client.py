import asyncio
import json
import os
import signal
import threading
import time
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest
from pydantic import SecretStr

from llamaduo.interruption import end_threads
from llamaduo.service_llm.answers import Reply, reply_columns
from llamaduo.service_llm.budget import Account, Caps
from llamaduo.service_llm.endpoints import Accepts, Limits
from llamaduo.service_llm.failures import Failure, Retry, ServiceLLMError
from tests.fakes.openai_server import HTML, Fault, completion, echo, rate_limit, usage_of
from tests.service_llm.conftest import item_of, request, requests, service_at

HELLO = [{"role": "user", "content": "Hello?"}]


def fault(status, message="no such thing", **error):
    return Fault(status, json.dumps({"error": {"message": message, **error}}))


def test_replies_keep_the_order_of_the_requests(service):
    replies = service.complete_all(requests(20), "test")

    assert [reply.text for reply in replies] == [f"answer to item-{n}" for n in range(20)]


def test_what_was_answered_is_not_sent_again(service, server):
    first = service.complete_all([request(1), request(2)], "test")
    again = service.complete_all([request(2), request(3)], "test")

    assert len(server.served) == 3
    assert again[0] == first[1]


def test_nothing_is_sent_where_the_journal_has_everything(service, server):
    service.complete_all(requests(5), "test")
    elsewhere = replace(service, base_url="http://127.0.0.1:1/v1")

    replies = elsewhere.complete_all(requests(5), "test")

    assert all(reply.text for reply in replies)
    assert len(server.served) == 5


def test_no_requests_are_no_work(service):
    assert service.complete_all([], "test") == []


def test_repeats_of_one_request_are_each_sent(service, server):
    service.complete_all([request(1, repeat=n) for n in (1, 2, 3)], "test")

    assert len(server.served) == 3


def test_equal_requests_of_one_call_are_sent_once(service, server):
    replies = service.complete_all([request(1)] * 3, "test")

    assert len(server.served) == 1
    assert replies == [replies[0]] * 3


@pytest.mark.parametrize("status", [408, 409, 429, 500, 502, 503, 529])
def test_a_passing_fault_is_tried_again(service, server, status):
    server.faults = deque([fault(status, "busy")])

    (reply,) = service.complete_all([request(1)], "test")

    assert reply.failure is None
    assert [entry.status for entry in server.served] == [status, 200]


@pytest.mark.parametrize(
    "bad",
    [
        HTML,
        '{"id": "c", "choi',
        '{"choices": null}',
        '{"error": {"message": "upstream overloaded", "code": 502}}',
        json.dumps(completion(None)),
        json.dumps(completion("")),
    ],
)
def test_an_answer_that_is_none_is_asked_for_again(service, server, bad):
    server.faults = deque([Fault(body=bad)])

    (reply,) = service.complete_all([request(1)], "test")

    assert reply.text == "answer to item-1"
    assert len(server.served) == 2


@pytest.mark.parametrize(
    "broken", [Fault(keep=40), Fault(keep=0), Fault(drip_s=0.05), Fault(delay_s=30)]
)
def test_a_connection_that_breaks_or_drips_is_tried_again(server, tmp_path, broken):
    hasty = service_at(
        server.base_url, tmp_path / "j.sqlite", limits=Limits(timeout_s=1, deadline_s=30)
    )
    server.faults = deque([broken])

    began = time.monotonic()
    (reply,) = hasty.complete_all([request(1)], "test")

    assert reply.text == "answer to item-1"
    assert time.monotonic() - began < 5


@pytest.mark.parametrize("status", [400, 413, 422])
def test_a_lasting_fault_is_sent_once_and_stops_nobody_else(service, server, status):
    server.faults = deque([fault(status)])

    replies = service.complete_all(requests(3), "test")

    (failed,) = [reply for reply in replies if reply.failure]
    assert failed.failure is Failure.GAVE_UP
    assert f"HTTP {status}: no such thing" in failed.detail
    assert len(server.served) == 3


@pytest.mark.parametrize(
    ("status", "error"),
    [
        (401, {}),
        (402, {}),
        (403, {}),
        (404, {}),
        (429, {"code": "insufficient_quota"}),
        (429, {"type": "insufficient_quota"}),
        (400, {"code": "unsupported_parameter", "param": "max_tokens"}),
    ],
)
def test_a_fault_that_all_share_is_sent_once_and_ends_the_sending(server, tmp_path, status, error):
    one_by_one = service_at(server.base_url, tmp_path / "j.sqlite", limits=Limits(concurrency=1))
    server.script = lambda body: fault(status, "no", **error)

    replies = one_by_one.complete_all(requests(5), "test")

    assert len(server.served) == 1
    assert all(reply.retry is Retry.FATAL for reply in replies)
    with pytest.raises(ServiceLLMError, match=f"5 of 5 requests failed.*HTTP {status}"):
        reply_columns(replies)


def test_a_refused_parameter_is_named(service, server):
    server.script = lambda body: fault(
        400, "use another one", code="unsupported_parameter", param="max_tokens"
    )

    (reply,) = service.complete_all([request(1)], "test")

    assert "HTTP 400: parameter max_tokens: use another one" in reply.detail


def test_what_came_before_a_shared_fault_is_kept(server, tmp_path):
    one_by_one = service_at(server.base_url, tmp_path / "j.sqlite", limits=Limits(concurrency=1))
    server.script = lambda body: fault(401) if item_of(body) == "item-3" else None

    replies = one_by_one.complete_all(requests(5), "test")
    server.script = lambda body: None
    again = one_by_one.complete_all(requests(5), "test")

    assert [bool(reply.text) for reply in replies] == [True, True, True, False, False]
    assert all(reply.text for reply in again)
    assert len(server.served) == 4 + 2


@pytest.mark.parametrize("form", ["seconds", "fraction", "milliseconds", "date"])
def test_an_endpoint_s_own_waiting_time_is_kept_by_all(service, server, form):
    under_way = service.limits.concurrency
    # Those that are out when the limit comes are answered after it is known, and before it is over.
    others = [Fault(delay_s=0.8)] * (under_way - 1)
    server.faults = deque([rate_limit(form, 2), *others])

    replies = service.complete_all(requests(30), "test")

    (limited,) = [entry for entry in server.served if entry.status == 429]
    again = [e for e in server.served if item_of(e.body) == item_of(limited.body)][1]
    early = [entry for entry in server.served if entry.at < limited.not_before]
    assert all(reply.text for reply in replies)
    assert again.at >= limited.not_before
    assert len(early) <= under_way


def test_a_storm_of_rate_limits_uses_up_no_attempts(server, tmp_path):
    limits = Limits(concurrency=1, attempts=1)
    patient = service_at(server.base_url, tmp_path / "j.sqlite", limits=limits)
    server.faults = deque([Fault(429, "{}", {"retry-after-ms": "1"})] * 3)

    (reply,) = patient.complete_all([request(1)], "test")

    assert reply.text == "answer to item-1"


def test_a_server_that_allows_little_is_soon_asked_for_little(server, tmp_path):
    limits = Limits(concurrency=64, deadline_s=120)
    service = service_at(server.base_url, tmp_path / "j.sqlite", limits=limits)
    server.latency_s = 0.3
    allowed_from = 0.0

    def one_at_a_time(body):
        nonlocal allowed_from
        if time.monotonic() < allowed_from:
            return rate_limit("milliseconds", 0.2)
        allowed_from = time.monotonic() + 0.2

    server.script = one_at_a_time
    replies = service.complete_all(requests(20), "test")

    assert all(reply.text for reply in replies)
    assert len(server.served) <= 5.5 * 20  # 4; as many as ever after each cool-down: 6.5


def test_a_waiting_time_beyond_the_deadline_is_given_up_at_once_with_its_figure(service, server):
    server.faults = deque([rate_limit("seconds", 3600)])

    began = time.monotonic()
    (reply,) = service.complete_all([request(1)], "test")

    assert time.monotonic() - began < 5
    assert reply.failure is Failure.GAVE_UP
    assert "asked to wait 3600 s" in reply.detail
    assert len(server.served) == 1


def test_a_waiting_time_beyond_the_deadline_ends_the_job(server, tmp_path):
    one_by_one = service_at(server.base_url, tmp_path / "j.sqlite", limits=Limits(concurrency=1))
    server.script = lambda body: rate_limit("seconds", 3600)

    replies = one_by_one.complete_all(requests(3), "test")

    assert len(server.served) == 1
    with pytest.raises(ServiceLLMError, match="asked for 3600 s without requests"):
        reply_columns(replies[1:])


@pytest.mark.parametrize(
    ("bad", "failure"),
    [
        (completion(None, refusal="I will not"), Failure.REFUSED),
        (completion("x", "content_filter"), Failure.FILTERED),
        (completion("half of", "length"), Failure.CUT_OFF),
        (completion("", "length"), Failure.CUT_OFF),
    ],
)
def test_what_the_model_will_not_or_cannot_say_is_asked_for_twice(service, server, bad, failure):
    server.script = lambda body: Fault(body=json.dumps(bad))

    (reply,) = service.complete_all([request(1)], "test")

    assert (reply.text, reply.failure) == (None, failure)
    assert len(server.served) == 2


def test_an_answer_that_was_cut_off_gets_twice_the_tokens(service, server):
    server.faults = deque([Fault(body=json.dumps(completion("half of", "length")))])

    (reply,) = service.complete_all([request(1)], "test")
    (known,) = service.complete_all([request(1)], "test")

    assert [entry.body["max_tokens"] for entry in server.served] == [64, 128]
    assert reply.text == known.text == "answer to item-1"


def test_requests_per_minute_are_limited(server, tmp_path):
    limits = Limits(concurrency=64, requests_per_minute=600)
    slow = service_at(server.base_url, tmp_path / "j.sqlite", limits=limits)

    began = time.monotonic()
    slow.complete_all(requests(30), "test")

    # 10 at once, then 10 a second. A busy machine may deliver the first late: no clock of its own.
    assert server.served[-1].at - began >= 1.9


def test_tokens_per_minute_are_limited(server, tmp_path):
    limits = Limits(concurrency=64, tokens_per_minute=60 * 200)
    slow = service_at(server.base_url, tmp_path / "j.sqlite", limits=limits)

    began = time.monotonic()
    slow.complete_all(requests(30), "test")

    tokens = sum(entry.usage["total_tokens"] for entry in server.served[:-1])
    assert tokens <= 1.3 * 200 * (server.served[-1].at - began + 1)


def test_no_more_than_the_concurrency_is_under_way(server, tmp_path):
    server.latency_s = 0.05
    limits = Limits(concurrency=4)
    service_at(server.base_url, tmp_path / "j.sqlite", limits=limits).complete_all(
        requests(20), "test"
    )

    starts = [entry.at for entry in server.served]
    assert max(sum(start <= each < start + 0.05 for each in starts) for start in starts) <= 4


def test_what_a_model_takes_is_what_it_is_sent(server, tmp_path):
    accepts = Accepts(token_limit="max_completion_tokens", temperature=False, reasoning_tokens=1000)
    schema = {"name": "s", "schema": {"type": "object"}}
    thinker = service_at(server.base_url, tmp_path / "j.sqlite", accepts=accepts)

    thinker.complete_all([request(1, temperature=1.0, response_schema=schema)], "test")

    (entry,) = server.served
    assert set(entry.body) == {"model", "messages", "max_completion_tokens"}
    assert entry.body["max_completion_tokens"] == 1064


def test_the_key_is_shown_nowhere(service, server, tmp_path, caplog, capsys):
    server.script = lambda body: fault(400, "Incorrect API key provided: sk-secret")

    (reply,) = service.complete_all([request(1)], "test")

    assert server.keys == {"Bearer sk-secret"}
    shown = [repr(service), repr(reply), caplog.text, *capsys.readouterr()]
    assert not any("sk-secret" in text for text in shown)
    assert not any(b"sk-secret" in path.read_bytes() for path in tmp_path.iterdir())


def test_progress_says_what_failed_what_was_known_and_what_it_cost(service, server, capsys):
    service.complete_all(requests(10), "judging")
    server.faults = deque([fault(400)])
    capsys.readouterr()

    account = Account(name="loop", caps=Caps(usd=5))
    service.complete_all(requests(30), "judging", account)

    last = capsys.readouterr().err.strip().splitlines()[-1]
    assert "judging 30/30" in last
    assert "1 failed" in last
    assert "10 from the journal" in last
    assert "tokens/s" in last
    assert "of $5.00" in last


def test_a_signal_ends_the_sending_and_loses_no_answer(service, server):
    server.latency_s = 0.3
    first = threading.Event()

    def script(body):
        if not first.is_set():
            first.set()
            threading.Timer(0.1, os.kill, (os.getpid(), signal.SIGINT)).start()

    server.script = script
    with pytest.raises(KeyboardInterrupt):
        service.complete_all(requests(100), "test")

    asked = {item_of(entry.body) for entry in server.served}
    assert len(server.served) == 8
    service.complete_all(requests(100), "test")
    assert len(server.served) == 100
    assert asked < {item_of(entry.body) for entry in server.served}


@pytest.mark.parametrize(
    ("problem", "sentence"),
    [
        (fault(401, "bad key"), "HTTP 401: bad key (is the key right?)"),
        (fault(404, "model m not found", code="model_not_found"), "are model and base_url right?"),
        (Fault(404, HTML), "HTTP 404"),
        (Fault(body=HTML), "a page of HTML or XML; does base_url name the API?"),
        (fault(429, "pay first", code="insufficient_quota"), "pay first"),
    ],
)
def test_a_preflight_names_what_is_wrong(service, server, problem, sentence):
    server.script = lambda body: problem

    assert sentence in service.check(Account())
    assert len(server.served) == 1


def test_a_preflight_tells_an_endpoint_that_cannot_be_reached(service):
    nowhere = replace(service, base_url="http://127.0.0.1:1/v1")

    assert "m at http://127.0.0.1:1/v1: no connection" in nowhere.check(Account())


def test_a_preflight_names_a_model_that_refuses_the_task(service, server):
    refusal = completion("No.", refusal="I know only triage.")
    server.script = lambda body: Fault(body=json.dumps(refusal))

    assert "m refuses this task: I know only triage." in service.check(Account(), HELLO)
    assert service.check(Account()) is None  # anything else is not the task


@pytest.mark.parametrize("passing", [fault(503, "busy"), rate_limit("seconds", 60)])
def test_a_preflight_goes_on_where_the_fault_may_pass(service, server, passing, caplog):
    server.script = lambda body: passing

    assert service.check(Account()) is None
    assert "going on" in caplog.text


def test_a_preflight_is_sent_each_time(service, server):
    assert service.check(Account()) is None
    assert service.check(Account()) is None

    assert len(server.served) == 2


def test_a_call_that_only_fails_says_so_once():
    failed = Reply(None, Failure.EMPTY, "nothing", Retry.AGAIN)

    with pytest.raises(ServiceLLMError, match="2 of 2 requests failed, the first with: empty"):
        reply_columns([failed] * 2)


def test_a_spent_budget_is_no_error():
    columns = reply_columns([Reply(None, Failure.OVER_BUDGET, "spent", Retry.NEVER)] * 2)

    assert columns["failure"] == ["over budget"] * 2


def test_a_model_that_says_nothing_of_its_tokens_counts_at_the_estimate(service, server):
    def silent(body):
        return {**echo(body), "usage": None}

    server.answer = silent
    service.complete_all(requests(4), "test", Account(name="loop"))

    spent = service.journal.spent("loop")
    exact = usage_of("Please say this: item-1", 12)["total_tokens"]
    assert spent.requests == 4
    assert spent.tokens == pytest.approx(4 * exact, rel=0.1)
    assert spent.usd > 0


def test_another_model_than_the_one_asked_for_is_said(service, server, caplog):
    server.answer = lambda body: {**echo(body), "model": "gpt-cheap"}

    (reply,) = service.complete_all([request(1)], "test")

    assert reply.model == "gpt-cheap"
    assert "asked for the model m, the endpoint names gpt-cheap" in caplog.text


def test_a_signal_waits_for_no_limit(server, tmp_path):
    limits = Limits(concurrency=8, requests_per_minute=60)
    slow = service_at(server.base_url, tmp_path / "j.sqlite", limits=limits)
    server.script = lambda body: threading.Timer(0.1, os.kill, (os.getpid(), signal.SIGINT)).start()

    began = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        slow.complete_all(requests(8), "test")

    assert time.monotonic() - began < 5


def interrupt_when_asked(server, signals=1):
    """Send SIGINT as soon as a request has arrived, and again while it is being dealt with."""

    def interrupt():
        while not server.served:
            time.sleep(0.01)
        for _ in range(signals):
            time.sleep(0.3)
            os.kill(os.getpid(), signal.SIGINT)

    threading.Thread(target=interrupt).start()


def test_a_signal_waits_for_no_cool_down(service, server):
    server.script = lambda body: rate_limit("seconds", 30)
    interrupt_when_asked(server)

    began = time.process_time()
    with pytest.raises(KeyboardInterrupt):
        service.complete_all(requests(30), "test")

    assert time.monotonic() - server.served[0].at < 5
    assert time.process_time() - began < 3
    assert len(server.served) <= 8


def test_nothing_is_sent_after_a_signal_though_the_budget_would_then_allow_it(server, tmp_path):
    server.latency_s = 0.5
    limits = Limits(concurrency=16)
    service = service_at(server.base_url, tmp_path / "j.sqlite", limits=limits)
    most = 30 + 16 + 64  # at most: bytes of the prompt, its frame, the answer
    interrupt_when_asked(server)

    with pytest.raises(KeyboardInterrupt):
        service.complete_all(requests(16), "test", Account(name="l", caps=Caps(tokens=3 * most)))

    assert len(server.served) <= 4


def test_a_second_signal_does_not_wait(service, server):
    server.latency_s = 30
    interrupt_when_asked(server, signals=2)

    with pytest.raises(KeyboardInterrupt):
        service.complete_all(requests(8), "test")

    assert time.monotonic() - server.served[0].at < 8


def test_work_in_a_thread_is_ended_by_whoever_gets_the_signal(service, server):
    server.latency_s = 0.3
    with ThreadPoolExecutor() as pool:
        future = pool.submit(service.complete_all, requests(100), "test")
        while len(server.served) < 8:
            time.sleep(0.01)

        end_threads()

    assert [bool(reply.text) for reply in future.result()].count(True) == len(server.served)
    assert len(server.served) < 20


def in_a_notebook(work):
    """Call a function as a cell does: an event loop runs already."""

    async def cell():
        return work()

    return asyncio.run(cell())


def test_a_running_event_loop_is_no_obstacle(service):
    replies = in_a_notebook(lambda: service.complete_all(requests(3), "test"))

    assert [reply.text for reply in replies] == [f"answer to item-{n}" for n in range(3)]


def test_an_interrupt_under_a_running_event_loop_loses_no_answer(service, server):
    server.latency_s = 0.3

    # asyncio.run has a handler of its own, which cancels; a notebook's kernel has this one.
    def cell():
        before = signal.signal(signal.SIGINT, signal.default_int_handler)
        interrupt_when_asked(server)
        try:
            with pytest.raises(KeyboardInterrupt):
                service.complete_all(requests(100), "test")
        finally:
            signal.signal(signal.SIGINT, before)

    in_a_notebook(cell)

    asked = len(server.served)
    assert asked < 20
    service.complete_all(requests(100), "test")
    assert len(server.served) == 100


def test_an_error_of_ours_loses_no_answer_under_way(service, server, monkeypatch):
    server.latency_s = 0.2
    unreadable = [request(0, messages=[{"role": "user", "content": "half \ud83d"}])]

    with pytest.raises(UnicodeEncodeError):
        service.complete_all([*requests(5), *unreadable, *requests(9)[5:]], "test")
    server.latency_s = 0
    before = len(server.served)
    service.complete_all(requests(9), "test")

    items = [item_of(entry.body) for entry in server.served]
    assert len(set(items[:before]) & set(items[before:])) == 0


def test_a_request_larger_than_a_second_s_worth_of_tokens_waits_for_all_of_it(server, tmp_path):
    limits = Limits(concurrency=4, tokens_per_minute=60 * 500)
    slow = service_at(server.base_url, tmp_path / "j.sqlite", limits=limits)
    long = [request(n, messages=[{"role": "user", "content": "x" * 5000 + f" {n}"}]) for n in "12"]

    began = time.monotonic()
    slow.complete_all(long, "test")

    assert server.served[1].at - began >= 2


def test_a_spent_budget_ends_at_once_whatever_the_limits_are(server, tmp_path):
    limits = Limits(concurrency=4, requests_per_minute=60)
    slow = service_at(server.base_url, tmp_path / "j.sqlite", limits=limits)

    began = time.monotonic()
    replies = slow.complete_all(requests(50), "test", Account(name="l", caps=Caps(requests=2)))

    assert time.monotonic() - began < 5
    assert len(server.served) == 2
    assert [reply.failure for reply in replies].count(Failure.OVER_BUDGET) == 48


def test_the_last_attempt_ends_with_the_deadline(server, tmp_path):
    limits = Limits(timeout_s=10, deadline_s=2)
    hasty = service_at(server.base_url, tmp_path / "j.sqlite", limits=limits)
    server.script = lambda body: Fault(delay_s=20)

    began = time.monotonic()
    (reply,) = hasty.complete_all([request(1)], "test")

    assert reply.failure is Failure.GAVE_UP
    assert time.monotonic() - began < 4


def test_a_cool_down_outlasts_the_job_that_met_it(server, tmp_path):
    hasty = service_at(server.base_url, tmp_path / "j.sqlite", limits=Limits(deadline_s=1))
    server.faults = deque([rate_limit("seconds", 2)])
    hasty.complete_all([request(1)], "test")

    patient = replace(hasty, limits=Limits(deadline_s=60))
    (reply,) = patient.complete_all([request(2)], "test")

    assert reply.text
    assert server.served[1].at >= server.served[0].not_before


def test_a_connection_closed_without_a_word_may_have_cost_something(service, server):
    server.faults = deque([Fault(keep=-1)])

    (reply,) = service.complete_all([request(1)], "test", Account(name="loop"))

    spent, served = service.journal.spent("loop"), server.served[0].usage["total_tokens"]
    assert reply.text
    assert spent.tokens == pytest.approx(2 * served, rel=0.1)


def test_a_key_inside_an_answer_is_not_kept(service, server, tmp_path):
    server.rewrite = lambda text: f"{text} sk-secret"

    (reply,) = service.complete_all([request(1)], "test")

    assert reply.text == "answer to item-1 ***"
    assert not any(b"sk-secret" in path.read_bytes() for path in tmp_path.iterdir())


def test_an_answer_that_would_no_longer_do_is_asked_for_anew(service, server):
    service.complete_all([request(1)], "test")
    connection = service.journal.open()
    connection.execute("UPDATE attempts SET body = ?", (json.dumps(completion(" ")),))
    connection.close()

    (reply,) = service.complete_all([request(1)], "test")

    assert reply.text == "answer to item-1"


def test_a_key_is_sent_as_it_is(server, tmp_path):
    other = service_at(server.base_url, tmp_path / "j.sqlite", api_key=SecretStr("sk-other"))

    other.complete_all([request(1)], "test")

    assert server.keys == {"Bearer sk-other"}
