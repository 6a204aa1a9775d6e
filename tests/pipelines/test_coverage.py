import json
import logging
import re
import shutil
from pathlib import Path

import pandas as pd
import pytest

from llamaduo.datasets import RawPairsDataset
from llamaduo.errors import InputError
from llamaduo.local_llm.base_model import BaseModelSpec
from llamaduo.parameters import CoverageParameters, FineTuningParameters
from llamaduo.pipelines.coverage.nodes import (
    check_rows,
    describe_bad_rows,
    report_coverage,
    select_pairs,
)
from llamaduo.schemas import CheckedRows
from tests.pipelines.conftest import SPLITS, different, split, warnings

REPOSITORY = Path(__file__).parents[2]
BASE_MODEL = BaseModelSpec(str(REPOSITORY / "data/06_models/random-2-layer"))
REAL_PAIRS = REPOSITORY.parent / "shared/data/gpt4o_classification.jsonl"


def raw(*rows, file="raw.jsonl"):
    lines = range(1, len(rows) + 1)
    return pd.DataFrame({"file": file, "line": lines, "row": list(rows), "problem": ""})


def checked(*rows, max_length=1024, base_model=BASE_MODEL, **coverage):
    fine_tuning = FineTuningParameters(
        start="base", learning_rate=1, epochs=1, max_length=max_length
    )
    table = rows[0] if isinstance(rows[0], pd.DataFrame) else raw(*rows)
    return check_rows(table, base_model, CoverageParameters(**coverage), fine_tuning)


def test_a_problem_of_every_row_is_said_once_for_its_file():
    rows = checked(*[{"text": "a", "label": "b"}] * 10_000)

    message = describe_bad_rows(rows)

    assert message.startswith(
        "10000 of 10000 rows cannot be used:\n  raw.jsonl: row: no known layout"
    )
    assert "in each of its 10000 rows" in message
    assert message.endswith("\nMend them and run again")
    assert message.count("\n") == 2


def test_an_instruction_that_is_said_once_goes_to_the_pairs_that_have_none():
    pair = {"prompt": "p", "response": "r"}

    rows = checked(pair, {**pair, "system": "Its own."}, system="Route it.")

    assert list(rows["system"]) == ["Route it.", "Its own."]


@pytest.mark.parametrize("prompt", ["message", "prompt"])
def test_an_instruction_that_is_left_out_is_a_warning(caplog, prompt):
    columns = {} if prompt == "prompt" else {"prompt": prompt}

    checked({prompt: "m", "response": "l", "instruction": "Route it."}, columns=columns)

    (said,) = warnings(caplog)
    assert f"the column instruction is left out, since prompts are read from {prompt}" in said


def test_an_instruction_that_is_read_and_a_column_that_is_not_wanted_are_no_warning(caplog):
    checked({"instruction": "p", "input": "", "output": "r"})
    checked({"prompt": "p", "response": "r", "licence": 5.0}, columns={"licence": None})

    assert warnings(caplog) == []


def test_a_long_list_of_bad_rows_ends_with_where_the_others_are():
    bad = [{"prompt": f"p{n}", "response": ""} for n in range(61)]
    rows = checked(*bad, {"prompt": "p", "response": "r"})

    lines = describe_bad_rows(rows).splitlines()

    assert len(lines) == 53
    assert lines[0] == "61 of 62 rows cannot be used:"
    assert lines[50] == "  raw.jsonl:50:response: empty, or white space alone"
    assert lines[51] == "  and 11 more; the catalog entry checked_rows has them all"
    assert "on_bad_rows=drop" in lines[52]


def test_a_repeated_id_is_named_with_the_first_row_that_has_it():
    row = {"key": "x", "prompt": "p", "response": "r"}

    rows = checked({**row, "key": "y"}, row, {**row, "prompt": "q"}, columns={"id": "key"})

    reason = "an id that stands twice (first in raw.jsonl:2)"
    assert list(rows["problems"]) == [[], [], [["key", reason]]]


def test_a_pair_that_does_not_fit_is_named_with_its_tokens():
    rows = checked({"prompt": "p", "response": "long " * 50}, max_length=40)

    ((field, reason),) = rows["problems"][0]
    assert field == "pair"
    assert re.search(r"fine_tuning.max_length \(\d+ tokens, at most 40 fit\)$", reason)


def test_a_pair_that_the_chat_template_refuses_is_named(tmp_path):
    without_weights = shutil.ignore_patterns("*.safetensors")
    model = shutil.copytree(BASE_MODEL.name_or_path, tmp_path / "model", ignore=without_weights)
    template = model / "chat_template.jinja"
    refusal = "{% if messages[0].role == 'system' %}{{ raise_exception('no system') }}{% endif %}"
    template.write_text(refusal + template.read_text())

    rows = checked(
        {"system": "s", "prompt": "p", "response": "r"},
        {"prompt": "p", "response": "r"},
        base_model=BaseModelSpec(str(model)),
    )

    assert "refuses a conversation of system, user: no system" in rows["problems"][0][0][1]
    assert rows["problems"][1] == []


def test_columns_that_are_left_out_are_said_once(caplog):
    caplog.set_level(logging.INFO)

    checked(*[{"prompt": "p", "response": f"r{n}", "score": n, "\ud800": 1} for n in range(9)])

    (message,) = [each.getMessage() for each in caplog.records]
    assert message == "columns that a pair does not have are left out: 'score', '\\ud800'"


def test_bad_rows_stop_the_run_unless_they_are_to_be_dropped(caplog):
    rows = checked({"prompt": "p", "response": "r"}, {"prompt": "q"})

    with pytest.raises(
        InputError, match=r"^1 of 2 rows .*\n  raw.jsonl:2:response: missing or null"
    ):
        select_pairs(rows, CoverageParameters())
    kept = select_pairs(rows, CoverageParameters(on_bad_rows="drop"))

    assert list(kept["prompt"]) == ["p"]
    assert warnings(caplog) == [
        "1 of 2 rows cannot be used and are left out: the reasons are in checked_rows"
    ]


def test_licence_and_source_are_kept():
    bare = {"prompt": "p", "response": "r"}

    pairs = select_pairs(
        checked({**bare, "license": "MIT", "source": "x"}, {**bare, "prompt": "q"}),
        CoverageParameters(),
    )

    assert list(pairs["licence"]) == ["MIT", ""]
    assert list(pairs["source"]) == ["x", ""]


def test_the_report_counts_what_came_and_what_became_of_it():
    rows = checked(
        *[{"prompt": prompt, "response": "r", "category": "a"} for prompt in different(4)],
        {"prompt": different(1)[0], "response": "r"},
        {"messages": [{"role": "user", "content": "x"}]},
        {"messages": [{"role": "system"}, {"role": "tool"}]},
        {"prompt": "", "response": "\0"},
    )
    coverage = CoverageParameters(on_bad_rows="drop", shares={"train": 2, "test": 1, "holdout": 1})

    report = report_coverage(rows, split(select_pairs(rows, coverage)), coverage)

    assert report["rows"] == 8
    assert report["bad_rows"] == 3
    assert {(each["field"], each["reason"], each["rows"]) for each in report["problems"]} == {
        ("messages[]", "ends without an answer of the assistant", 1),
        ("messages[]", "tool calls are not supported", 1),
        ("prompt", "empty, or white space alone", 1),
        ("response", "a NUL character in it", 1),
    }
    assert report["copies"] == 1
    assert report["near_duplicates"] == {"groups": 0, "pairs": 0, "largest_group": 1}
    assert report["splits"]["train"] == {
        "pairs": 2,
        "wanted": 2,
        "groups": 2,
        "categories": {"a": 2},
    }
    json.dumps(report)


@pytest.mark.skipif(not REAL_PAIRS.exists(), reason="the file is not part of the project")
def test_real_pairs_go_through_as_they_are():
    rows = checked(RawPairsDataset(filepath=str(REAL_PAIRS)).load(), max_length=4096)

    table = split(select_pairs(CheckedRows.validate(rows), CoverageParameters()))

    assert len(table) == 339
    assert (table.groupby("group")["split"].nunique() == 1).all()
    assert table["split"].value_counts()[SPLITS].tolist() == [169, 85, 85]
