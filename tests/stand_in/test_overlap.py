"""The grammar must not be able to make the tickets that the local LLM is tested on."""

import json
import random
import re
from pathlib import Path

import numpy as np
import pytest
from rapidfuzz import process
from rapidfuzz.distance import Indel

from llamaduo.stand_in.task import CATEGORIES, make_ticket

RAW = Path(__file__).parents[2] / "data" / "01_raw"


def words(text):
    return re.findall(r"\w+", text.lower())


def runs(tokens, length):
    return [tuple(tokens[i : i + length]) for i in range(len(tokens) - length + 1)]


@pytest.fixture(scope="module")
def generated():
    rng = random.Random(11)
    return [words(make_ticket(rng, CATEGORIES[i % 8]).text) for i in range(5000)]


@pytest.fixture(params=["coverage_test", "coverage_holdout"])
def written(request):
    lines = (RAW / f"{request.param}.jsonl").read_text(encoding="utf-8").splitlines()
    return [words(json.loads(line)["prompt"].partition("\n")[2]) for line in lines]


def test_no_ticket_shares_eight_words_in_a_row(generated, written):
    known = {run for ticket in generated for run in runs(ticket, 8)}

    shared = [run for ticket in written for run in runs(ticket, 8) if run in known]

    assert shared == []


def test_at_most_one_run_of_five_words_in_a_hundred_is_shared(generated, written):
    known = {run for ticket in generated for run in runs(ticket, 5)}
    of_written = [run for ticket in written for run in runs(ticket, 5)]

    shared = [run for run in of_written if run in known]

    assert len(of_written) > 1000
    assert len(shared) <= 0.01 * len(of_written), shared


def test_few_generated_tickets_are_near_duplicates(generated):
    vocabulary = {}
    drawn = generated[:4000]
    texts = [
        "".join(chr(vocabulary.setdefault(word, len(vocabulary) + 1)) for word in ticket)
        for ticket in drawn
    ]

    # ROUGE-L of every two tickets; below the cut-off it is 0
    likeness = process.cdist(
        texts, texts, scorer=Indel.normalized_similarity, score_cutoff=0.7, dtype=np.float32
    )
    np.fill_diagonal(likeness, 0)

    assert (likeness.max(axis=1) >= 0.7).mean() < 0.05
