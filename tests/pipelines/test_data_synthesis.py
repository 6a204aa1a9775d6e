import json
from itertools import product

import numpy as np
import pandas as pd
import pytest
from rapidfuzz.distance import LCSseq

from llamaduo.near_duplicates import Tokenizer, similarity
from llamaduo.parameters import IterationParameters, SynthesisParameters
from llamaduo.pipelines.data_synthesis.nodes import (
    choose_seeds,
    extend_training_set,
    parse_pairs,
    read_pairs,
    report_synthesis,
)
from llamaduo.pipelines.data_synthesis.screening import screen_pairs
from llamaduo.schemas import ParsedPairs, ReadyPairs, ScreenedPairs, Seeds, TrainingSet

NO_READY_PAIRS = pd.DataFrame(columns=["prompt", "response"])


def coverage(count, categories=("a", "b", "c")):
    return pd.DataFrame(
        {
            "id": [f"train-{n}" for n in range(count)],
            "category": [categories[n % len(categories)] for n in range(count)],
            "system": "",
            "prompt": [f"prompt number {n}" for n in range(count)],
            "response": [f"response {n}" for n in range(count)],
        }
    )


def parameters(**changes):
    return SynthesisParameters(**{"pairs_per_iteration": 20, "pairs_per_request": 8, **changes})


def so_far(iteration, pairs=20, per_request=8):
    """The report of the iteration before, in a loop that asks for the same number each time."""
    asking = max(0, iteration - 2)
    return {
        "iteration": iteration - 1,
        "asked_so_far": asking * pairs,
        "requests_so_far": asking * -(-pairs // per_request),
    }


def seeds(iteration, count=12, **changes):
    return choose_seeds(coverage(count), NO_READY_PAIRS, so_far(iteration), parameters(**changes))


def parsed(*prompts, **columns):
    rows = pd.DataFrame({"prompt": list(prompts)}).assign(
        id=[f"i002-{n}" for n in range(len(prompts))],
        seed_id="train-0",
        category="a",
        system="",
        seed_prompt="the seed is something else",
        response="r",
        unreadable="",
    )
    return rows.assign(**columns)


def screened(rows, known=(), test=("reserved one two three", "kept apart four five six")):
    known_set = pd.DataFrame({"prompt": list(known)}) if known else None
    reserved = pd.DataFrame({"prompt": list(test)})
    empty = pd.DataFrame({"prompt": pd.Series([], dtype=str)})
    return list(screen_pairs(rows, known_set, reserved, empty, parameters())["dropped"])


def test_the_first_iteration_asks_for_nothing():
    assert seeds(1).empty
    assert list(seeds(1).columns) == list(Seeds.empty().columns)


def test_requests_share_the_pairs_of_an_iteration_out():
    assert list(seeds(2)["pairs"]) == [8, 8, 4]


def test_a_list_gives_each_later_iteration_its_own_number_and_the_last_to_all_that_follow():
    counts = [seeds(n, pairs_per_iteration=[8, 24])["pairs"].sum() for n in (1, 2, 3, 4)]

    assert counts == [0, 8, 24, 24]


def test_every_pair_is_shown_before_any_is_shown_again():
    shown = [list(seeds(n)["seed_id"]) for n in (2, 3, 4, 5)]

    assert len({seed for each in shown for seed in each}) == 12
    assert list(seeds(6)["seed_id"]) == shown[0]


def test_an_iteration_shows_no_pair_twice_and_all_categories():
    chosen = seeds(2, count=60, pairs_per_iteration=240)

    assert chosen["seed_id"].is_unique
    categories = coverage(60).set_index("id")["category"][chosen["seed_id"]]
    assert list(categories.value_counts()) == [10, 10, 10]


def test_a_changed_number_of_pairs_goes_on_where_the_iteration_before_stopped():
    before, after = seeds(2), seeds(3, pairs_per_iteration=40)

    assert list(after["request"]) == [4, 5, 6, 7, 8]
    assert not set(before["seed_id"]) & set(after["seed_id"])


def test_requests_are_numbered_over_the_whole_loop():
    assert list(seeds(2)["request"]) == [1, 2, 3]
    assert list(seeds(3)["request"]) == [4, 5, 6]


def test_ready_pairs_leave_nothing_to_ask():
    ready = pd.DataFrame({"prompt": ["p"], "response": ["r"]})

    assert choose_seeds(coverage(9), ready, so_far(2), parameters()).empty


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('{"pairs": [{"prompt": "p", "response": "r"}]}', [("p", "r", "")]),
        ('{"pairs": []}', []),
        ('{"pairs": [{"prompt": "p"}, {"prompt": "p", "response": "r"}]}', [None, ("p", "r", "")]),
        ('{"pairs": [{"prompt": "p", "response": 5}]}', [None]),
        ('{"pairs": [{"prompt": "p", "response": "cut', [None]),
        ("I cannot help with that.", [None]),
        ('{"items": []}', [None]),
        ('{"pairs": [{"prompt": "half \\ud83d", "response": "r"}]}', [None]),
        ("[" * 100_000, [None]),
    ],
)
def test_only_whole_pairs_are_read(text, expected):
    rows = [tuple(row.values()) for row in read_pairs(text)]

    for row, wanted in zip(rows, expected, strict=True):
        assert row == wanted if wanted else row[2]


def test_a_failed_request_is_a_row_that_says_why():
    (row,) = read_pairs(None, "gave up", "HTTP 400: bad")

    assert row["unreadable"] == "request failed: gave up HTTP 400: bad"


def test_pairs_carry_the_seed_that_they_came_from():
    replies = pd.DataFrame(
        {
            "request": [1],
            "seed_id": ["train-4"],
            "text": [json.dumps({"pairs": [{"prompt": "new", "response": "r"}]})],
            "failure": [None],
            "detail": [""],
        }
    )

    rows = parse_pairs(replies, coverage(9), NO_READY_PAIRS, so_far(3), parameters())

    (row,) = ParsedPairs.validate(rows).to_dict("records")
    assert (row["id"], row["seed_id"], row["category"]) == ("i003-00001", "train-4", "b")


def test_each_iteration_takes_the_next_slice_of_the_ready_pairs():
    ready = pd.DataFrame({"prompt": [f"p{n}" for n in range(45)], "response": "r"})
    slices = [
        list(
            parse_pairs(
                pd.DataFrame(),
                coverage(3),
                ReadyPairs.validate(ready),
                so_far(n),
                parameters(),
            )["prompt"]
        )
        for n in (1, 2, 3, 4)
    ]

    assert slices[0] == []
    assert slices[1] == [f"p{n}" for n in range(20)]
    assert slices[2] == [f"p{n}" for n in range(20, 40)]
    assert slices[3] == [f"p{n}" for n in range(40, 45)]


def test_each_drop_carries_its_reason():
    rows = parsed(
        "alpha beta gamma delta",
        "",
        "broken",
        "the seed is something else now",
        "reserved one two three",
        "alpha beta gamma delta epsilon",
        "old words already known here",
        unreadable=["", "", "no list of pairs", "", "", "", ""],
    )

    assert screened(rows, known=["old words already known"]) == [
        "",
        "empty",
        "schema",
        "copy_of_seed",
        "near_copy_of_test",
        "near_duplicate",
        "near_duplicate",
    ]


def test_a_copy_of_a_dropped_row_is_judged_on_its_own():
    rows = parsed("reserved one two three", "fresh words of its own", "fresh words of its own!")

    assert screened(rows) == ["near_copy_of_test", "", "near_duplicate"]


def test_case_and_punctuation_hide_no_copy_of_a_test_prompt():
    assert screened(parsed("RESERVED, one... two -- three!")) == ["near_copy_of_test"]


def test_an_instruction_that_all_prompts_share_makes_no_duplicates():
    instruction = "Please sort the following ticket into one of the eight known categories:"
    test = [f"{instruction} my parcel is late", f"{instruction} where can I pay"]

    assert screened(parsed(f"{instruction} router blinks red"), test=test) == [""]


@pytest.mark.parametrize(
    ("text", "copy"),
    [
        ("배송이 언제 도착하나요 알려주세요", "배송이 언제 도착하나요 알려주세요!"),
        ("我的包裹什么时候到请告诉我", "我的包裹什么时候能到请告诉我?"),
        ("พัสดุของฉันจะมาถึงเมื่อไหร่", "พัสดุของฉันจะมาถึงเมื่อไหร่ครับ"),
        ("أين طردي الذي طلبته أمس", "أين طردي الذي طلبته أمس؟"),
    ],
    ids=["korean", "chinese", "thai", "arabic"],
)
def test_near_copies_are_found_in_every_script(text, copy):
    assert screened(parsed(copy), test=[text, "something else entirely"]) == ["near_copy_of_test"]


def test_the_similarity_is_rouge_l():
    rng = np.random.default_rng(3)
    texts = [" ".join(rng.choice(list("abcdefgh"), size=rng.integers(3, 12))) for _ in range(20)]
    tokenizer = Tokenizer(texts)
    lists = [tokenizer.tokens(text) for text in texts]

    for a, b in product(lists, lists):
        f1 = 2 * LCSseq.similarity(a, b) / (len(a) + len(b))
        assert similarity(a, b) == pytest.approx(f1)


def test_the_training_set_accumulates_and_replaces_nothing():
    first = extend_training_set(
        ScreenedPairs.empty(), None, coverage(3), IterationParameters(index=1)
    )
    rows = parsed("new one", "dropped one").drop(columns=["unreadable", "seed_prompt"])

    second = extend_training_set(
        rows.assign(dropped=["", "empty"]), first, coverage(3), IterationParameters(index=2)
    )

    TrainingSet.validate(second)
    pd.testing.assert_frame_equal(second.head(3), first)
    assert list(second["prompt"].tail(1)) == ["new one"]
    assert list(second["iteration"]) == [1, 1, 1, 2]
    assert list(second["source"]) == ["coverage"] * 3 + ["synthetic"]


def test_the_report_counts_each_reason():
    rows = parsed("a", "b", "c").assign(dropped=["", "empty", "empty"])
    replies = pd.DataFrame(
        {
            "failure": [None, "over budget"],
            "prompt_tokens": [10, 0],
            "completion_tokens": [5, 0],
            "model": ["gpt", None],
        }
    )

    report = report_synthesis(rows, replies, so_far(3), parameters())

    assert (report["iteration"], report["asked_so_far"], report["requests_so_far"]) == (3, 40, 5)
    assert (report["asked"], report["kept"], report["dropped"]) == (20, 1, {"empty": 2})
    assert (report["requests"], report["failed_requests"], report["over_budget"]) == (2, 1, 1)
    assert report["teacher"] == ["gpt"]
