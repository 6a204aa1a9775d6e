import logging

import pandas as pd
import pytest

from llamaduo.errors import InputError
from llamaduo.parameters import FairnessParameters, IterationParameters, LoopParameters
from llamaduo.pipelines.data_synthesis.balancing import balance_pairs
from llamaduo.pipelines.data_synthesis.training_set import extend_training_set, report_synthesis
from llamaduo.schemas import PairJudgeReplies, ReadyPairs, SelectedPairs, TrainingSet
from tests.fakes.biased_teacher import GROUPS
from tests.pipelines.data_synthesis.tables import (
    BY_PREFERENCE,
    SERVICE_LLM,
    coverage,
    parameters,
    parsed,
    seeds,
    so_far,
)

TEST = pd.DataFrame({"prompt": ["What is the capital of France?"]})
LOOP = LoopParameters(max_iterations=4, carry={})
HOLDOUT = pd.DataFrame({"prompt": ["How far is the moon?"]})
WEAK = pd.DataFrame({"seed_id": ["train-1"], "weight": [1.0]})


def selected(*prompts, dropped, **columns):
    rows = parsed(*prompts, **columns).drop(columns=["unreadable", "seed_prompt"])
    replaced = [[] for _ in range(len(rows))]
    return rows.assign(
        dropped=dropped, filter_version="1-aabbccdd", score=float("nan"), replaced=replaced
    )


def extend(pairs, previous=None, iteration=2, of_coverage=None):
    screened = coverage(3) if of_coverage is None else of_coverage
    return extend_training_set(
        balance_pairs(pairs, previous, screened, GROUPS, LOOP, FairnessParameters()),
        previous,
        TEST,
        HOLDOUT,
        IterationParameters(index=iteration),
    )


def replies(**columns):
    rows = {
        "request": [4, 4, 5],
        "attempt": [1, 2, 1],
        "failure": [None, None, "over budget"],
        "prompt_tokens": [10, 0, 0],
        "completion_tokens": [5, 0, 0],
        "model": ["gpt", "gpt", None],
        "replaced": [["email"], [], ["email", "phone"]],
    }
    return pd.DataFrame({**rows, **columns})


def report(rows, judged=None, asked=20, verdict=None, **changes):
    judged = PairJudgeReplies.empty() if judged is None else judged
    left_out = coverage(5).assign(dropped=["", "", "too_long", "", ""])
    trained_on = coverage(5).iloc[[0, 1, 3]].assign(origin="coverage")
    return report_synthesis(
        rows,
        trained_on,
        replies(),
        judged,
        seeds(3, count=3, pairs_per_iteration=asked, weak_spots=WEAK),
        left_out,
        ReadyPairs.empty(),
        so_far(3),
        verdict,
        {"iteration": 3, "test_reached": 0.5},
        SERVICE_LLM,
        parameters(pairs_per_iteration=asked, **changes),
    )


def test_an_iteration_by_preference_has_asked_for_nothing():
    counts = report(SelectedPairs.empty().assign(origin="synthetic"), verdict=BY_PREFERENCE)

    assert (counts["asked"], counts["asked_so_far"]) == (0, so_far(3)["asked_so_far"])


def test_the_training_set_accumulates_and_replaces_nothing():
    first = extend(SelectedPairs.empty(), iteration=1)
    second = extend(selected("new one", "dropped one", dropped=["", "empty"]), first)

    TrainingSet.validate(second)
    pd.testing.assert_frame_equal(second.head(3), first)
    assert list(second["prompt"].tail(1)) == ["new one"]
    assert list(second["iteration"]) == [1, 1, 1, 2]
    assert list(second["origin"]) == ["coverage"] * 3 + ["synthetic"]


def test_each_row_says_where_it_is_from():
    of_coverage = coverage(1).assign(licence="CC-BY-4.0", source="tickets 2024")

    training_set = extend(selected("new one", dropped=""), of_coverage=of_coverage)

    own, new = training_set.to_dict("records")
    assert (own["licence"], own["source"], own["teacher"]) == ("CC-BY-4.0", "tickets 2024", "")
    assert {
        "origin": "synthetic",
        "seed_id": "train-0",
        "teacher": "gpt-4o",
        "model": "gpt-4o-2024-08-06",
        "prompt_version": "self_instruct-1a2b3c4d",
        "filter_version": "1-aabbccdd",
        "iteration": 2,
    }.items() <= new.items()


def test_coverage_pairs_that_are_left_out_are_not_trained_on():
    left_out = coverage(3).assign(dropped=["", "near_copy_of_test", ""])

    training_set = extend(SelectedPairs.empty(), iteration=1, of_coverage=left_out)

    assert list(training_set["id"]) == ["train-0", "train-2"]


@pytest.mark.parametrize("leak", ["What is the capital of France?", "HOW far  is the moon?"])
def test_a_reserved_prompt_that_the_checks_let_pass_stops_the_run(leak):
    with pytest.raises(InputError, match=r"1 prompt\(s\) of the training set .* i002-0"):
        extend(selected(leak, dropped=""))


def test_the_report_counts_each_reason():
    said = report(selected("a", "b", "c", dropped=["", "empty", "empty"]))

    assert (said["iteration"], said["asked_so_far"], said["requests_so_far"]) == (3, 40, 5)
    assert (said["asked"], said["kept"], said["dropped"]) == (20, 1, {"empty": 2})
    assert (said["requests"], said["failed_requests"], said["over_budget"]) == (3, 1, 1)
    assert said["asked_again"] == 1
    assert said["coverage_left_out"] == {"too_long": 1, "unbalanced": 1}
    assert said["kept_by_prompt"] == {"self_instruct-1a2b3c4d": 1}
    assert said["teacher"] == ["gpt"]
    assert said["diversity"] == {"iteration": 3, "test_reached": 0.5}
    assert said["privacy"]["detect"] == "patterns"
    assert said["privacy"]["requests"] == {"email": 2, "phone": 1}


def test_the_report_says_by_category_what_was_asked_aimed_and_kept():
    said = report(selected("a", "b", "c", dropped=["", "", "empty"], category=["b", "c", "b"]))

    assert sum(own["asked"] for own in said["by_category"].values()) == 20
    assert said["by_category"]["b"]["aimed"] > 0
    assert {name: own["kept"] for name, own in said["by_category"].items()} == {"b": 1, "c": 1}
    assert said["walked_so_far"] > so_far(3)["walked_so_far"]


def test_the_report_counts_what_the_judge_was_asked_too():
    judged = replies().drop(columns=["request", "attempt"])

    said = report(selected("a", dropped=""), judged)

    assert (said["requests"], said["over_budget"], said["prompt_tokens"]) == (6, 2, 20)
    assert said["privacy"]["requests"] == {"email": 2, "phone": 1}
    assert said["privacy"]["judge_requests"] == {"email": 2, "phone": 1}


def test_a_low_yield_is_said_with_its_reasons(caplog):
    report(selected("a", "b", "c", dropped=["", "empty", "schema"]))

    (warning,) = caplog.records
    assert warning.levelname == "WARNING"
    assert "1 of 20 pairs that were asked for can be used; dropped: 1 empty, 1 schema" in (
        warning.message
    )


def test_a_good_yield_is_no_warning(caplog):
    caplog.set_level(logging.WARNING)
    report(selected("a", "b", dropped=""), asked=3)
    report(selected("a", "b", dropped=""), asked=16, judging={"min_score": 50, "best_of": 8})

    assert not caplog.records
