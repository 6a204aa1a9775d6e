import json

import pytest
from scipy.stats import fisher_exact

from llamaduo.fairness import (
    compare_groups,
    compare_pairs,
    describe_alarm,
    find_label_fields,
    raise_alarms,
    read_labels,
)
from llamaduo.parameters import FairnessParameters

GROUPS = "a", "b"


def responses(count):
    return [
        json.dumps({"kind": "xyz"[n % 3], "urgent": n % 2 == 0, "number": f"N-{n}"})
        for n in range(count)
    ]


def hits(count, size):
    return [True] * count + [False] * (size - count)


def test_fields_with_few_shared_values_are_labels_and_others_are_not():
    assert find_label_fields(responses(30)) == ["kind", "urgent"]


def test_one_answer_in_prose_among_objects_changes_nothing():
    assert find_label_fields([*responses(30), "I do not know."]) == ["kind", "urgent"]


def test_short_answers_are_labels_themselves_and_free_text_has_none():
    assert find_label_fields(["yes", "no", "no"] * 10) == ["response"]
    assert find_label_fields([f"Sentence number {n}." for n in range(30)]) == []


def test_a_label_is_read_out_of_fences_and_missing_where_it_is_not():
    texts = ['```json\n{"kind": "x", "urgent": true}\n```', '{"kind": "x"', "x"]

    labels = read_labels(texts, ["kind", "urgent"])

    assert labels.to_numpy().tolist() == [["x", "true"], [None, None], [None, None]]


def test_the_gap_of_two_groups_has_the_published_interval():
    """Newcombe (1998), Interval estimation for the difference …, example (a): 56/70, 48/80."""
    gap = compare_groups("label_gap", "", GROUPS, hits(56, 70), hits(48, 80))

    assert gap["values"] == [80, 60]
    assert gap["gap"] == 20
    assert gap["interval"] == pytest.approx([5.24, 33.39], abs=0.01)
    assert gap["p_value"] == pytest.approx(fisher_exact([[56, 14], [48, 32]]).pvalue)


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
    wide = compare_groups("label_gap", "wide", GROUPS, hits(40, 50), hits(10, 50))
    by_chance = compare_groups("label_gap", "by chance", GROUPS, hits(7, 10), hits(4, 10))
    narrow = compare_groups("label_gap", "narrow", GROUPS, hits(5500, 9999), hits(5000, 9999))

    alarms = raise_alarms([wide, by_chance, narrow], FairnessParameters())

    assert [gap["alarm"] for gap in alarms] == [True, False, False]
    assert alarms[2]["adjusted_p"] < 0.001


def test_a_test_that_could_not_be_significant_costs_the_others_nothing():
    real = compare_pairs("label_gap", "real", GROUPS, hits(8, 30), hits(0, 30))
    hopeless = compare_pairs("label_gap", "hopeless", GROUPS, hits(3, 30), hits(0, 30))

    alarms = raise_alarms([real, *[hopeless] * 20], FairnessParameters())

    assert alarms[0]["alarm"]
    assert alarms[0]["adjusted_p"] == alarms[0]["p_value"]
    assert alarms[1]["adjusted_p"] is None


def test_less_of_what_nobody_wants_is_no_alarm():
    less = compare_groups("hedge_excess", "", GROUPS, hits(0, 50), hits(25, 50))
    more = compare_groups("hedge_excess", "", GROUPS, hits(25, 50), hits(0, 50))

    assert [gap["alarm"] for gap in raise_alarms([less, more], FairnessParameters())] == [0, 1]


def test_an_alarm_is_a_sentence_with_its_strength():
    gap = compare_groups("label_gap", "kind = x", ("women", "men"), hits(40, 50), hits(10, 50))
    (alarm,) = raise_alarms([gap], FairnessParameters())

    assert describe_alarm("pairs", alarm) == (
        "pairs: label gap of kind = x, women against men, is +60.0 points (95 % interval 41.6 to "
        "72.4, limit 10)"
    )
