import numpy as np
import pandas as pd
import pytest

from llamaduo.pipelines.evaluation.assessment import (
    assess_scores,
    best_before,
    best_of,
    is_plateau,
    is_regression,
    meets_target,
    summarise_categories,
    summarise_scores,
)
from llamaduo.pipelines.evaluation.judging import score_prompts
from tests.pipelines.evaluation.tables import (
    ALL_GOOD,
    FINE_TUNING,
    LOOP,
    MEASUREMENT,
    PASSED,
    TRAINED,
    assessed,
    history,
    pairs,
    parameters,
    scored,
)


def test_the_level_is_shared_between_the_iterations_of_a_loop():
    assert assessed([90, 95] * 10)["alpha"] == pytest.approx(0.05 / 4)


def test_the_target_is_met_by_the_lower_bound_and_not_by_the_mean_alone():
    narrow, wide = [84, 86] * 20, [50, 100, 100] * 14

    assert assessed(narrow)["target_met"]
    assert np.mean(wide) > 80
    assert not assessed(wide)["target_met"]
    assert assessed(wide, verdict="mean")["target_met"]


def test_a_missing_judgement_counts_as_nothing_in_the_bound_but_not_in_the_mean():
    whole, holed = assessed([90, 91] * 50), assessed([90, 91] * 49 + [90, None])

    assert holed["precision"]["mean"] == pytest.approx(whole["precision"]["mean"], abs=0.1)
    assert holed["precision"]["lower_bound"] < whole["precision"]["lower_bound"] - 2
    assert holed["judged_share"] == 0.99


def test_with_too_few_judged_the_target_is_never_met():
    assert not assessed([100] * 97 + [None] * 3, verdict="mean")["target_met"]
    assert assessed([100] * 98 + [None] * 2, verdict="mean")["target_met"]


def test_few_prompts_make_the_scores_advisory():
    assert assessed([90] * 9)["advisory"]
    assert not assessed([90] * 10)["advisory"]


def test_nothing_kept_of_what_was_asked_is_no_new_data():
    assert assessed([50] * 10, report={**ALL_GOOD, "kept": 0})["no_new_data"]
    assert not assessed([50] * 10, report={**ALL_GOOD, "asked": 0, "kept": 0})["no_new_data"]


def test_new_pairs_that_only_repeat_known_ones_are_no_new_data():
    repeated = {**ALL_GOOD, "kept": 1, "dropped": {"near_duplicate": 5, "copy_of_seed": 4}}
    poor = {**ALL_GOOD, "kept": 1, "dropped": {"schema": 9}}

    assert assessed([50] * 10, report=repeated)["no_new_data"]
    assert not assessed([50] * 10, report=poor)["no_new_data"]


def noisy(mean, seed):
    return list(np.clip(np.random.default_rng(seed).normal(mean, 10, size=100), 0, 100))


def test_a_flat_curve_is_a_plateau_and_a_rising_one_is_not():
    flat = history(*(noisy(60, seed) for seed in range(4)))
    rising = history(*(noisy(50 + 10 * seed, seed) for seed in range(4)))

    assert is_plateau(flat, patience=3)
    assert not is_plateau(rising, patience=3)
    assert not is_plateau(flat[:3], patience=3)


def test_two_proven_losses_in_a_row_are_a_regression():
    falling = history(noisy(80, 1), noisy(60, 2), noisy(40, 3))
    once = history(noisy(40, 1), noisy(80, 2), noisy(60, 3))

    assert is_regression(falling)
    assert not is_regression(once)
    assert not is_regression(falling[:2])


def test_a_loss_within_the_margin_is_no_regression():
    sinking = history([80.0] * 50, [79.5] * 50, [79.0] * 50)

    assert not is_regression(sinking)
    assert is_regression(history([80.0] * 50, [78.5] * 50, [77.0] * 50))


def test_one_score_that_falls_is_a_regression_though_the_other_rises():
    entries = history([80.0] * 50, [70.0] * 50, [60.0] * 50)
    for n, entry in enumerate(entries):
        entry["scores"]["precision"] = {key: 50 + 10 * n for key in entry["scores"]["precision"]}

    assert is_regression(entries)


def failed(sentence):
    return {**PASSED, "judges": [{**PASSED["judges"][0], "failures": [sentence]}]}


def test_a_judge_that_failed_its_audit_is_named_and_proves_nothing():
    earlier = history(*([90.0] * 20 for _ in range(3)))

    assessment = assessed([90, 91] * 10, earlier, audit=failed("gives 95 points for nothing"))

    assert assessment["obstacles"] == ["the judge judge gives 95 points for nothing"]
    assert not assessment["target_met"]
    assert not assessment["plateau"]
    assert not assessment["judge_failed"]


def test_a_judge_that_fails_twice_in_a_row_is_a_reason_to_stop():
    earlier = history([90, 91] * 10)
    earlier[-1]["assessment"]["obstacles"] = ["the judge judge is asleep"]

    assert assessed([90] * 20, earlier, audit=failed("is asleep"))["judge_failed"]
    assert not assessed([90] * 20, earlier)["judge_failed"]
    assert assessed([90] * 97 + [None] * 3, earlier)["judge_failed"]
    another = {**MEASUREMENT, "judge": ["another"]}
    assert not assessed([90] * 20, earlier, audit=failed("x"), measurement=another)["judge_failed"]


def test_an_iteration_without_a_verdict_proves_neither_plateau_nor_regression():
    flat, falling = (
        history(*([[60.0, 61] * 20] * 4)),
        history([90.0] * 40, [80.0] * 40, [70.0] * 40),
    )
    for entries in (flat, falling):
        entries[0]["assessment"]["obstacles"] = ["the judge judge is asleep"]

    assert not is_plateau(flat, patience=3)
    assert not is_regression(falling)
    assert best_of(falling, parameters()) is falling[1]


def test_iterations_that_were_measured_otherwise_are_not_compared():
    flat = [60.0, 61] * 20
    warmer = {**MEASUREMENT, "judge_temperature": 1.0}
    as_before, other = history(*([flat] * 3)), history(*([[90, 91] * 20] * 3), measurement=warmer)

    assert assessed(flat, as_before)["plateau"]
    assert assessed(flat, as_before)["compared"]["previous"]["iteration"] == 3
    assert not assessed(flat, other)["plateau"]
    assert assessed(flat, other)["compared"] == {}
    assert assessed(flat, other)["best_iteration"] == 4


def test_the_gain_is_told_over_the_previous_and_the_best_iteration():
    compared = assessed([80, 81] * 20, history([85, 86] * 20, [70, 71] * 20))["compared"]

    assert compared["previous"]["precision"]["mean"] == 10
    assert compared["best"]["iteration"] == 1
    assert compared["best"]["precision"]["interval"] == [-5, -5]


def test_the_best_iteration_is_judged_by_its_weaker_score():
    entries = history([90, 91] * 20, [85, 86] * 20)
    entries[0]["assessment"]["similarity"]["lower_bound"] = 70

    assert best_of(entries, parameters()) is entries[1]
    entries[1]["assessment"]["precision"]["lower_bound"] = None
    assert best_of(entries, parameters()) is entries[0]


def test_with_the_rule_of_the_mean_the_best_iteration_has_the_best_means():
    wide, narrow = history([60, 100, 100, 100] * 10, [85, 86] * 20, verdict="mean")

    assert best_of([wide, narrow], parameters(verdict="mean")) is wide
    assert best_of([wide, narrow], parameters()) is narrow


def test_each_category_has_its_scores_and_its_number_of_prompts():
    scores = scored([10, 20, 90, None]).assign(category=["a", "a", "b", "c"])

    slices = summarise_categories(scores)

    assert slices["a"]["prompts"] == 2
    assert slices["a"]["precision"] == {"mean": 15, "standard_error": 5}
    assert slices["b"]["precision"] == {"mean": 90, "standard_error": None}
    assert slices["c"]["precision"]["mean"] is None


def test_the_report_of_power_shrinks_with_repeats_where_the_judge_s_spread_is_known():
    audit = {
        **PASSED,
        "judges": [{**PASSED["judges"][0], "spread": {"similarity": 8.0, "precision": 8.0}}],
    }

    known = assessed([60, 100] * 20, audit=audit)["needed_prompts"]["precision"]

    assert list(known) == ["1", "3", "10"]
    assert known["1"] > known["3"] > known["10"]
    alone = assessed([60, 100] * 20)["needed_prompts"]["precision"]
    assert list(alone) == ["1"]
    holed = [60, 100] * 20 + [None] * 40
    assert assessed(holed)["needed_prompts"]["precision"]["1"] == pytest.approx(alone["1"], abs=2)


def test_no_number_of_prompts_is_told_where_they_hardly_differ_and_none_below_the_least():
    assert assessed([None] * 20)["needed_prompts"]["precision"] is None
    assert assessed([0] * 20)["needed_prompts"]["precision"] is None
    assert assessed([78, 82] * 20)["needed_prompts"]["precision"]["1"] >= 10
    assert assessed([78, 82] * 20, min_prompts=40)["needed_prompts"]["precision"]["1"] == 40


@pytest.mark.parametrize("alpha", [0.001, 0.05, 0.4])
@pytest.mark.parametrize("power", [0.5, 0.8, 0.99])
@pytest.mark.parametrize("margin", [0.1, 5, 100])
def test_whatever_is_asked_for_gets_a_number(alpha, power, margin):
    evaluation = {"alpha": alpha, "power": power, "margin": margin}

    for values in ([76, 84, 80] * 10, [0, 100] * 20):
        assert assessed(values, **evaluation)["needed_prompts"]["precision"]["1"] >= 10


@pytest.mark.parametrize("share", [0, 0.01, 0.02, 0.03, 0.1, 0.5])
@pytest.mark.parametrize("which", ["random", "hardest"])
def test_failed_judgements_never_lift_the_bound_and_refuse_the_target_under_98_percent(
    which, share
):
    rng = np.random.default_rng(7)
    evaluation = parameters(responses_per_prompt=2, judgements_per_response=2)
    table = pd.DataFrame(
        [(f"test-{n}", k, m) for n in range(100) for k in (1, 2) for m in (1, 2)],
        columns=["id", "sample", "repeat"],
    ).assign(judge="judge", failure=None)
    effects = rng.normal(93, 6, 100).repeat(4) + rng.normal(0, 4, 400)
    truth = pd.Series(effects.clip(0, 100))
    order = truth.argsort() if which == "hardest" else rng.permutation(400)
    known = truth.copy()
    known.iloc[order[: round(share * 400)]] = np.nan

    judgements = table.assign(similarity=known, precision=known)
    responses = pairs(100).assign(sample=1, finished=True)
    scores = score_prompts(judgements, responses, pairs(100), evaluation)
    summary = summarise_scores(scores, evaluation, evaluation.alpha / 10)
    assessment = assess_scores(
        scores, None, ALL_GOOD, TRAINED, PASSED, MEASUREMENT, evaluation, FINE_TUNING, LOOP
    )

    assert summary["judged_share"] == 1 - share
    assert summary["precision"]["lower_bound"] <= truth.mean() + 0.5
    assert meets_target({**summary}, evaluation) or share > 0.02
    assert assessment["target_met"] == (share <= 0.02)


def test_the_best_before_is_the_one_whose_adapter_was_kept_whatever_the_targets_are_now():
    first, second = history([90, 91] * 20, [85, 86] * 20)
    second["assessment"]["best_iteration"] = 2

    assert best_before([first, second], parameters()) is second
    second["assessment"]["best_iteration"] = 9  # measured otherwise
    assert best_before([first, second], parameters()) is first
