import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llamaduo.errors import InputError
from llamaduo.near_duplicates import Reserved, Tokenizer
from llamaduo.parameters import Shares
from llamaduo.pipelines.coverage.nodes import take_holdout, take_test, take_train
from llamaduo.pipelines.coverage.splitting import group_near_duplicates, share_out
from llamaduo.schemas import CoveragePairs, SplitPairs
from tests.pipelines.conftest import SPLITS, different, split, warnings


def pairs(prompts, categories=None):
    return pd.DataFrame(
        {
            "id": [f"id-{n}" for n in range(len(prompts))],
            "category": categories or "",
            "system": "",
            "prompt": prompts,
            "response": "r",
        }
    )


def test_near_duplicates_over_several_steps_are_one_group():
    chain = ["a b c d e f g h i j", "a b c d e f g h x y", "a b c d e f z w x y"]

    groups = group_near_duplicates(pairs(["other words here", *chain, "OTHER, words here!"]), 0.7)

    assert groups == [1, 2, 2, 2, 1]


def test_ten_thousand_copies_are_grouped_in_a_moment():
    assert set(group_near_duplicates(pairs(["one two three", "four five"] * 5000), 0.7)) == {1, 2}


def test_near_duplicates_are_in_one_split():
    prompts = [f"{prompt} e f g h i {end}" for prompt in different(20) for end in "xyz"]

    table = split(pairs(prompts))

    assert (table.groupby("group")["split"].nunique() == 1).all()
    assert set(table["split"]) == set(SPLITS)


def test_no_pair_to_learn_from_quotes_one_of_the_others():
    openings = ["Hello,", "a b c d e f g h", "i j k l m n o p"]
    issues = [" ".join(f"{letter}{n}" for letter in "qrstuvwx") for n in range(30)]

    table = split(pairs([f"{opening} {issue}" for issue in issues for opening in openings]))

    tokenizer = Tokenizer.of_task(table)
    tokens = table["prompt"].map(tokenizer.tokens)
    kept_apart = Reserved(0.7, tokens[table["split"] != "train"])
    assert not any(map(kept_apart.has_copy, tokens[table["split"] == "train"]))
    assert table["group"].nunique() == 30


def test_each_category_is_shared_out_alike():
    categories = ["a"] * 200 + ["b"] * 40 + ["c"] * 4

    table = split(pairs(different(244), categories))

    counts = pd.crosstab(table["category"], table["split"])[SPLITS]
    assert counts.to_numpy().tolist() == [[100, 50, 50], [20, 10, 10], [2, 1, 1]]


def test_categories_of_one_pair_each_fill_all_splits():
    table = split(pairs(different(40), [f"c{n}" for n in range(40)]))

    assert table["split"].value_counts()[SPLITS].tolist() == [20, 10, 10]


def test_the_seed_alone_decides_who_goes_where():
    table = pairs(different(60))

    assert split(table).equals(split(table))
    assert not split(table, seed=2).equals(split(table))


@given(
    sizes=st.lists(st.integers(1, 9), min_size=3, max_size=60),
    weights=st.tuples(*[st.sampled_from([0.01, 1, 3, 20])] * 3),
)
def test_no_split_is_empty_and_none_is_far_off_its_share(sizes, weights):
    groups = [number for number, size in enumerate(sizes) for _ in range(size)]
    categories = [f"c{group % 4}" for group in groups]
    shares = Shares(**dict(zip(SPLITS, weights, strict=True)))

    assigned = share_out(groups, categories, shares, seed=1)

    got = {name: sum(assigned[group] == name for group in groups) for name in SPLITS}
    assert min(got.values()) > 0
    for name, wanted in shares.of(len(groups)).items():
        assert abs(got[name] - wanted) <= 2 * max(sizes)


@pytest.mark.parametrize("prompts", [["a b c"], ["a b c", "d e f"], ["a b c"] * 5 + ["d e f"] * 5])
def test_fewer_than_three_prompts_that_differ_are_refused_with_the_least_number(prompts):
    with pytest.raises(InputError, match="expected 3 at least"):
        split(pairs(prompts))


def test_three_prompts_make_three_splits_of_one():
    assert sorted(
        split(pairs(different(3)), shares={"train": 98, "test": 1, "holdout": 1})["split"]
    ) == sorted(SPLITS)


def test_a_group_that_is_larger_than_a_share_allows_is_said(caplog):
    alike = [f"one two three four five six seven eight nine {n}" for n in range(40)]
    shares = {"train": 0.3, "test": 0.3, "holdout": 0.4}

    table = split(pairs([*alike, *different(40)]), shares=shares)

    assert max(table["split"].value_counts()) == 40
    assert (
        "prompts that are alike, or quote each other, stay together, and the largest group of them "
        "has 40 pairs" in warnings(caplog)[0]
    )


def test_few_test_prompts_are_said_once(caplog):
    split(pairs(different(40)), min_prompts=100)

    assert warnings(caplog) == [
        "10 test prompts are fewer than 100 (evaluation.min_prompts): every verdict will be "
        "advisory, since so few leave much to chance"
    ]


def test_the_three_files_have_every_pair_once_and_the_columns_of_a_coverage_set():
    table = SplitPairs.validate(split(pairs(different(12)).assign(licence="MIT")))

    files = [take(table) for take in (take_train, take_test, take_holdout)]

    assert [len(file) for file in files] == [6, 3, 3]
    assert sorted(pd.concat(files)["id"]) == sorted(table["id"])
    for file in files:
        CoveragePairs.validate(file)
        assert file.columns.equals(table.columns.drop(["group", "split"]))


def test_a_category_of_which_a_split_has_little_is_said(caplog):
    alike = [f"one two three four five six {end}" for end in "abcdefghi"]
    table = pairs([*alike, *different(36)], ["rare"] * 9 + ["common"] * 36)

    split(table)

    assert (
        "'rare' with 9 pairs in 1 group(s) has 0 in test where 2 were wanted and 0 in holdout "
        "where 2 were wanted" in warnings(caplog)[-1]
    )


def test_many_categories_of_which_a_split_has_little_are_one_warning(caplog):
    split(pairs(different(150), [f"c{n // 3}" for n in range(150)]))

    (said,) = warnings(caplog)
    assert said.count(" has 0 in ") == 5
    assert said.endswith(" more, see coverage_report")


def test_a_category_that_is_shared_out_about_as_wanted_is_not_said(caplog):
    split(pairs(different(54), ["rare"] * 14 + ["common"] * 40))

    assert warnings(caplog) == []


def test_instructions_that_differ_by_category_keep_no_category_together():
    instruction = " ".join(f"word{n}" for n in range(40))
    prompts = [f"{name} {instruction} {name} {n}a {n}b {n}c" for name in "xyz" for n in range(40)]

    table = split(pairs(prompts, [name for name in "xyz" for _ in range(40)]))

    assert (table.groupby("category")["split"].nunique() == 3).all()
