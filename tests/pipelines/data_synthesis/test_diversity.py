import json

import numpy as np
import pandas as pd
import pytest

from llamaduo.near_duplicates import signatures
from llamaduo.parameters import IterationParameters
from llamaduo.pipelines.data_synthesis.diversity import (
    distinct,
    evenness,
    measure_diversity,
    nearest_distance,
    reached,
    reached_if_alike,
)
from tests.pipelines.data_synthesis.tables import coverage, parameters

COPY = 0.7


def random_texts(count, words, seed):
    rng = np.random.default_rng(seed)
    return [list(rng.integers(words, size=12)) for _ in range(count)]


def mask(*flags):
    return np.array(flags, dtype=bool)


def training_set(new=60):
    rows = pd.concat([coverage(60), coverage(new)], ignore_index=True)
    is_new = np.arange(len(rows)) >= 60
    return rows.assign(
        origin=np.where(is_new, "synthetic", "coverage"),
        iteration=np.where(is_new, 2, 1),
        prompt=[f"word{n} thing{n} and prompt number {n}" for n in range(len(rows))],
        prompt_version=np.where(
            is_new, np.where(np.arange(len(rows)) % 2, "in_german-11", "harder-22"), ""
        ),
    )


def measure(table, iteration=2):
    test = coverage(8).assign(prompt=[f"secret{n} of the test" for n in range(8)])
    return measure_diversity(table, test, parameters(), IterationParameters(index=iteration))


def test_distinct_n_is_one_where_no_word_is_repeated_and_falls_with_repetition():
    different = [[3 * n, 3 * n + 1, 3 * n + 2] for n in range(60)]

    assert distinct(different, 1) == distinct(different, 2) == 1
    assert distinct([[1, 2, 3]] * 60, 1) == pytest.approx(3 / 150)
    assert distinct([[1, 2, 3]] * 60, 2) == pytest.approx(2 / 100)


def test_distinct_n_does_not_depend_on_the_number_of_texts():
    few, many = (distinct(random_texts(count, 2000, 1), 1) for count in (60, 3000))

    assert few == pytest.approx(many, abs=0.01)


@pytest.mark.parametrize("texts", [[[1, 2]] * 49, [[1]] * 60], ids=["too few", "one word each"])
def test_distinct_2_is_unknown_without_enough_to_count(texts):
    assert distinct(texts, 2) is None


def test_the_nearest_prompt_is_another_one_old_or_new():
    prompts = [[1, 2, 3, 4], [5, 6, 7, 8], [1, 2, 3, 9], [5, 6, 7, 8]]

    # 3 of 4 words in common with the first; the same words as the second.
    assert nearest_distance(prompts, mask(0, 0, 1, 0)) == pytest.approx(0.25)
    assert nearest_distance(prompts, mask(0, 0, 1, 1)) == pytest.approx(0.125)
    assert nearest_distance(prompts, mask(0, 0, 0, 0)) is None
    assert nearest_distance(prompts[:1], mask(1)) is None


@pytest.mark.parametrize(
    ("kinds", "is_new", "expected"),
    [
        ("aabb", (1, 1, 1, 1), 1),
        ("aabb", (1, 1, 0, 0), 0),
        ("abcd", (1, 1, 0, 0), 0.5),
        ("aaaa", (1, 1, 1, 1), None),
        ("aabb", (0, 0, 0, 0), None),
    ],
    ids=["even", "all of one", "half of four", "one kind", "nothing new"],
)
def test_evenness_is_over_all_kinds_that_are_known(kinds, is_new, expected):
    assert evenness(pd.Series(list(kinds)), mask(*is_new)) == pytest.approx(expected)


def test_pairs_without_a_kind_count_for_none():
    assert evenness(pd.Series(["", "a", "b"]), mask(1, 1, 1)) == pytest.approx(1)


def test_a_test_prompt_is_reached_by_what_is_nearer_than_its_nearest_other():
    # Of 40 words the first two have 10 in common, the training prompts 20 with one of them.
    test = signatures([range(40), range(30, 70), range(100, 140)])
    near_first, near_second = range(-20, 20), range(50, 90)

    assert reached(test, signatures([range(200, 240)]), COPY) == 0
    assert reached(test, signatures([near_first]), COPY) == pytest.approx(1 / 3)
    assert reached(test, signatures([near_first, near_second]), COPY) == pytest.approx(2 / 3)
    assert reached(test[:1], test, COPY) is None


def test_what_is_as_near_as_the_nearest_other_counts_in_part():
    first, second, third = range(40), range(20, 60), range(60, 100)

    share = reached(signatures([first, second, third]), signatures([second]), 1.0)

    assert share == pytest.approx((1 / 2 + 1 + 0) / 3)


def test_a_copy_among_the_test_prompts_draws_no_neighbourhood_that_nothing_may_enter():
    twins = signatures([range(40), range(40)])

    assert reached(twins, signatures([range(30, 70)]), COPY) == 1


def test_of_prompts_that_are_drawn_alike_as_many_are_reached_as_expected():
    test = signatures(random_texts(300, 300, 1))

    for count in (150, 300):
        share = reached(test, signatures(random_texts(count, 300, 2)), COPY)
        assert share == pytest.approx(reached_if_alike(300, count), abs=0.05)


def test_the_figures_are_of_what_is_new_and_hold_no_word_of_a_pair():
    figures = measure(training_set())

    assert (figures["iteration"], figures["new_pairs"]) == (2, 60)
    assert [figures["category_entropy"], figures["strategy_entropy"]] == pytest.approx([1, 1])
    assert 0 < figures["prompt_distinct_1"] < 1
    assert not any(isinstance(figure, str) for figure in figures.values())
    assert json.loads(json.dumps(figures, allow_nan=False)) == figures


def test_the_first_iteration_is_that_of_the_coverage_set():
    figures = measure(training_set(new=0), iteration=1)

    assert figures["new_pairs"] == 60
    assert figures["strategy_entropy"] is None


def test_an_iteration_without_new_pairs_has_what_can_be_known():
    figures = measure(training_set(new=0), iteration=2)

    assert figures["new_pairs"] == 0
    assert figures["prompt_distinct_1"] is figures["nearest_distance"] is None
    assert figures["test_reached_if_alike"] == 60 / 67
