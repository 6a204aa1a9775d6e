"""Planted leaks: prompts of the demo's test set and holdout among the answers of a teacher."""

import json
import random
from pathlib import Path

import pandas as pd
import pytest

from llamaduo.near_duplicates import Reserved, Tokenizer
from llamaduo.parameters import FairnessParameters, IterationParameters, LoopParameters
from llamaduo.pipelines.data_synthesis.balancing import balance_pairs
from llamaduo.pipelines.data_synthesis.judging import select_pairs
from llamaduo.pipelines.data_synthesis.screening import screen_coverage, screen_pairs
from llamaduo.pipelines.data_synthesis.training_set import extend_training_set
from llamaduo.schemas import CoveragePairs, PairJudgeReplies
from llamaduo.stand_in.task import CATEGORIES, make_ticket
from tests.fakes.biased_teacher import GROUPS
from tests.pipelines.data_synthesis.tables import FINE_TUNING, SERVICE_LLM, parameters, parsed

RAW = Path(__file__).parents[3] / "data/01_raw"
REAL = Path(__file__).parents[4] / "shared/data/gpt4o_classification.jsonl"
LABELS = Path(__file__).with_name("near_copies.csv")
ITERATIONS = 10
LOOP = LoopParameters(max_iterations=ITERATIONS, carry={})
KINDS = ["exact"] * 50 + ["case and space"] * 50 + ["light edit"] * 60 + ["other words around"] * 40
AROUND = [
    "Please triage the support ticket below and answer in JSON.\n{}",
    "{}",
    "Classify this message by category, priority and product:\n\n{}\n\nReturn JSON only.",
    "Triage this support ticket as JSON. Hello, {} Thank you!",
]


def read_rows(file):
    return [json.loads(line) for line in file.read_text(encoding="utf-8").strip().split("\n")]


def read(name):
    return CoveragePairs.validate(pd.DataFrame(read_rows(RAW / f"{name}.jsonl")))


def respaced(text, rng):
    words = text.split(" ")
    place = rng.randrange(len(words) - 1)
    return "  " + "\n".join((" ".join(words[:place]), "  ".join(words[place:]))).swapcase() + " "


def edited(text, rng):
    """One word misspelt, left out, put in, or swapped with the next; or other marks."""
    head, _, ticket = text.partition("\n")
    words = ticket.split(" ")
    place = rng.randrange(len(words) - 1)
    change = rng.randrange(5)
    if change == 0:
        words[place] += "x"
    elif change == 1 and len(words) > 6:
        del words[place]
    elif change == 2:
        words.insert(place, "please")
    elif change == 3:
        words[place : place + 2] = reversed(words[place : place + 2])
    else:
        words = [word.strip(".,!?") for word in words]
    return f"{head}\n{' '.join(words)}"


def put_elsewhere(text, rng):
    return rng.choice(AROUND).format(text.partition("\n")[2])


CHANGES = {
    "exact": lambda text, _: text,
    "case and space": respaced,
    "light edit": edited,
    "other words around": put_elsewhere,
}


def planted(reserved, rng):
    """200 leaks in a random order: kind and text."""
    kinds = rng.sample(KINDS, len(KINDS))
    texts = rng.sample(reserved, len(KINDS))
    return [(kind, CHANGES[kind](text, rng)) for kind, text in zip(kinds, texts, strict=True)]


def test_planted_leaks_reach_no_training_set_over_ten_iterations(random_model):
    rng = random.Random(11)
    train, test, holdout = (read(f"coverage_{name}") for name in ("train", "test", "holdout"))
    leaks = planted([*test["prompt"], *holdout["prompt"]], rng)
    given = (test, holdout, random_model, SERVICE_LLM, parameters(), FINE_TUNING)
    coverage, training_set, reasons = screen_coverage(train, *given), None, []
    for iteration in range(1, ITERATIONS + 1):
        batch = leaks[20 * (iteration - 1) : 20 * iteration]
        own = [make_ticket(rng, category).pair()["prompt"] for category in CATEGORIES * 5]
        rows = parsed(
            *[text for _, text in batch],
            *own,
            id=[f"i{iteration:03d}-{n:05d}" for n in range(len(batch) + len(own))],
            response="{}",
        )
        screened = screen_pairs(rows, coverage, training_set, *given)
        selected = select_pairs(screened, PairJudgeReplies.empty(), parameters())
        reasons += list(selected["dropped"].head(len(batch)))
        balanced = balance_pairs(
            selected, training_set, coverage, GROUPS, LOOP, FairnessParameters()
        )
        training_set = extend_training_set(
            balanced, training_set, test, holdout, IterationParameters(index=iteration)
        )

    by_kind = pd.DataFrame(leaks, columns=["kind", "text"]).assign(dropped=reasons)
    caught = (by_kind["dropped"] == "near_copy_of_test").groupby(by_kind["kind"]).mean()
    assert caught["exact"] == caught["case and space"] == 1.0
    assert caught["light edit"] >= 0.95
    assert caught["other words around"] >= 0.95
    assert not set(training_set["prompt"]) & set(by_kind["text"])
    assert len(training_set) > len(train) + 200


@pytest.mark.skipif(not REAL.exists(), reason="the real pairs are not at hand")
def test_real_prompts_that_are_no_copies_are_not_taken_for_any():
    """The 130 most alike of 57,291 pairs of real prompts, each read and labelled by hand.

    ``one`` and ``other`` are line numbers. One pair, the same poem under two questions, is
    labelled as different, though a careful eye might call it a leak.
    """
    prompts = [row["messages"][0]["content"] for row in read_rows(REAL)]
    tokenizer = Tokenizer(prompts)
    labels = pd.read_csv(LABELS)
    tokens = [tokenizer.tokens(prompt) for prompt in prompts]
    found = [
        Reserved(0.7, [tokens[one - 1]]).has_copy(tokens[other - 1])
        for one, other in zip(labels["one"], labels["other"], strict=True)
    ]

    same = labels["same"] == "yes"
    assert all(pd.Series(found)[same])
    assert pd.Series(found)[~same].mean() <= 0.01
