"""Four responses to each prompt in one call, beside four runs; merged weights beside unmerged.

pytest tests/benchmarks/bench_inference.py --override-ini python_files='bench_*.py' -s

Loading the model counts for both, as `respond` does it in each run. The sides take turns, and the
fastest of the rounds counts: other work on the machine only adds time. On a busy machine set
OMP_NUM_THREADS=1, because several threads wait for each other at each operation.
"""

import time
from collections import defaultdict
from dataclasses import replace

import pandas as pd
import pytest
from peft import PeftModel

from llamaduo.local_llm.base_model import (
    BaseModelSpec,
    load_model,
    load_tokenizer,
    stop_token_ids,
)
from llamaduo.local_llm.chat import encode_prompt, to_messages
from llamaduo.local_llm.inference import (
    DecodingSettings,
    _generate,
    generation_config,
    load_merged,
    respond,
)
from llamaduo.local_llm.training import train
from llamaduo.parameters import FineTuningParameters

K, ROUNDS, LIMIT = 4, 4, 0.85
BATCH_SIZES = {1: (15, 30), K: (60, 120)}
"""Of the 30 prompts, half or all at once."""
BASE_MODEL = BaseModelSpec("data/06_models/smollm2-135m-instruct")
DECODING = DecodingSettings(temperature=0.7, top_p=1.0, max_new_tokens=64, batch_size=30, seed=1)
TRAINING = FineTuningParameters(start="base", learning_rate=1e-3, epochs=2, min_steps=1)


@pytest.fixture(scope="module")
def adapter(tmp_path_factory):
    """30 steps on the demo's pairs: enough to answer in their format and to stop by itself."""
    pairs = pd.read_json("data/01_raw/coverage_train.jsonl", lines=True)
    return train(BASE_MODEL, pairs, None, tmp_path_factory.mktemp("c"), TRAINING, 1, {})


@pytest.fixture(scope="module")
def conversations():
    """Every fourth of the demo's test prompts, so that each category is among them."""
    pairs = pd.read_json("data/01_raw/coverage_test.jsonl", lines=True)
    return [to_messages(None, prompt) for prompt in pairs["prompt"][::4]]


def timed(work):
    began = time.perf_counter()
    result = work()
    return time.perf_counter() - began, result


@pytest.mark.timeout(3600)
def test_four_samples_in_one_call_take_at_most_0_85_of_four_runs(adapter, conversations):
    seconds, tokens, finished = defaultdict(list), defaultdict(list), []
    for seed in range(1, ROUNDS + 1):
        for samples, sizes in BATCH_SIZES.items():
            for size in sizes:
                decoding = replace(DECODING, batch_size=size, seed=seed)
                took, drawn = timed(
                    lambda n=samples, d=decoding: respond(BASE_MODEL, adapter, conversations, n, d)
                )
                seconds[samples, size].append(took)
                tokens[samples, size].append(sum(one.tokens for each in drawn for one in each))
                finished += [one.finished for each in drawn for one in each]

    print(f"\n{len(conversations)} prompts, {100 * sum(finished) / len(finished):.0f} % finished")
    print("K  batch  seconds of each round       tokens a round")
    for (samples, size), took in seconds.items():
        rounds = " ".join(f"{each:6.1f}" for each in took)
        print(f"{samples}  {size:5}  {rounds}  {sum(tokens[samples, size]) / ROUNDS:6.0f}")
    four, one = (min(BATCH_SIZES[n], key=lambda size: min(seconds[n, size])) for n in (K, 1))
    pairs = list(zip(seconds[K, four], seconds[1, one], strict=True))
    ratio = min(seconds[K, four]) / (K * min(seconds[1, one]))
    print(
        f"K = {K} at batch size {four}: {min(seconds[K, four]):.1f} s; {K} runs of K = 1 at {one}: "
        f"{K * min(seconds[1, one]):.1f} s; ratio {ratio:.2f}, round by round "
        f"{', '.join(f'{together / (K * alone):.2f}' for together, alone in pairs)}"
    )
    assert ratio <= LIMIT


@pytest.mark.timeout(1200)
def test_merged_weights_answer_faster_than_unmerged_ones(adapter, conversations):
    tokenizer = load_tokenizer(BASE_MODEL)
    prompts = [encode_prompt(tokenizer, messages) for messages in conversations]
    greedy = replace(DECODING, temperature=0.0)
    models = {
        "merged": load_merged(BASE_MODEL, adapter),
        "unmerged": PeftModel.from_pretrained(load_model(BASE_MODEL), str(adapter)),
    }
    stop_tokens = stop_token_ids(models["merged"].generation_config, tokenizer)
    best, answers = {}, {}
    for _ in range(ROUNDS):
        for name, model in models.items():
            model.generation_config = generation_config(greedy, stop_tokens, tokenizer)
            took, answers[name] = timed(
                lambda model=model: _generate(model, tokenizer, prompts, 1, stop_tokens)
            )
            best[name] = min(took, best.get(name, took))

    same = sum(a == b for a, b in zip(answers["merged"], answers["unmerged"], strict=True))
    speed = {name: sum(one.tokens for one in answers[name]) / best[name] for name in models}
    print(f"\n{len(prompts)} greedy responses, {same} the same")
    for name in models:
        print(f"{name:8} {best[name]:5.1f} s, {speed[name]:5.0f} tokens/s")
    print(f"merged weights: {speed['merged'] / speed['unmerged']:.2f} times the tokens/s")
    assert speed["merged"] > speed["unmerged"]
