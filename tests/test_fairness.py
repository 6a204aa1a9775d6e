import numpy as np
import pytest
from statsmodels.genmod.generalized_estimating_equations import GEE

from llamaduo.fairness import (
    compare_groups,
    compare_pairs,
    describe_alarm,
    raise_alarms,
)
from llamaduo.parameters import FairnessParameters

GROUPS = "a", "b"
LIMITS = FairnessParameters().limits


def hits(count, size):
    return [True] * count + [False] * (size - count)


def compared(measure, label, groups, first, second, seeds=None):
    """Two groups of pairs, each of a seed of its own unless they are given."""
    is_first = [True] * len(first) + [False] * len(second)
    seeds = range(len(is_first)) if seeds is None else seeds
    return compare_groups(measure, label, groups, [*first, *second], is_first, seeds)


def test_the_gap_of_independent_pairs_has_about_the_published_interval():
    """Newcombe (1998), Interval estimation for the difference …, example (a): 56/70, 48/80."""
    gap = compared("label_gap", "", GROUPS, hits(56, 70), hits(48, 80))

    assert gap.values == (80, 60)
    assert gap.size == 20
    assert gap.interval == pytest.approx((5.24, 33.39), abs=0.8)


def test_what_pairs_of_a_seed_share_is_no_evidence():
    seeds = [n // 8 for n in range(240)]
    first, second = ([True] * 8 * n + [False] * 8 * (15 - n) for n in (10, 5))

    alone = compared("label_gap", "", GROUPS, first, second)
    of_seeds = compared("label_gap", "", GROUPS, first, second, seeds)
    few = compared("label_gap", "", GROUPS, hits(10, 15), hits(5, 15))

    assert alone.p_value < 1e-6
    assert of_seeds.p_value > 0.05
    assert of_seeds.p_value == pytest.approx(few.p_value, abs=0.05)


def test_the_error_is_that_of_generalized_estimating_equations():
    rng = np.random.default_rng(1)
    seeds = rng.integers(0, 4000, 20000)
    is_first = rng.random(20000) < 0.5
    hit = rng.random(20000) < np.where(seeds % 2, 0.2, 0.6)

    gap = compare_groups("label_gap", "", GROUPS, hit, is_first, seeds)

    design = np.column_stack([np.ones(len(hit)), is_first])
    fit = GEE(hit.astype(float), design, groups=seeds).fit()
    low, high = gap.interval
    assert (high - low) / 2 / 1.96 == pytest.approx(100 * fit.bse[1], rel=0.01)


def test_few_seeds_prove_a_gap_by_fishers_exact_test():
    """Agresti, Categorical Data Analysis, 3.5.2: Fisher's tea, 3 of 4 and 1 of 4, 17/70."""
    tea = compared("label_gap", "", GROUPS, hits(3, 4), hits(1, 4))
    # Nine of twelve against none of thirty: 220 of 445,891,810 tables, in one direction.
    rare = compared("label_gap", "", GROUPS, hits(9, 12), hits(0, 30))

    (alarm,) = raise_alarms([rare], LIMITS, 0.001)

    assert tea.p_value == pytest.approx(2 * 17 / 70)
    assert rare.p_value == rare.least_p == pytest.approx(2 * 220 / 445_891_810)
    assert alarm["alarm"]
    assert alarm["least_significant_gap"] < alarm["gap"]


@pytest.mark.parametrize("of_first", [True, False])
def test_a_rare_label_is_tested_alike_in_both_directions_and_where_it_is_rarely_missing(of_first):
    sides = [hits(9, 12), hits(0, 30)] if of_first else [hits(0, 30), hits(9, 12)]

    rare = compared("label_gap", "", GROUPS, *sides)
    frequent = compared("label_gap", "", GROUPS, *([not hit for hit in side] for side in sides))

    assert rare.p_value == pytest.approx(2 * 220 / 445_891_810)
    assert frequent.p_value == pytest.approx(rare.p_value)


def test_a_seed_counts_by_the_share_of_its_pairs_in_the_exact_test():
    """Nine of thirty seeds, with one of eight pairs each: about one seed; with all: nine."""
    seeds = [n // 8 for n in range(480)]
    one_in_eight = [n % 8 == 0 and n < 72 for n in range(480)]
    first = [n < 240 for n in range(480)]

    by_chance = compare_groups("toxic_excess", "", GROUPS, one_in_eight, first, seeds)
    all_pairs = compare_groups(
        "toxic_excess", "", GROUPS, [n < 72 for n in range(480)], first, seeds
    )

    assert by_chance.p_value == 1
    assert all_pairs.p_value == pytest.approx(0.0020, abs=1e-4)


def test_a_label_that_all_of_one_group_have_and_none_of_the_other_is_found():
    gap = compared("label_gap", "", GROUPS, hits(20, 20), hits(0, 20))

    (alarm,) = raise_alarms([gap], LIMITS, 0.001)

    assert alarm["alarm"]
    assert alarm["interval"][1] <= 100


def test_the_gap_of_pairs_has_the_published_p_value():
    """Agresti & Min (2005) on their table 1: 53, 16, 8, 9 of 86; McNemar by the binomial."""
    first = hits(53, 53) + hits(16, 16) + hits(0, 8) + hits(0, 9)
    second = hits(53, 53) + hits(0, 16) + hits(8, 8) + hits(0, 9)

    gap = compare_pairs("label_gap", "", GROUPS, first, second)

    assert gap.size == pytest.approx(100 * 8 / 86, abs=0.01)
    assert gap.p_value == pytest.approx(0.1516, abs=1e-4)
    low, high = gap.interval
    assert low < 0 < 100 * 8 / 86 < high


def test_pairs_without_a_difference_prove_nothing():
    gap = compare_pairs("label_gap", "", GROUPS, hits(5, 20), hits(5, 20))

    assert (gap.size, gap.p_value) == (0, 1)


def test_an_alarm_needs_size_and_significance():
    wide = compared("label_gap", "wide", GROUPS, hits(40, 50), hits(10, 50))
    by_chance = compared("label_gap", "by chance", GROUPS, hits(14, 20), hits(8, 20))
    narrow = compared("label_gap", "narrow", GROUPS, hits(5500, 9999), hits(5000, 9999))

    alarms = raise_alarms([wide, by_chance, narrow], LIMITS, 0.05)

    assert [gap["alarm"] for gap in alarms] == [True, False, False]
    assert alarms[2]["adjusted_p"] < 0.001


def test_a_test_that_could_not_be_significant_costs_the_others_nothing():
    real = compare_pairs("label_gap", "real", GROUPS, hits(8, 30), hits(0, 30))
    hopeless = compare_pairs("label_gap", "hopeless", GROUPS, hits(3, 30), hits(0, 30))

    alarms = raise_alarms([real, *[hopeless] * 20], LIMITS, 0.05)

    assert alarms[0]["alarm"]
    assert alarms[0]["adjusted_p"] == real.p_value
    assert alarms[1]["adjusted_p"] is None


@pytest.mark.parametrize("more", [0, -1])
def test_the_least_significant_gap_of_answers_is_found_and_a_smaller_one_is_not(more):
    same = compare_pairs("label_gap", "same", GROUPS, hits(9, 30), hits(9, 30))
    (judged,) = raise_alarms([same], LIMITS, 0.001)
    cases = round(judged["least_significant_gap"] * 30 / 100) + more

    gap = compare_pairs("label_gap", "", GROUPS, hits(cases, 30), hits(0, 30))

    assert raise_alarms([gap, same], LIMITS, 0.001)[0]["alarm"] == (more == 0)


@pytest.mark.parametrize("more", [0, -1])
def test_the_least_significant_gap_of_pairs_is_found_and_a_smaller_one_is_not(more):
    (judged,) = raise_alarms(
        [compared("toxic_excess", "", GROUPS, hits(0, 60), hits(0, 40))], LIMITS, 0.01
    )
    cases = round(judged["least_significant_gap"] * 60 / 100) + more

    gap = compared("toxic_excess", "", GROUPS, hits(cases, 60), hits(0, 40))

    assert raise_alarms([gap], LIMITS, 0.01)[0]["alarm"] == (more == 0)


def test_a_frequent_label_needs_no_wider_gap_than_least_squares_find():
    same, wide = (compared("label_gap", "", GROUPS, hits(n, 55), hits(20, 55)) for n in (20, 40))

    judged = raise_alarms([wide, same], LIMITS, 0.01)

    reach = (judged[1]["interval"][1] - judged[1]["interval"][0]) / 2
    assert judged[0]["alarm"]
    assert reach < judged[1]["least_significant_gap"] < judged[0]["gap"]


@pytest.mark.timeout(10)
def test_many_pairs_take_little_time():
    seeds = np.arange(100_000)
    for having in (20_000, 50_000, 99_996):
        has_label = seeds < having

        gap = compare_groups("label_gap", "", GROUPS, has_label, seeds % 2 == 0, seeds)

        assert gap.p_value > 0.5


def test_no_gap_is_significant_where_even_the_widest_is_not_significant():
    few = compare_pairs("label_gap", "", GROUPS, hits(10, 10), hits(0, 10))
    seeds = compared("label_gap", "", GROUPS, hits(10, 10), hits(0, 10))

    for gap in (few, seeds):
        assert raise_alarms([gap], LIMITS, 1e-6)[0]["least_significant_gap"] is None
    assert raise_alarms([seeds], LIMITS, 1e-4)[0]["least_significant_gap"] <= 100


def test_a_gap_that_is_only_reported_raises_no_alarm():
    gap = compared("label_gap", "", GROUPS, hits(50, 50), hits(0, 50)).as_report(LIMITS)

    assert (gap["gap"], gap["limit"]) == (100, 10)
    assert (gap["adjusted_p"], gap["least_significant_gap"], gap["alarm"]) == (None, None, False)


def test_less_of_what_nobody_wants_is_no_alarm():
    less = compared("hedge_excess", "", GROUPS, hits(0, 50), hits(25, 50))
    more = compared("hedge_excess", "", GROUPS, hits(25, 50), hits(0, 50))

    assert [gap["alarm"] for gap in raise_alarms([less, more], LIMITS, 0.05)] == [0, 1]


def test_an_alarm_is_a_sentence_with_its_strength():
    gap = compared("label_gap", "kind = x", ("women", "men"), hits(40, 50), hits(10, 50))
    (alarm,) = raise_alarms([gap], LIMITS, 0.05)

    assert describe_alarm("pairs", alarm) == (
        "pairs: label gap of kind = x, women against men, is +60.0 points (95 % interval 41.4 to "
        "73.9, limit 10)"
    )
