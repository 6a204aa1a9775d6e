"""How often the fairness audit raises an alarm on fair data, and whether it finds what is planted.

pytest tests/benchmarks/bench_fairness.py --override-ini python_files='bench_*.py' -s
"""

import random
from statistics import mean

import numpy as np
import pandas as pd
import pytest
from rich.console import Console
from rich.table import Table

from llamaduo.fairness import compare_groups
from llamaduo.parameters import FairnessParameters, LoopParameters
from llamaduo.pipelines.data_synthesis.balancing import balance_pairs
from llamaduo.pipelines.data_synthesis.pair_audit import audit_pairs
from llamaduo.pipelines.evaluation.counterfactuals import choose_counterfactuals
from llamaduo.pipelines.evaluation.student_audit import audit_answers, audit_student
from tests.fakes.biased_teacher import (
    FAVOURED,
    GROUPS,
    OTHER,
    answers_to_requests,
    signed_tickets,
    student_answers,
)
from tests.pipelines.evaluation.tables import FAIR, assessed

pytestmark = pytest.mark.timeout(3600)

SEEDS = 200
COVERAGE, REQUESTS, TEST = 60, 50, 120
STRENGTHS = (0.3, 0.6, 0.9)
PLANTED_SEEDS = 50
LEAST_HELD = 0.86
"""Of 50 intervals of 95 % fewer hold the truth with a chance of 0.3 %."""
LEAST_FOUND = {0.3: 0.2, 0.6: 0.9, 0.9: 0.95}
MOST_FOUND = 17
"""Of 200 tests at 5 % more are significant with a chance of 1.2 %."""
LAST = LoopParameters(max_iterations=1, carry={})
ASSESSMENT = assessed([50, 60] * 20)


def audit_of_pairs(strength, seed):
    """Gaps and alarms of a training set of signed tickets, each answer signed by one."""
    of_all = {"licence": "", "source": "", "dropped": "", "filter_version": "1"}
    of_new = dict.fromkeys(("teacher", "model", "prompt_version"), "")
    coverage = signed_tickets(COVERAGE, strength, 2 * seed, "train").assign(**of_all)
    shown = coverage.head(REQUESTS)
    new = answers_to_requests(shown, strength, 2 * seed + 1)
    new = new.assign(**of_all, **of_new, origin="synthetic")
    seeds = pd.DataFrame({"request": range(1, REQUESTS + 1), "turn": 1})
    rules = GROUPS, LAST, FairnessParameters()
    balanced = balance_pairs(new, None, coverage, *rules)
    audit = audit_pairs(balanced, seeds, None, coverage, *rules)
    return audit["gaps"], audit["alarms"]


def audit_of_student(strength, seed):
    """Gaps and alarms of answers that are drawn."""
    test = signed_tickets(TEST, 0, seed, "test").assign(dropped="")
    fairness = FairnessParameters(seed=seed)
    fair = FAIR["pairs"]
    answered = audit_answers(test.assign(sample=1), test, GROUPS, LAST, fairness)
    rows = choose_counterfactuals(ASSESSMENT, fair, answered, test, GROUPS, LAST, fairness)
    answers = student_answers(rows, strength, random.Random(seed))
    audit = audit_student(rows, answers, test, fair, answered, GROUPS, fairness)
    return audit["student"]["gaps"], audit["alarms"]


AUDITS = [pytest.param(audit_of_pairs, id="pairs"), pytest.param(audit_of_student, id="student")]


def priority_gap(gaps):
    return next(
        gap
        for gap in gaps
        if gap["label"] == "priority = high" and gap["groups"] == [FAVOURED, OTHER]
    )


def test_fair_ones_raise_an_alarm_anywhere_in_at_most_5_percent():
    audits = audit_of_pairs, audit_of_student
    raised = [{seed for seed in range(SEEDS) if audit(0, seed)[1]} for audit in audits]

    for audit, own in zip(audits, raised, strict=True):
        print(f"{audit.__name__}: {len(own)} of {SEEDS} fair ones raise an alarm")
    either = set.union(*raised)
    print(f"either: {len(either)} of {SEEDS}")
    assert len(either) <= 0.05 * SEEDS


@pytest.mark.parametrize("rate", [0.03, 0.08])
@pytest.mark.parametrize("alike", [0, 0.5, 1])
@pytest.mark.parametrize(("first", "second"), [((12, 8), (30, 8)), ((60, 8), (60, 1))])
def test_a_rare_label_of_fair_pairs_is_significant_in_at_most_5_percent(first, second, alike, rate):
    """Seeds and pairs of each of two groups; some seeds decide for all of their pairs."""
    rng = np.random.default_rng(1)
    pairs = [first[1]] * first[0] + [second[1]] * second[0]
    seed = np.repeat(np.arange(len(pairs)), pairs)
    found = 0
    for _ in range(SEEDS):
        are_alike, of_seed = rng.random((2, len(pairs))) < [[alike], [rate]]
        hits = np.where(are_alike[seed], of_seed[seed], rng.random(len(seed)) < rate)
        gap = compare_groups("toxic_excess", "", ("a", "b"), hits, seed < first[0], seed)
        found += gap.p_value <= 0.05

    print(f"{first} and {second}, rate {rate}, alike {alike}: {found} of {SEEDS}")
    assert found <= MOST_FOUND


@pytest.mark.parametrize("audit", AUDITS)
def test_what_is_planted_is_found_and_its_strength_lies_in_the_interval(audit):
    table = Table("planted", "mean gap", "found", "interval holds it", title=audit.__name__)
    for strength in STRENGTHS:
        gaps = [priority_gap(audit(strength, seed)[0]) for seed in range(PLANTED_SEEDS)]
        planted = strength * (100 - mean(gap["values"][1] for gap in gaps))
        held = mean(gap["interval"][0] <= planted <= gap["interval"][1] for gap in gaps)
        shown = mean(gap["gap"] for gap in gaps), mean(gap["alarm"] for gap in gaps)
        table.add_row(f"{planted:.1f}", f"{shown[0]:.1f}", f"{shown[1]:.0%}", f"{held:.0%}")
        assert held >= LEAST_HELD
        assert shown[1] >= LEAST_FOUND[strength]
    Console().print(table)
