import numpy as np
import pandas as pd
import pytest
from scipy import stats

from llamaduo.statistics import (
    bootstrap_interval,
    describe_gain,
    exact_interval,
    judge_spread,
    lower_bound,
    needed_prompts,
    paired_gains,
    summarise,
)

NORMAL = np.random.default_rng(1).normal(80, 15, size=60)


def test_the_lower_bound_is_student_s_where_nothing_is_skewed():
    symmetric = np.concatenate([NORMAL, 160 - NORMAL])

    expected = stats.ttest_1samp(symmetric, 0).confidence_interval(confidence_level=0.9).low

    assert lower_bound(symmetric, 0.05) == pytest.approx(expected)
    assert lower_bound(np.full(20, 80.0), 0.05) == 80


def test_the_lower_bound_holds_its_level_for_scores_that_pile_up_at_100():
    """4,000 samples of 100: Student's errs in 1.2 % of them."""
    quality = stats.beta(3.4, 0.6)
    samples = 100 * quality.rvs((4000, 100), random_state=1)

    assert (lower_bound(samples, 0.005) > 100 * quality.mean()).mean() < 0.008


def test_many_bounds_at_once_are_those_of_each():
    table = np.stack([NORMAL, NORMAL[::-1] - 5])

    assert lower_bound(table, 0.01) == pytest.approx(
        [float(lower_bound(row, 0.01)) for row in table]
    )
    assert lower_bound(np.ones((2, 1)), 0.01).tolist() == [-np.inf, -np.inf]


def test_a_judgement_that_is_missing_counts_as_nothing_in_the_bound_and_the_coverage():
    scores = pd.Series([90.0] * 19 + [np.nan])
    half_judged = pd.Series([1.0] * 18 + [0.5, 0.0])

    whole = summarise(scores[:19], pd.Series([1.0] * 19), 0.05, 80)
    holed = summarise(scores, half_judged, 0.05, 80)

    assert whole["mean"] == holed["mean"] == 90
    assert holed["lower_bound"] == pytest.approx(
        float(lower_bound(np.array([90.0] * 18 + [45, 0]), 0.05)), abs=1e-3
    )
    assert holed["coverage_percentage"] == 90
    assert whole["coverage_percentage"] == 100


def test_a_bound_stays_on_the_scale():
    assert summarise(pd.Series([100.0, 50]), pd.Series([1.0, 1]), 0.01, 80)["lower_bound"] == 0
    assert summarise(pd.Series([100.0]), pd.Series([1.0]), 0.01, 80)["lower_bound"] is None


def test_the_interval_is_the_bca_bootstrap_and_always_the_same():
    expected = stats.bootstrap(
        (NORMAL,), np.mean, method="BCa", rng=np.random.default_rng(0)
    ).confidence_interval

    assert bootstrap_interval(NORMAL) == pytest.approx([expected.low, expected.high], abs=0.3)
    assert bootstrap_interval(NORMAL) == bootstrap_interval(NORMAL)


def test_an_interval_that_chance_cannot_tell_is_null():
    assert bootstrap_interval(np.full(20, 75.0)) == [None, None]
    assert bootstrap_interval(NORMAL, base=NORMAL * 2) == [None, None]
    assert bootstrap_interval(NORMAL[:19]) == [None, None]
    assert bootstrap_interval(NORMAL, base=np.zeros(60)) == [None, None]


def test_the_interval_of_a_ratio_is_that_of_paired_means():
    low, high = bootstrap_interval(NORMAL, base=NORMAL + np.random.default_rng(2).normal(0, 3, 60))

    assert low < 1 < high
    assert high - low < 0.03  # unpaired it would be 0.09


@pytest.mark.parametrize("seed", range(20))
def test_no_sample_of_few_values_raises_a_warning(seed):
    rng = np.random.default_rng(seed)
    for size in (2, 3, 20, 22):
        drawn = rng.choice([0.0, 50, 100], size=(2, size))
        bootstrap_interval(drawn[0])
        bootstrap_interval(*drawn)
        describe_gain(drawn[0] - drawn[1])


def test_the_coverage_interval_is_exact():
    # Newcombe 1998, Statistics in Medicine 17, table I: 81 of 263.
    assert exact_interval(81, 263) == pytest.approx([25.27, 36.77], abs=0.02)


def test_gains_are_over_the_prompts_that_both_have_scored():
    gains = paired_gains({"a": 5, "b": None, "c": 9}, {"a": 3, "b": 1, "d": 4})

    assert gains.tolist() == [2]
    assert describe_gain(gains) == {
        "prompts": 1,
        "mean": None,
        "interval": [None, None],
        "p_value": None,
    }


def test_a_gain_has_the_interval_of_the_paired_t_test_and_wilcoxon_s_p():
    gains = np.concatenate([NORMAL, 160 - NORMAL]) - 78

    described = describe_gain(gains)

    expected = stats.ttest_1samp(gains, 0).confidence_interval()
    assert described["interval"] == pytest.approx([expected.low, expected.high], abs=1e-3)
    assert described["p_value"] == pytest.approx(stats.wilcoxon(gains).pvalue, abs=1e-4)
    assert describe_gain(np.zeros(5))["p_value"] is None


def judgements(spread, repeats):
    rng = np.random.default_rng(3)
    items = pd.DataFrame({"id": range(400), "mean": rng.normal(70, 20, 400)})
    table = items.merge(pd.DataFrame({"repeat": range(repeats)}), how="cross")
    noise = rng.normal(0, spread, len(table))
    return table.assign(sample=1, judge="j", precision=table["mean"] + noise)


def test_the_judge_s_spread_is_that_within_one_response():
    assert judge_spread(judgements(8, 3), "precision") == pytest.approx(8, rel=0.05)
    assert judge_spread(judgements(0, 3), "precision") == pytest.approx(0, abs=1e-6)
    assert judge_spread(judgements(8, 1), "precision") is None


def test_more_repeats_spare_few_prompts():
    """n is that of a one-sided one-sample t test; the spread's share falls with the repeats."""
    needed = needed_prompts(np.sqrt(20**2 + 8**2), 8, (1, 1), 5, 0.005, 0.8)

    assert list(needed) == ["1", "3", "10"]
    expected = (stats.norm.isf(0.005) + stats.norm.isf(0.2)) ** 2 * np.array([464, 421.3, 406.4])
    assert list(needed.values()) == pytest.approx(expected / 25, rel=0.03)


def test_without_repeats_only_the_present_number_is_told():
    assert list(needed_prompts(20, None, (4, 2), 5, 0.005, 0.8)) == ["2"]
