"""Two minutes of 64 clients: pytest -m soak tests/serving -s"""

import asyncio
import subprocess
import sys
import time
from pathlib import Path

import openai
import psutil
import pytest

CLIENTS, SECONDS, EDGE_S = 64, 120, 30
GROWTH = 1.02
ABANDONED = 8
"""Each so many requests of a client, it goes away in the middle of a stream."""
SERVER = """
import sys
from pathlib import Path
from llamaduo.local_llm.release import Release
from tests.serving.conftest import serving

with serving(Release.open(Path(sys.argv[1])), sys.argv[2], slots=16) as served:
    print(served.base_url, flush=True)
    sys.stdin.read()
"""


@pytest.mark.soak
@pytest.mark.parametrize("part", ["merged", "f16"])
def test_64_clients_for_two_minutes_meet_no_error_and_the_memory_stays(part, release, answer_of):
    texts = [f"Tell me about number {i}{' again' * (6 * i)}." for i in range(CLIENTS)]
    messages = [[{"role": "user", "content": text}] for text in texts]
    expected = [answer_of(each) for each in messages]
    with subprocess.Popen(
        [sys.executable, "-c", SERVER, str(release.folder), part],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).parents[2],
    ) as server:
        base_url = server.stdout.readline().strip()
        answers, memory = asyncio.run(asked_for_two_minutes(base_url, messages, server.pid))
        server.stdin.close()

    own = [
        answer == wanted
        for drawn, wanted in zip(answers, expected, strict=True)
        for answer in drawn
    ]
    of_others = [
        answer in {*expected} - {wanted}
        for drawn, wanted in zip(answers, expected, strict=True)
        for answer in drawn
    ]
    early = max(memory[EDGE_S - 5 : EDGE_S + 5])
    late = max(memory[-EDGE_S:])
    print(
        f"\n{part}: {len(own)} answers in {SECONDS} s, {sum(own)} as plain generation has them, "
        f"{early / 1e6:.0f} MB after {EDGE_S} s, {late / 1e6:.0f} MB in the last {EDGE_S} s"
    )
    assert all(answers)
    assert not any(of_others)
    # A GGUF file computes in half precision, in which the batch decides near ties.
    assert sum(own) >= (1 if part == "merged" else 0.7) * len(own)
    assert late <= GROWTH * early


async def asked_for_two_minutes(base_url, messages, pid):
    """The answers that each client got, and the server's memory in bytes at each second."""
    end = time.monotonic() + SECONDS
    async with openai.AsyncOpenAI(base_url=base_url, api_key="any", max_retries=0) as client:
        measuring = asyncio.create_task(memory_of(psutil.Process(pid), end))
        answers = await asyncio.gather(*[one_client(client, each, end) for each in messages])
        return answers, await measuring


async def one_client(client, messages, end):
    answers = []
    while time.monotonic() < end:
        if len(answers) % ABANDONED == ABANDONED - 1:
            stream = await client.chat.completions.create(
                model="any", messages=messages, max_tokens=60, stream=True
            )
            async with stream:
                await anext(stream)
        completion = await client.chat.completions.create(model="any", messages=messages)
        answers.append(completion.choices[0].message.content)
    return answers


async def memory_of(process, end):
    """With its children: llama.cpp is one."""
    sizes = []
    while time.monotonic() < end:
        family = [process, *process.children(recursive=True)]
        sizes.append(sum(each.memory_info().rss for each in family))
        await asyncio.sleep(1)
    return sizes
