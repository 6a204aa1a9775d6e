"""Requests per second and CPU, with journal and answer checks, beside two other ways to ask.

5,000 requests of 200 ms, 256 at once: no client can do more than 1,250 a second. The three take
turns in one run against a server in a process of its own.
"""

import asyncio
import json
import statistics
import subprocess
import sys
import time

import openai
import pytest

from llamaduo.service_llm.endpoints import Limits
from tests.service_llm.conftest import request, service_at

COUNT, CONCURRENCY, LATENCY_S, ROUNDS = 5000, 256, 0.2, 3
REQUESTS_PER_MINUTE, WORKERS = 10_000, 4


@pytest.fixture
def base_url():
    command = [sys.executable, "-m", "tests.fakes.openai_server"]
    settings = json.dumps({"latency_s": LATENCY_S})
    server = subprocess.Popen([*command, settings], stdout=subprocess.PIPE, text=True)
    yield server.stdout.readline().strip()
    server.kill()
    server.communicate()


def made():
    return [
        request(n, messages=[{"role": "user", "content": "x" * 400 + f" item-{n}"}])
        for n in range(COUNT)
    ]


async def complete(client, each):
    answer = await client.chat.completions.create(
        model="m", messages=each.messages, max_tokens=each.max_tokens
    )
    return answer.choices[0].message.content


def stock_sdk(base_url, requests):
    """The client as it comes, behind a semaphore; no journal."""

    async def all_of_them():
        slots = asyncio.Semaphore(CONCURRENCY)

        async def one(client, each):
            async with slots:
                return await complete(client, each)

        async with openai.AsyncOpenAI(base_url=base_url, api_key="k", max_retries=0) as client:
            return await asyncio.gather(*(one(client, each) for each in requests))

    return asyncio.run(all_of_them())


def llamaduo_rule(base_url, requests):
    """The paper's rule, written anew: chunks for jobs of 20 s, a fixed sleep after each chunk."""
    chunk = REQUESTS_PER_MINUTE // 3 // WORKERS
    sleep_s = 720 / REQUESTS_PER_MINUTE

    async def all_of_them():
        answers = []
        async with openai.AsyncOpenAI(base_url=base_url, api_key="k", max_retries=0) as client:
            for start in range(0, len(requests), chunk):
                part = requests[start : start + chunk]
                answers += await asyncio.gather(*(complete(client, each) for each in part))
                await asyncio.sleep(sleep_s)
        return answers

    return asyncio.run(all_of_them())


def test_throughput_beside_the_stock_client(base_url, tmp_path):
    def ours(base_url, requests):
        limits = Limits(concurrency=CONCURRENCY)
        path = tmp_path / f"{time.time_ns()}.sqlite"
        replies = service_at(base_url, path, limits=limits).complete_all(requests, "bench")
        return [reply.text for reply in replies]

    rates, cpu = {}, {}
    requests, answers = made(), [f"answer to item-{n}" for n in range(COUNT)]
    for _ in range(ROUNDS):
        for client in (ours, stock_sdk, llamaduo_rule):
            began, used = time.perf_counter(), time.process_time()
            assert client(base_url, requests) == answers
            rates.setdefault(client.__name__, []).append(COUNT / (time.perf_counter() - began))
            cpu.setdefault(client.__name__, []).append((time.process_time() - used) / COUNT * 1000)

    print()
    for name, values in rates.items():
        print(
            f"{name:14} {statistics.median(values):6.0f} requests/s "
            f"({min(values):.0f}-{max(values):.0f} in {ROUNDS} rounds), "
            f"{statistics.median(cpu[name]):.2f} ms CPU a request"
        )
    fastest_other = max(statistics.median(rates[name]) for name in ("stock_sdk", "llamaduo_rule"))
    assert statistics.median(rates["ours"]) > 1.3 * fastest_other
