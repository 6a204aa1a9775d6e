import json

import numpy as np
import pytest
from statsmodels.genmod.generalized_estimating_equations import GEE

from llamaduo.fairness import (
    OTHER_VALUE,
    WHOLE,
    compare_groups,
    compare_pairs,
    describe_alarm,
    each_label,
    find_labels,
    raise_alarms,
    read_labels,
    report_gaps,
)
from llamaduo.parameters import FairnessParameters

GROUPS = "a", "b"
LIMITS = FairnessParameters().limits


def responses(count):
    return [
        json.dumps({"kind": "xyz"[n % 3], "urgent": n % 2 == 0, "number": f"N-{n}"})
        for n in range(count)
    ]


def hits(count, size):
    return [True] * count + [False] * (size - count)


def compared(measure, label, groups, first, second, seeds=None):
    """Two groups of pairs, each of a seed of its own unless they are given."""
    is_first = [True] * len(first) + [False] * len(second)
    seeds = range(len(is_first)) if seeds is None else seeds
    return compare_groups(measure, label, groups, [*first, *second], is_first, seeds)


def test_fields_with_few_shared_values_are_labels_and_others_are_not():
    assert find_labels(responses(30)) == {"kind": ["x", "y", "z"], "urgent": ["false", "true"]}


def test_one_answer_of_another_form_changes_nothing():
    assert list(find_labels([*responses(30), "I do not know."])) == ["kind", "urgent"]
    assert find_labels([*["yes", "no"] * 30, '{"a": "1"}']) == {WHOLE: ["no", "yes", '{"a": "1"}']}


def test_short_answers_are_labels_themselves_and_free_text_has_none():
    assert find_labels(["yes", "no", "no "] * 10) == {WHOLE: ["no", "yes"]}
    assert find_labels([f"Sentence number {n}." for n in range(30)]) == {}


def test_no_field_is_taken_for_the_whole_response():
    texts = [json.dumps({"response": "yn"[n % 2], "": "a", "number": n}) for n in range(30)]

    labels = read_labels(texts, find_labels(texts))

    assert [name for name, _ in each_label(labels)] == ["response = n", "response = y"]


def test_a_label_is_read_out_of_fences_and_missing_where_it_is_not():
    texts = ['```json\n{"kind": "x", "urgent": true}\n```', '{"kind": "x"', "x"]

    labels = read_labels(texts, {"kind": ["x"], "urgent": ["true"]})

    assert labels.to_numpy().tolist() == [["x", "true"], [None, None], [None, None]]


def test_values_that_the_labels_lack_are_one():
    labels = read_labels(["yes", "Yes, since …", "No, since …"], {WHOLE: ["no", "yes"]})

    assert [name for name, _ in each_label(labels)] == [
        f"response = {OTHER_VALUE}",
        "response = yes",
    ]


def test_the_gap_of_independent_pairs_has_about_the_published_interval():
    """Newcombe (1998), Interval estimation for the difference …, example (a): 56/70, 48/80."""
    gap = compared("label_gap", "", GROUPS, hits(56, 70), hits(48, 80))

    assert gap["values"] == [80, 60]
    assert gap["gap"] == 20
    assert gap["interval"] == pytest.approx([5.24, 33.39], abs=0.8)


def test_what_pairs_of_a_seed_share_is_no_evidence():
    seeds = [n // 8 for n in range(240)]
    first, second = ([True] * 8 * n + [False] * 8 * (15 - n) for n in (10, 5))

    alone = compared("label_gap", "", GROUPS, first, second)
    of_seeds = compared("label_gap", "", GROUPS, first, second, seeds)
    few = compared("label_gap", "", GROUPS, hits(10, 15), hits(5, 15))

    assert alone["p_value"] < 1e-6
    assert of_seeds["p_value"] > 0.05
    assert of_seeds["p_value"] == pytest.approx(few["p_value"], abs=0.05)


def test_the_error_is_that_of_generalized_estimating_equations():
    rng = np.random.default_rng(1)
    seeds = rng.integers(0, 4000, 20000)
    is_first = rng.random(20000) < 0.5
    hit = rng.random(20000) < np.where(seeds % 2, 0.2, 0.6)

    gap = compare_groups("label_gap", "", GROUPS, hit, is_first, seeds)

    design = np.column_stack([np.ones(len(hit)), is_first])
    fit = GEE(hit.astype(float), design, groups=seeds).fit()
    low, high = gap["interval"]
    assert (high - low) / 2 / 1.96 == pytest.approx(100 * fit.bse[1], rel=0.01)


def test_a_label_of_few_seeds_proves_nothing():
    few = compared("label_gap", "", GROUPS, hits(9, 50), hits(0, 50))
    enough = compared("label_gap", "", GROUPS, hits(10, 50), hits(0, 50))

    (alarm,) = raise_alarms([few], LIMITS, 0.05)

    assert alarm["adjusted_p"] is None
    assert raise_alarms([enough], LIMITS, 0.05)[0]["alarm"]


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

    assert gap["gap"] == pytest.approx(100 * 8 / 86, abs=0.01)
    assert gap["p_value"] == pytest.approx(0.1516, abs=1e-4)
    low, high = gap["interval"]
    assert low < 0 < 100 * 8 / 86 < high


def test_pairs_without_a_difference_prove_nothing():
    gap = compare_pairs("label_gap", "", GROUPS, hits(5, 20), hits(5, 20))

    assert (gap["gap"], gap["p_value"]) == (0, 1)


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
    assert alarms[0]["adjusted_p"] == alarms[0]["p_value"]
    assert alarms[1]["adjusted_p"] is None


@pytest.mark.parametrize(("more", "is_found"), [(0, True), (-1, False)])
def test_the_finest_gap_is_found_and_a_finer_one_is_not(more, is_found):
    same = compare_pairs("label_gap", "same", GROUPS, hits(9, 30), hits(9, 30))
    (judged,) = raise_alarms([same], LIMITS, 0.001)
    cases = round(judged["finest"] * 30 / 100) + more

    gap = compare_pairs("label_gap", "", GROUPS, hits(cases, 30), hits(0, 30))

    assert raise_alarms([gap, same], LIMITS, 0.001)[0]["alarm"] == is_found


def test_a_gap_that_is_only_reported_raises_no_alarm():
    (gap,) = report_gaps([compared("label_gap", "", GROUPS, hits(50, 50), hits(0, 50))], LIMITS)

    assert (gap["gap"], gap["adjusted_p"], gap["finest"], gap["alarm"]) == (100, None, None, False)


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
