"""From the rows of any file to pairs that can be used."""

import logging
import re
from collections import Counter
from typing import Any

import pandas as pd

from llamaduo.errors import InputError
from llamaduo.local_llm.base_model import BaseModelSpec
from llamaduo.local_llm.lengths import refuse_long_pairs
from llamaduo.parameters import CoverageParameters, FineTuningParameters
from llamaduo.pipelines.coverage.reading import (
    INSTRUCTION,
    Problem,
    known_names,
    prompt_column,
    read_row,
)
from llamaduo.schemas import PAIR
from llamaduo.service_llm.privacy import quote

logger = logging.getLogger(__name__)

MOST_LINES = 50
"""Bad rows that a message names."""
NOTHING = dict.fromkeys(["id", "category", *PAIR, "licence", "source"], "")


def check_rows(
    raw_pairs: pd.DataFrame,
    base_model: BaseModelSpec,
    coverage: CoverageParameters,
    fine_tuning: FineTuningParameters,
) -> pd.DataFrame:
    """Read each row as a pair, and find all that is wrong with it.

    Returns:
        ``CheckedRows``, one for each raw row.

    Raises:
        InputError: A column that the parameters name is nowhere in the file.
    """
    columns = {name: None for row in raw_pairs["row"] for name in row or ()}
    _refuse_unknown_columns(list(columns), coverage)
    if extra := [name for name in columns if name not in known_names(coverage)]:
        logger.info(
            "columns that a pair does not have are left out: %s",
            ", ".join(quote(name, 40) for name in extra),
        )
    if (prompt := prompt_column(columns, coverage)) != INSTRUCTION and INSTRUCTION in columns:
        logger.warning(
            "the column %s is left out, since prompts are read from %s; coverage.system takes the "
            "instruction of the task, or write both into one column",
            INSTRUCTION,
            prompt,
        )
    read = [_read(raw["row"], raw["problem"], coverage) for raw in raw_pairs.to_dict("records")]
    fields = pd.DataFrame([{**NOTHING, **each} for each, _ in read])
    numbered = pd.Series([f"row-{number}" for number in range(1, len(read) + 1)])
    fields = fields.assign(id=fields["id"].where(fields["id"] != "", numbered))
    rows = pd.concat([raw_pairs[["file", "line"]], fields], axis="columns")
    own_problems = [own for _, own in read]
    repeated = _repeated_ids(rows, own_problems, coverage.columns.get("id") or "id")
    found = [own + more for own, more in zip(own_problems, repeated, strict=True)]
    too_long = _long_pairs(rows, found, base_model, fine_tuning.max_length)
    problems = [
        [[field, " ".join(reason.split())] for field, reason in own + more]
        for own, more in zip(found, too_long, strict=True)
    ]
    return rows.assign(problems=pd.Series(problems, dtype=object))


def select_pairs(checked_rows: pd.DataFrame, coverage: CoverageParameters) -> pd.DataFrame:
    """Take the rows that can be used; a pair that stands there several times is taken once.

    Returns:
        ``CoveragePairs``.

    Raises:
        InputError: There are bad rows and they are not to be dropped, or there are no others; the
            message names file, line, field and reason of each.
    """
    is_bad = checked_rows["problems"].map(bool)
    if is_bad.all() or (is_bad.any() and coverage.on_bad_rows == "fail"):
        raise InputError(describe_bad_rows(checked_rows))
    pairs = checked_rows[~is_bad].drop_duplicates(PAIR, ignore_index=True)
    if is_bad.any():
        logger.warning(
            "%d of %d rows cannot be used and are left out: the reasons are in checked_rows",
            is_bad.sum(),
            len(is_bad),
        )
    logger.info(
        "pairs: %d; exact copies of them, left out: %d", len(pairs), (~is_bad).sum() - len(pairs)
    )
    return pairs[list(NOTHING)]


def describe_bad_rows(checked_rows: pd.DataFrame) -> str:
    """Name each bad row, or the file where all of its rows have the same problem."""
    bad = checked_rows[checked_rows["problems"].map(bool)]
    found = [
        (row["file"], row["line"], field, reason)
        for row in bad.to_dict("records")
        for field, reason in row["problems"]
    ]
    rows_of = checked_rows["file"].value_counts()
    times = Counter((file, *_kind(field, reason)) for file, _, field, reason in found)
    lines, said = [], set()
    for file, line, field, reason in found:
        kind = (file, *_kind(field, reason))
        if not 1 < times[kind] == rows_of[file]:
            lines.append(f"{file}:{line}:{field}: {reason}")
        elif kind not in said:
            lines.append(f"{file}: {field}: {reason}, in each of its {rows_of[file]} rows")
            said.add(kind)
    if (more := len(lines) - MOST_LINES) > 0:
        lines[MOST_LINES:] = [f"and {more} more; the catalog entry checked_rows has them all"]
    head = f"{len(bad)} of {len(checked_rows)} rows cannot be used:"
    advice = "\nMend them and run again"
    if len(bad) < len(checked_rows):
        advice += ", or leave them out by --params=coverage.on_bad_rows=drop"
    return "\n  ".join([head, *lines]) + advice


def take_train(split_pairs: pd.DataFrame) -> pd.DataFrame:
    """What the local LLM learns from: ``CoveragePairs``."""
    return _take(split_pairs, "train")


def take_test(split_pairs: pd.DataFrame) -> pd.DataFrame:
    """What each iteration is scored on: ``CoveragePairs``."""
    return _take(split_pairs, "test")


def take_holdout(split_pairs: pd.DataFrame) -> pd.DataFrame:
    """What confirms a reached target: ``CoveragePairs``."""
    return _take(split_pairs, "holdout")


def report_coverage(
    checked_rows: pd.DataFrame, split_pairs: pd.DataFrame, coverage: CoverageParameters
) -> dict[str, Any]:
    """Count what came, what could not be used and why, and what each split got."""
    is_bad = checked_rows["problems"].map(bool)
    problems = Counter(
        _kind(field, reason) for found in checked_rows["problems"] for field, reason in found
    )
    sizes = split_pairs["group"].value_counts()
    return {
        "rows": len(checked_rows),
        "bad_rows": int(is_bad.sum()),
        "problems": [
            {"field": field, "reason": reason, "rows": count}
            for (field, reason), count in problems.most_common()
        ],
        "copies": int((~is_bad).sum()) - len(split_pairs),
        "pairs": len(split_pairs),
        "near_duplicates": {
            "groups": int((sizes > 1).sum()),
            "pairs": int(sizes[sizes > 1].sum()),
            "largest_group": int(sizes.max()),
        },
        "splits": {
            name: _describe_split(split_pairs[split_pairs["split"] == name], wanted)
            for name, wanted in coverage.shares.of(len(split_pairs)).items()
        },
    }


def _describe_split(pairs: pd.DataFrame, wanted: float) -> dict[str, Any]:
    categories = pairs["category"].value_counts().sort_index()
    return {
        "pairs": len(pairs),
        "wanted": round(wanted),
        "groups": int(pairs["group"].nunique()),
        "categories": {str(name): int(count) for name, count in categories.items()},
    }


def _take(split_pairs: pd.DataFrame, split: str) -> pd.DataFrame:
    taken = split_pairs[split_pairs["split"] == split]
    return taken.drop(columns=["group", "split"]).reset_index(drop=True)


def _read(
    row: dict[str, Any] | None, problem: str, coverage: CoverageParameters
) -> tuple[dict[str, str], list[Problem]]:
    return ({}, [("row", problem)]) if row is None else read_row(row, coverage)


def _refuse_unknown_columns(found: list[str], coverage: CoverageParameters) -> None:
    """A column that a single row has may be optional; one that no row has is a typo."""
    unknown = [
        f"coverage.columns.{ours} is {theirs!r}, and no row has that column; there are "
        f"{', '.join(quote(name, 40) for name in found)}"
        for ours, theirs in coverage.columns.items()
        if theirs is not None and found and theirs not in found
    ]
    if unknown:
        raise InputError("\n".join(unknown))


def _repeated_ids(
    rows: pd.DataFrame, own_problems: list[list[Problem]], field: str
) -> list[list[Problem]]:
    """An id may come again with the same pair: some proxies log a request twice.

    A row that cannot be used anyway takes no id from another one.
    """
    first: dict[str, tuple[str, tuple[str, ...]]] = {}
    problems: list[list[Problem]] = []
    columns = ["file", "line", "id", *PAIR]
    places = rows[columns].itertuples(index=False, name=None)
    for (file, line, id_, *pair), own in zip(places, own_problems, strict=True):
        here = (f"{file}:{line}", tuple(pair))
        place, known = first.get(id_, here) if own else first.setdefault(id_, here)
        reason = f"an id that stands twice (first in {place})"
        problems.append([(field, reason)] if known != tuple(pair) else [])
    return problems


def _long_pairs(
    rows: pd.DataFrame, problems: list[list[Problem]], base_model: BaseModelSpec, max_length: int
) -> list[list[Problem]]:
    """What the model cannot learn, each training would leave out and only count."""
    whole = [number for number, found in enumerate(problems) if not found]
    pairs = rows.iloc[whole][PAIR].itertuples(index=False, name=None)
    refusals = refuse_long_pairs(base_model, pairs, max_length)
    reasons = {
        number: f"the base model cannot learn it with this fine_tuning.max_length ({refusal})"
        for number, refusal in zip(whole, refusals, strict=True)
        if refusal
    }
    return [[("pair", reasons[number])] if number in reasons else [] for number in range(len(rows))]


def _kind(field: str, reason: str) -> tuple[str, str]:
    """Field and reason without what differs from row to row."""
    return re.sub(r"\[\d+\]", "[]", field), reason.partition(" (")[0]
