"""The promises of the service LLM layer against the server's ledger; at full size by make soak."""

import json
import random
import subprocess
import sys
import time
from collections import Counter, defaultdict
from dataclasses import replace
from itertools import pairwise

import pytest

from llamaduo.service_llm.budget import Account, Caps
from llamaduo.service_llm.client import Request
from llamaduo.service_llm.endpoints import Limits
from llamaduo.service_llm.failures import Failure
from llamaduo.service_llm.journal import Journal
from tests.fakes.openai_server import (
    KINDS,
    FakeOpenAI,
    Fault,
    completion,
    echo,
    random_faults,
    usage_of,
)
from tests.service_llm.conftest import PRICE, item_of, requests, service_at

ALL_KINDS = (*KINDS, "drip", "error inside", "no choices")
LASTING = {400: 0, 413: 1, 422: 2}


def by_item(served):
    found = defaultdict(list)
    for entry in served:
        found[item_of(entry.body)].append(entry)
    return found


def undercut(entries):
    """Whether a request came before its endpoint's waiting time was over."""
    return any(after.at < before.not_before for before, after in pairwise(entries))


def tokens_of(served):
    return sum(entry.usage["total_tokens"] for entry in served if entry.usage)


def usd_of(served):
    return sum(
        PRICE.of(entry.usage["prompt_tokens"], entry.usage["completion_tokens"])
        for entry in served
        if entry.usage
    )


@pytest.mark.parametrize("count", [200, pytest.param(10_000, marks=pytest.mark.soak)])
def test_a_fifth_of_faults_loses_and_repeats_nothing(tmp_path, count, capsys):
    passing = random_faults(0.2, seed=3, kinds=ALL_KINDS, hang_s=4)

    def script(body):
        number = int(item_of(body).split("-")[1])
        status = next((s for s, rest in LASTING.items() if number % 300 == rest), None)
        error = '{"error": {"message": "no"}}'
        return Fault(status, error, name="lasting") if status else passing(body)

    limits = Limits(concurrency=64, timeout_s=2, deadline_s=300)
    with FakeOpenAI(answer=echo, script=script, latency_s=0.02) as server:
        service = service_at(server.base_url, tmp_path / "j.sqlite", limits=limits)
        began = time.monotonic()
        replies = service.complete_all(requests(count), "test", Account(name="loop"))
        took = time.monotonic() - began

    items, served = by_item(server.served), server.served
    for number, reply in enumerate(replies):
        if number % 300 in LASTING.values():
            assert reply.failure is Failure.GAVE_UP
            assert len(items[f"item-{number}"]) == 1
        elif reply.failure is not Failure.EMPTY:  # three times in a row, by chance
            assert reply.text == f"answer to item-{number}"
    assert sum(reply.failure is Failure.EMPTY for reply in replies) <= count / 2000
    good = [sum(e.answered and not e.name for e in entries) for entries in items.values()]
    assert max(good) == 1
    assert len(served) <= 1.30 * count
    assert not any(undercut(entries) for entries in items.values())
    spent = service.journal.spent("loop")
    assert spent.requests == len(served)
    assert spent.tokens == pytest.approx(tokens_of(served), rel=0.01)
    assert spent.usd == pytest.approx(usd_of(served), rel=0.01)
    faults = Counter(entry.name or "none" for entry in served)
    with capsys.disabled():
        print(
            f"\n{count} requests, faults {dict(sorted(faults.items()))}: "
            f"{len(served) / count:.3f} sent per item, {took:.0f} s, "
            f"tokens {spent.tokens / tokens_of(served):.4f} and "
            f"USD {spent.usd / usd_of(served):.4f} of the server's ledger"
        )


@pytest.mark.soak
def test_nine_kinds_of_faults_as_in_the_measured_comparison(tmp_path, capsys):
    limits = Limits(concurrency=256, timeout_s=10, deadline_s=600)
    script = random_faults(0.2, seed=1, hang_s=30)
    with FakeOpenAI(answer=echo, script=script, latency_s=0.2) as server:
        service = service_at(server.base_url, tmp_path / "j.sqlite", limits=limits)
        replies = service.complete_all(requests(2000), "test")

    good = sum(reply.text == f"answer to item-{n}" for n, reply in enumerate(replies))
    junk = sum(bool(reply.text) for reply in replies) - good
    late = sum(undercut(entries) for entries in by_item(server.served).values())
    with capsys.disabled():
        print(f"\n2000 items: {good} good, {junk} junk, {len(server.served) / 2000:.3f} sent each")
    assert (good, junk, late) == (2000, 0, 0)
    assert len(server.served) <= 1.30 * 2000


JOB = """
import sys
from pathlib import Path
from llamaduo.service_llm.endpoints import Limits
from tests.service_llm.conftest import requests, service_at

url, path, count, concurrency = sys.argv[1:]
limits = Limits(concurrency=int(concurrency))
replies = service_at(url, Path(path), limits=limits).complete_all(requests(int(count)), "test")
assert [reply.text for reply in replies] == [f"answer to item-{n}" for n in range(int(count))]
"""


def start_job(server, path, count, concurrency):
    command = [sys.executable, "-c", JOB, server.base_url, str(path), str(count), str(concurrency)]
    return subprocess.Popen(command, stderr=subprocess.PIPE, text=True)


def answered_keys(path):
    """Items whose answer stands in the journal, read while nobody writes."""
    if not path.exists():
        return set()
    with_key = Journal(path).open()
    rows = with_key.execute("SELECT request FROM attempts WHERE outcome = 'answered'").fetchall()
    with_key.close()
    return {item_of(json.loads(request)) for (request,) in rows}


@pytest.mark.parametrize("kills", [2, pytest.param(200, marks=pytest.mark.soak)])
def test_kills_lose_no_answer_that_had_arrived(tmp_path, kills, capsys):
    count, concurrency = 2000, 64
    rng = random.Random(kills)
    killed, rebought_most, jobs = 0, 0, 0
    while killed < kills:
        jobs += 1
        path = tmp_path / f"{jobs}.sqlite"
        with FakeOpenAI(answer=echo, latency_s=0.02) as server:
            while True:
                asked_before, had = len(server.served), answered_keys(path)
                process = start_job(server, path, count, concurrency)
                goal = asked_before + rng.randint(1, 400) if killed < kills else count * 10
                while process.poll() is None and len(server.served) < goal:
                    time.sleep(rng.uniform(0, 0.005))
                if process.poll() is None:
                    process.kill()
                    killed += 1
                _, error = process.communicate()
                asked_now = {item_of(entry.body) for entry in server.served[asked_before:]}
                assert not asked_now & had
                if process.returncode == 0:
                    break
                assert process.returncode == -9, error
                arrived = answered_keys(path)
                lost = asked_now - arrived
                rebought_most = max(rebought_most, len(lost))
                assert len(lost) <= concurrency
        assert answered_keys(path) == {f"item-{n}" for n in range(count)}
    with capsys.disabled():
        print(f"\n{killed} kills in {jobs} jobs: at most {rebought_most} asked again after one")


@pytest.mark.soak
def test_crashes_about_the_half_send_little_again(tmp_path, capsys):
    counts = []
    for goal in range(750, 1300, 50):  # 256 at once answer in waves: one instant shows one wave
        path = tmp_path / f"{goal}.sqlite"
        with FakeOpenAI(answer=echo, latency_s=0.2) as server:
            process = start_job(server, path, 2000, 256)
            while sum(entry.answered for entry in server.served) < goal:
                time.sleep(0.001)
            process.kill()
            process.communicate()
            answered = {item_of(entry.body) for entry in server.served if entry.answered}
            before = len(server.served)
            again = start_job(server, path, 2000, 256)
            again.communicate()
            assert again.returncode == 0
        repeated = answered & {item_of(entry.body) for entry in server.served[before:]}
        counts.append((len(answered), len(repeated)))
    share = sum(repeated for _, repeated in counts) / sum(answered for answered, _ in counts)
    with capsys.disabled():
        print(
            f"\n(answered before the crash, sent again): {counts}, {100 * share:.1f} % on average"
        )
    assert share < 0.05


def varied_requests(rng, count):
    """Prompts of many lengths; the answers are about as long as is expected."""
    made = []
    for number in range(count):
        words = " ".join("word" for _ in range(rng.randint(5, 400)))
        message = {"role": "user", "content": f"{words} item-{number}"}
        expected = rng.randint(5, 200)
        made.append(Request([message], max_tokens=256, expected_tokens=expected, repeat=expected))
    return made


def as_expected(rng, made):
    expected = {request.messages[0]["content"]: request.expected_tokens for request in made}

    def answer(body):
        prompt = body["messages"][0]["content"]
        tokens = max(1, min(256, round(expected[prompt] * rng.uniform(0.7, 1.3))))
        return completion("yes", usage=usage_of(prompt, tokens))

    return answer


SEEDS = [0, 1, *(pytest.param(seed, marks=pytest.mark.soak) for seed in range(2, 100))]


@pytest.mark.parametrize("seed", SEEDS)
def test_a_cap_is_kept_whatever_is_under_way(tmp_path, seed):
    rng = random.Random(seed)
    made = varied_requests(rng, 60)
    faults = random_faults(0.1, seed, kinds=("500", "close", "null", "cut"))
    concurrency = rng.choice([1, 4, 16])
    answer = as_expected(random.Random(seed), made)
    with FakeOpenAI(answer=answer, latency_s=0.005) as server:
        service = service_at(
            server.base_url, tmp_path / "free.sqlite", limits=Limits(concurrency=concurrency)
        )
        estimate = service.estimate(made, "test")
        service.complete_all(made, "test", Account(name="free"))
        free = service.journal.spent("free")
        assert estimate.usd == pytest.approx(free.usd, rel=0.2)
        assert estimate.tokens == pytest.approx(free.tokens, rel=0.2)
        assert estimate.requests == free.requests

        server.served.clear()
        server.script = faults
        kind = rng.choice(["usd", "tokens", "requests"])
        cap = getattr(free, kind) * rng.uniform(0.1, 0.9)
        caps = Caps(
            **{kind: int(cap) if kind == "requests" else round(cap, 6 if kind == "usd" else 0)}
        )
        capped = replace(service, journal=Journal(tmp_path / "capped.sqlite"))
        account = Account(name="loop", caps=caps)
        # Twice, as a loop that is resumed.
        replies = capped.complete_all(made[:30], "test", account)
        replies += capped.complete_all(made[30:], "test", account)

    spent = {
        "usd": usd_of(server.served),
        "tokens": tokens_of(server.served),
        "requests": len(server.served),
    }[kind]
    dearest = {
        "usd": max(usd_of([entry]) for entry in server.served),
        "tokens": max(tokens_of([entry]) for entry in server.served),
        "requests": 1,
    }[kind]
    # What was billed without a word of it, a broken connection, counts at an estimate.
    assert spent <= getattr(caps, kind) + (0 if kind == "requests" else dearest)
    assert any(reply.failure is Failure.OVER_BUDGET for reply in replies)
    assert any(reply.text for reply in replies)


MEMORY = """
import sys
from pathlib import Path
from llamaduo.service_llm.endpoints import Limits
from tests.service_llm.conftest import request, service_at

def memory(field):
    # Of this program alone: what getrusage gives begins with the peak of the one that started it.
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith(field)).split()[1]) / 1024

url, path, count = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3])
import openai, httpx2, llamaduo.service_llm.sending
made = [request(n, messages=[{"role": "user", "content": "x" * 1500 + f" item-{n}"}])
        for n in range(count)]
before = memory("VmRSS")
limits = Limits(concurrency=256)
replies = service_at(url, path, limits=limits).complete_all(made, "test")
texts = sum(sys.getsizeof(reply.text) for reply in replies) / 2**20
print(before, memory("VmHWM"), texts, sum(bool(reply.text) for reply in replies))
"""


@pytest.mark.parametrize("count", [2000, pytest.param(100_000, marks=pytest.mark.soak)])
def test_memory_does_not_grow_with_the_job(tmp_path, count, capsys):
    settings = json.dumps({"padding": 1500})
    server = subprocess.Popen(
        [sys.executable, "-m", "tests.fakes.openai_server", settings],
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        url = server.stdout.readline().strip()
        command = [sys.executable, "-c", MEMORY, url, str(tmp_path / "j.sqlite"), str(count)]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
    finally:
        server.kill()
        server.communicate()
    before, peak, texts, good = map(float, done.stdout.split())
    with capsys.disabled():
        print(
            f"\n{count} requests: {peak - before - texts:.0f} MB above {before:.0f} MB of requests "
            f"and {texts:.0f} MB of reply texts"
        )
    assert good == count
    assert peak - before - texts <= 500
