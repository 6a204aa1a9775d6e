import pytest

from llamaduo.parameters import FairnessParameters
from llamaduo.pipelines.evaluation.assessment import assess_scores
from llamaduo.pipelines.evaluation.decision import (
    confirm,
    is_last,
    keep_best_adapter,
    open_holdout,
    reach_verdict,
    record_iteration,
)
from tests.pipelines.evaluation.tables import (
    ALL_GOOD,
    FAIR,
    FAIRNESS,
    FINE_TUNING,
    LOOP,
    MEASUREMENT,
    PASSED,
    PREFERRING,
    TRAINED,
    assessed,
    history,
    pairs,
    parameters,
    scored,
)

REFUSED = {"confirmed": False, "obstacles": ["only 90.0 % of the judgements could be read"]}


def verdict_on(assessment, confirmation=None, audit=FAIR, fairness=FAIRNESS):
    return reach_verdict(assessment, confirmation or {}, audit, LOOP, fairness)


def test_the_holdout_opens_only_when_the_target_is_met():
    holdout = pairs(3)

    assert len(open_holdout({"target_met": True}, holdout)) == 3
    assert open_holdout({"target_met": False}, holdout).empty


def test_the_confirmation_is_empty_without_holdout_scores():
    assert confirm(scored([90] * 20).head(0), parameters()) == {}
    assert confirm(scored([90, 91] * 20), parameters())["confirmed"]
    assert not confirm(scored([50, 51] * 20), parameters())["confirmed"]


@pytest.mark.parametrize(
    ("changes", "confirmation", "reason"),
    [
        ({}, {}, None),
        ({}, {"confirmed": True}, "target"),
        ({}, {"confirmed": False}, "target_not_confirmed"),
        ({"regression": True, "plateau": True}, {}, "regression"),
        ({"no_new_data": True}, {}, "no_new_data"),
        ({"plateau": True}, {}, "plateau"),
        ({"iteration": 4}, {}, "max_iterations"),
        ({"iteration": 4}, {"confirmed": True}, "target"),
        ({}, REFUSED, "judge_failed"),
        ({}, {**REFUSED, "over_budget": True}, "budget"),
        ({"judge_failed": True, "plateau": True}, {}, "judge_failed"),
        ({"over_budget": True}, {}, "budget"),
        ({"over_budget": True}, {"confirmed": True}, "target"),
    ],
)
def test_the_verdict_names_the_reason(changes, confirmation, reason):
    assessment = {**assessed([50, 60] * 20), "iteration": 2, **changes}

    verdict = verdict_on(assessment, confirmation)

    assert verdict["reason"] == reason
    assert verdict["stop"] == (reason is not None)
    assert verdict["target_reached"] == (reason == "target")


ALARMED = {**FAIR, "alarms": ["pairs: a gap"]}


def test_an_alarm_ends_the_loop_only_where_it_should_stop_it():
    assessment, confirmed = assessed([90] * 20), {"confirmed": True}
    stop = FairnessParameters(on_excess="stop")

    warned = verdict_on(assessment, confirmed, ALARMED)
    stopped = verdict_on(assessment, confirmed, ALARMED, stop)
    fair = verdict_on(assessment, confirmed, FAIR, stop)

    assert (warned["reason"], warned["alarms"]) == ("target", ["pairs: a gap"])
    assert (stopped["reason"], stopped["target_reached"], stopped["stop"]) == (
        "unfair",
        False,
        True,
    )
    assert (fair["reason"], fair["target_reached"]) == ("target", True)


@pytest.mark.parametrize(
    "changes",
    [{}, {"plateau": True}, {"no_new_data": True}, {"over_budget": True}, {"iteration": 4}],
)
def test_what_is_known_to_be_the_last_iteration_ends_the_loop(changes):
    assessment = {**assessed([50, 60] * 20), "iteration": 2, **changes}

    is_known = is_last(assessment, [FAIR["pairs"]], LOOP, FAIRNESS)

    assert is_known == verdict_on(assessment)["stop"] == bool(changes)


def test_the_best_iteration_is_that_of_the_assessment_or_the_confirmed_one():
    assessment = assessed([80, 82] * 20, history([70, 72] * 20, [90, 92] * 20))

    assert verdict_on(assessment)["best_iteration"] == 2
    assert verdict_on(assessment, {"confirmed": True})["best_iteration"] == 3


def test_a_small_holdout_makes_the_verdict_advisory():
    small = {"confirmed": True, "advisory": True}

    assert verdict_on(assessed([90] * 10), small)["advisory"]
    assert not verdict_on(assessed([90] * 10), {"confirmed": True})["advisory"]


def test_the_verdict_says_what_forbids_it():
    assessment = {**assessed([90] * 20), "obstacles": ["the judge judge is asleep"]}

    assert verdict_on(assessment)["obstacles"] == ["the judge judge is asleep"]
    assert verdict_on(assessed([90] * 20), REFUSED)["obstacles"] == REFUSED["obstacles"]


def test_a_holdout_that_was_hardly_judged_is_no_refutation():
    confirmation = confirm(scored([95] * 97 + [None] * 3), parameters())

    assert not confirmation["confirmed"]
    assert "on the holdout, only 97.0 % of the judgements" in confirmation["obstacles"][0]


def over_budget(scores, count):
    return scores.assign(over_budget=[1] * count + [0] * (len(scores) - count))


@pytest.mark.parametrize("role", ["teacher", "judge", "audit", "preference"])
def test_a_spent_budget_ends_the_loop_for_that_reason(role):
    scores = over_budget(scored([50] * 10), 4 if role == "judge" else 0)
    report = {**ALL_GOOD, "over_budget": 3 if role == "teacher" else 0}
    audit = {**PASSED, "over_budget": 3 if role == "audit" else 0}
    trained = {**TRAINED, "over_budget": 3 if role == "preference" else 0}

    verdict = verdict_on(
        assess_scores(
            scores, None, report, trained, audit, MEASUREMENT, parameters(), FINE_TUNING, LOOP
        )
    )

    assert (verdict["stop"], verdict["reason"]) == (True, "budget")


def test_a_target_that_is_reached_counts_though_the_budget_is_spent():
    assessment = assessed([95] * 10, report={**ALL_GOOD, "over_budget": 3})

    assert verdict_on(assessment, confirm(scored([95] * 10), parameters()))["reason"] == "target"


def test_a_holdout_that_the_budget_left_unjudged_is_no_refutation():
    holdout = over_budget(scored([None] * 10), 10)

    confirmation = confirm(holdout, parameters())

    assert verdict_on(assessed([95] * 10), confirmation)["reason"] == "budget"


def test_the_history_keeps_each_synthesis_and_what_each_training_took():
    scores, verdict = scored([50] * 20), verdict_on(assessed([50] * 20))
    recorded = None
    for kept in (8, 5):
        report = {**ALL_GOOD, "kept": kept}
        recorded = record_iteration(
            recorded, pairs(20), report, TRAINED, scores, assessed([50] * 20), PASSED, {}, verdict
        )

    assert [entry["synthesis"]["kept"] for entry in recorded] == [8, 5]
    assert recorded[0]["training"]["energy_wh"] == 0.321


FLAT = [60.0, 61] * 20
BY_PREFERENCE = {**TRAINED, "tuning": "preference"}


def ended(assessment):
    verdict = verdict_on({**assessment, "iteration": 2})
    return verdict["stop"], verdict["reason"], verdict["next_tuning"]


def test_a_plateau_of_sft_ends_the_loop_unless_preferences_are_to_be_learned():
    flat = history(FLAT, FLAT, FLAT)

    assert ended(assessed(FLAT, flat)) == (True, "plateau", None)
    assert ended(assessed(FLAT, flat, fine_tuning=PREFERRING)) == (False, None, "preference")
    assert ended(assessed(FLAT, flat[:2], fine_tuning=PREFERRING)) == (False, None, "sft")


def test_by_preference_the_loop_goes_on_while_it_gains_on_the_best_iteration():
    best_first = history([70.0, 71] * 20, FLAT, FLAT)
    tuned = {"trained": BY_PREFERENCE, "fine_tuning": PREFERRING}

    better, worse = [75.0, 76] * 20, [65.0, 66] * 20  # than the best; than the last as well
    assert ended(assessed(better, best_first, **tuned)) == (False, None, "preference")
    assert ended(assessed(worse, best_first, **tuned)) == (True, "plateau", None)


def test_what_ends_a_loop_ends_it_by_preference_too():
    tuned = {"trained": BY_PREFERENCE, "fine_tuning": PREFERRING}
    better = assessed([75.0, 76] * 20, history(FLAT), **tuned)

    assert verdict_on({**better, "iteration": 4})["reason"] == "max_iterations"
    assert ended({**better, "over_budget": True})[1] == "budget"
    assert verdict_on(better, {"confirmed": True})["reason"] == "target"
    assert not is_last(better, [], LOOP, FAIRNESS)
    changing_over = assessed(FLAT, history(FLAT, FLAT, FLAT), fine_tuning=PREFERRING)
    assert not is_last({**changing_over, "iteration": 2}, [], LOOP, FAIRNESS)


def test_scores_that_cannot_be_relied_on_or_compared_are_no_plateau_by_preference():
    other = history(FLAT, measurement={**MEASUREMENT, "judge": ["another"]})
    tuned = {"trained": BY_PREFERENCE, "fine_tuning": PREFERRING}
    unread = [60.0, 61] * 18 + [None] * 4

    assert ended(assessed(FLAT, other, **tuned)) == (False, None, "preference")
    assert ended(assessed(unread, history(FLAT), **tuned)) == (False, None, "preference")


def test_the_best_adapter_is_this_one_or_that_of_before(tmp_path):
    this, before = tmp_path / "this", tmp_path / "before"

    assert keep_best_adapter(this, None, {"iteration": 1, "best_iteration": 1}) == this
    assert keep_best_adapter(this, before, {"iteration": 3, "best_iteration": 3}) == this
    assert keep_best_adapter(this, before, {"iteration": 3, "best_iteration": 1}) == before
