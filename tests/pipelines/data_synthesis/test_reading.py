import json

import pandas as pd
import pytest

from llamaduo.pipelines.data_synthesis.reading import parse_pairs, read_pairs
from llamaduo.schemas import ParsedPairs, ReadyPairs
from tests.pipelines.data_synthesis.tables import (
    BY_PREFERENCE,
    NO_READY_PAIRS,
    coverage,
    parameters,
    so_far,
)


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
            "teacher": ["gpt-4o"],
            "model": ["gpt-4o-2024-08-06"],
            "prompt_version": ["harder-1a2b3c4d"],
            "text": [json.dumps({"pairs": [{"prompt": "new", "response": "r"}]})],
            "failure": [None],
            "detail": [""],
        }
    )

    rows = parse_pairs(replies, coverage(9), NO_READY_PAIRS, so_far(3), None, parameters())

    (row,) = ParsedPairs.validate(rows).to_dict("records")
    assert (row["id"], row["seed_id"], row["category"]) == ("i003-00001", "train-4", "b")
    assert (row["teacher"], row["model"]) == ("gpt-4o", "gpt-4o-2024-08-06")
    assert (row["origin"], row["prompt_version"]) == ("synthetic", "harder-1a2b3c4d")


def test_each_iteration_takes_the_next_slice_of_the_ready_pairs():
    ready = pd.DataFrame({"prompt": [f"p{n}" for n in range(45)], "response": "r"})
    slices = [
        list(
            parse_pairs(
                pd.DataFrame(),
                coverage(3),
                ReadyPairs.validate(ready),
                so_far(n),
                None,
                parameters(),
            )["prompt"]
        )
        for n in (1, 2, 3, 4)
    ]

    assert slices[0] == []
    assert slices[1] == [f"p{n}" for n in range(20)]
    assert slices[2] == [f"p{n}" for n in range(20, 40)]
    assert slices[3] == [f"p{n}" for n in range(40, 45)]


def test_an_iteration_by_preference_takes_no_ready_pairs():
    ready = ReadyPairs.validate(pd.DataFrame({"prompt": ["p"], "response": "r"}))

    rows = parse_pairs(pd.DataFrame(), coverage(3), ready, so_far(2), BY_PREFERENCE, parameters())

    assert rows.empty


def test_a_ready_pair_keeps_where_it_is_from():
    own = {"id": "u1", "category": "b", "system": "s", "licence": "MIT", "source": "web"}
    ready = pd.DataFrame(
        [{**own, "prompt": "p", "response": "r"}, {"prompt": "q\0", "response": "r"}]
    )

    rows = parse_pairs(
        pd.DataFrame(), coverage(3), ReadyPairs.validate(ready), so_far(2), None, parameters()
    )

    first, second = ParsedPairs.validate(rows).to_dict("records")
    assert {**own, "id": "i002-00001", "seed_id": "u1", "origin": "ready"}.items() <= first.items()
    assert second["unreadable"] == "prompt or response is missing or no text"
    assert (second["seed_id"], second["licence"]) == ("", "")
