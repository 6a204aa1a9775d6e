"""What the demo's model learns from real pairs of GPT-4o, which are not ours to keep.

REAL_PAIRS=pairs.jsonl pytest -m soak tests/benchmarks/test_real_pairs.py -s --timeout 36000

SEEDS=1,2,3 asks for others.
"""

import json
import os
import random
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from rouge_score.rouge_scorer import RougeScorer
from scipy.stats import bootstrap

from llamaduo.local_llm.base_model import BaseModelSpec
from llamaduo.local_llm.chat import to_messages
from llamaduo.local_llm.inference import DecodingSettings, respond
from llamaduo.local_llm.lengths import refuse_long_pairs
from llamaduo.local_llm.training import train
from llamaduo.parameters import FineTuningParameters

PAIRS = Path(os.environ.get("REAL_PAIRS", "missing"))
"""JSON lines with ``messages``, a prompt and a response each."""
BASE_MODEL = BaseModelSpec("data/06_models/smollm2-135m-instruct")
MOST_TOKENS, TEST = 480, 30
SEEDS = [int(seed) for seed in os.environ.get("SEEDS", "1,2,3").split(",")]
DECODING = DecodingSettings(temperature=0.0, top_p=1.0, max_new_tokens=384, batch_size=30, seed=1)
LEAST_FINISHED = 0.95


def read_pairs():
    """Those that fit, each prompt once, in a random order."""
    rows = [json.loads(line)["messages"] for line in PAIRS.read_text("utf-8").splitlines()]
    pairs = pd.DataFrame(
        [(one["content"], other["content"]) for one, other in rows], columns=["prompt", "response"]
    ).drop_duplicates("prompt")
    long = refuse_long_pairs(BASE_MODEL, [("", *pair) for pair in pairs.to_numpy()], MOST_TOKENS)
    return pairs[[not problem for problem in long]].sample(frac=1, random_state=1)


def answers(adapter, test):
    """ROUGE-L F1 (0-100) of each greedy response to its reference, and whether it ended."""
    conversations = [to_messages(None, prompt) for prompt in test["prompt"]]
    drawn = [one for [one] in respond(BASE_MODEL, adapter, conversations, 1, DECODING)]
    scorer = RougeScorer(["rougeL"])
    scores = [
        100 * scorer.score(reference, one.text)["rougeL"].fmeasure
        for reference, one in zip(test["response"], drawn, strict=True)
    ]
    return np.array(scores), np.array([one.finished for one in drawn])


def told(scores):
    low, high = bootstrap((scores,), np.mean, rng=1).confidence_interval
    return f"{scores.mean():.1f} (95 % interval {low:.1f} to {high:.1f})"


@pytest.mark.soak
@pytest.mark.skipif(not PAIRS.exists(), reason="the real pairs are not at hand")
def test_real_pairs_teach_to_answer_alike_and_to_stop(tmp_path):
    pairs = read_pairs()
    test, training = pairs[:TEST], pairs[TEST:].copy()
    before, finished = answers(None, test)
    print(f"\n{len(training)} pairs to train on, {TEST} to test")
    print(f"base model: ROUGE-L {told(before)}, {100 * finished.mean():.0f} % ended")

    gains, ended = [], []
    for seed in SEEDS:
        rng = random.Random(seed)
        training["validation"] = [rng.random() < 0.1 for _ in range(len(training))]
        parameters = FineTuningParameters(learning_rate=5e-4, epochs=2, seed=seed)
        adapter = train(BASE_MODEL, training, None, tmp_path, parameters, 1, {})
        after, finished = answers(adapter, test)
        manifest = json.loads((adapter / "manifest.json").read_text())
        gains.append(after - before)
        print(
            f"seed {seed}: ROUGE-L {told(after)}, gain {told(gains[-1])}, "
            f"{100 * finished.mean():.0f} % ended; step {manifest['best_step']} of "
            f"{manifest['steps']}, {manifest['seconds']} s",
            flush=True,
        )
        ended.extend(finished)
    print(
        f"all seeds: gain {told(np.mean(gains, axis=0))}, {sum(ended)} of {len(ended)} responses "
        f"({100 * np.mean(ended):.1f} %) ended"
    )
    assert np.mean(gains) > 0
    assert np.mean(ended) >= LEAST_FINISHED
