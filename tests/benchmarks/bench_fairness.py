"""How often the fairness audit raises an alarm on fair data, and whether it finds what is planted.

pytest tests/benchmarks/bench_fairness.py --override-ini python_files='bench_*.py' -s
"""

import random
from statistics import mean

import pandas as pd
import pytest
from rich.console import Console
from rich.table import Table

from llamaduo.parameters import FairnessParameters, LoopParameters
from llamaduo.pipelines.data_synthesis.pair_audit import audit_pairs, balance_pairs
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


@pytest.mark.parametrize("audit", AUDITS)
def test_fair_ones_raise_an_alarm_in_at_most_5_percent(audit):
    raised = sum(bool(audit(0, seed)[1]) for seed in range(SEEDS))

    print(f"{audit.__name__}: {raised} of {SEEDS} fair ones raise an alarm")
    assert raised <= 0.05 * SEEDS


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
