"""Tokens per second of the server beside plain generation, for 16 and 32 requests at once.

pytest tests/benchmarks/bench_serving.py --override-ini python_files='bench_*.py' -s

The server answers over HTTP, and its requests come and go one by one; plain generation has all
prompts from the start, in one batch. The sides take turns, and the fastest of the rounds counts:
other work on the machine only adds time. Both are in the precision of evaluation.
"""

import asyncio
import time
from collections import defaultdict
from pathlib import Path

import openai
import pandas as pd
import pytest

from llamaduo.local_llm.base_model import BaseModelSpec, compute_dtype, load_model, load_tokenizer
from llamaduo.local_llm.chat import encode_prompt, to_messages
from llamaduo.local_llm.inference import DecodingSettings, generate
from tests.serving.conftest import make_release, serving

ROUNDS, TOKENS, CLIENTS = 3, 48, (16, 32)
LEAST = 0.5
"""Of plain generation's tokens per second."""
BASE_MODEL = "data/06_models/smollm2-135m-instruct"
PROMPTS = pd.read_json("data/01_raw/coverage_test.jsonl", lines=True)["prompt"]


@pytest.mark.timeout(3600)
@pytest.mark.parametrize("part", ["merged", "q8_0"])
def test_the_server_keeps_a_good_part_of_plain_generation_s_speed(part, tmp_path):
    release = make_release(Path(BASE_MODEL), tmp_path / "release", *{part} - {"merged"})
    conversations = [to_messages(None, prompt) for prompt in PROMPTS[: max(CLIENTS)]]
    tokenizer = load_tokenizer(BaseModelSpec(BASE_MODEL))
    prompts = [encode_prompt(tokenizer, messages) for messages in conversations]
    model = load_model(BaseModelSpec(BASE_MODEL))
    best = defaultdict(float)
    with serving(
        release, part, dtype=None, slots=max(CLIENTS), context=1024, timeout_s=600
    ) as served:
        for _ in range(ROUNDS):
            for number in CLIENTS:
                decoding = DecodingSettings(0.0, 1.0, TOKENS, batch_size=number, seed=1)
                rates = {
                    "plain": plain_rate(model, tokenizer, prompts[:number], decoding),
                    "server": asyncio.run(server_rate(served.base_url, conversations[:number])),
                }
                for side, rate in rates.items():
                    best[side, number] = max(best[side, number], rate)

    print(f"\n{part}, {compute_dtype()}: tokens/s")
    for number in CLIENTS:
        plain, server = best["plain", number], best["server", number]
        print(f"{number:3} at once: plain {plain:5.0f}, server {server:5.0f}: {server / plain:.2f}")
    assert all(best["server", n] >= LEAST * best["plain", n] for n in CLIENTS)


def plain_rate(model, tokenizer, prompts, decoding):
    began = time.perf_counter()
    responses = generate(model, tokenizer, prompts, 1, decoding)
    tokens = sum(each[0].tokens + each[0].finished for each in responses)
    return tokens / (time.perf_counter() - began)


async def server_rate(base_url, conversations):
    async with openai.AsyncOpenAI(base_url=base_url, api_key="any", timeout=600) as client:
        began = time.perf_counter()
        completions = await asyncio.gather(
            *[
                client.chat.completions.create(
                    model="any", messages=messages, max_tokens=TOKENS, temperature=0
                )
                for messages in conversations
            ]
        )
        seconds = time.perf_counter() - began
    return sum(completion.usage.completion_tokens for completion in completions) / seconds
