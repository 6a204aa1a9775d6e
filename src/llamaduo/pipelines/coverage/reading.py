"""From one row of the user's file to the fields of a pair, or to what is wrong with it."""

from collections.abc import Iterable
from math import isnan
from typing import Any, get_args

from llamaduo.parameters import Column, CoverageParameters
from llamaduo.pipelines.coverage.conversations import (
    STATUS,
    BadRow,
    Found,
    read_answered_messages,
    read_log,
    read_messages,
    read_preference,
    refuse_failed,
)
from llamaduo.service_llm.privacy import quote
from llamaduo.service_llm.text import is_blank, is_text

USUAL_NAMES = {
    "prompt": ["prompt", "instruction", "input"],
    "response": ["response", "output", "completion", "response_body"],
    "request": ["request", "request_body"],
    "licence": ["licence", "license"],
}
"""Their names for our columns; the others are called as we call them."""
INSTRUCTION = "instruction"
LAYOUTS = (
    "prompt and response, instruction and output, prompt and completion, messages, request and "
    "response of a log, or what coverage.columns names"
)
REQUIRED = ("prompt", "response")
CAN_GO = ("category", "licence", "source")
OF_ANY_LAYOUT: tuple[Column, ...] = ("id", "category", "system", "licence", "source")

Problem = tuple[str, str]
"""Field and reason; what differs from row to row stands in brackets at the reason's end."""


def read_row(
    row: dict[str, Any], coverage: CoverageParameters
) -> tuple[dict[str, str], list[Problem]]:
    """Read one row.

    Returns:
        The fields that can be used, empty where there is nothing but white space; all problems.
    """
    present = {name: value for name, value in row.items() if not _is_null(value)}
    try:
        found = _pair(present, coverage)
    except BadRow as bad:
        return {}, [(bad.field, bad.reason)]
    for ours in OF_ANY_LAYOUT:
        if column := _column(ours, present, coverage):
            found.setdefault(ours, (column, present[column]))
    fields: dict[str, str] = {}
    problems: list[Problem] = []
    for name, (place, value) in found.items():
        if problem := _problem(value, required=name in REQUIRED):
            way_out = f" (coverage.columns.{name}: null leaves it out)" if name in CAN_GO else ""
            problems.append((place, problem + way_out))
        else:
            fields[name] = "" if value is None or is_blank(str(value)) else str(value)
    fields["system"] = fields.get("system") or coverage.system
    return fields, problems


def known_names(coverage: CoverageParameters) -> set[str]:
    """The columns that are read; all others are left out."""
    names = {name for ours in get_args(Column) for name in _names(ours, coverage)}
    return names | {"preferred_output", *STATUS}


def prompt_column(columns: Iterable[str], coverage: CoverageParameters) -> str | None:
    """The one that prompts are read from, where they have one of their own."""
    return _column("prompt", dict.fromkeys(columns), coverage)


def _pair(row: dict[str, Any], coverage: CoverageParameters) -> dict[str, Found]:
    """Prompt, response and perhaps system message, unchecked, by the layout of the row."""

    def at(name: Column) -> Found | None:
        column = _column(name, row, coverage)
        return (column, row[column]) if column else None

    prompt, response = at("prompt"), at("response")
    messages, request = at("messages"), at("request")
    if coverage.columns.get("prompt") is None:
        if request and (isinstance(request[1], dict) or not prompt):
            refuse_failed(row)
            return read_log(request, response or _missing("response", coverage), coverage.turns)
        if messages and response:
            refuse_failed(row)
            return read_answered_messages(messages, response, coverage.turns)
        if messages:
            return read_messages(messages, coverage.turns)
        if "preferred_output" in row:
            output = "preferred_output", row["preferred_output"]
            return read_preference(("input", row.get("input")), output, coverage.turns)
    if not prompt and not response:
        columns = ", ".join(quote(name, 40) for name in row) or "none"
        raise BadRow("row", f"no known layout (columns are {columns}, expected {LAYOUTS})")
    return {
        "prompt": _with_input(prompt, row) if prompt else _missing("prompt", coverage),
        "response": response or _missing("response", coverage),
    }


def _with_input(prompt: Found, row: dict[str, Any]) -> Found:
    """Alpaca's instruction and its input are one prompt; so are others' prompt and input."""
    column, text = prompt
    more = row.get("input", "")
    if column not in ("prompt", "instruction") or (isinstance(more, str) and is_blank(more)):
        return prompt
    if not isinstance(more, str):
        raise BadRow("input", _no_text(more))
    if not isinstance(text, str):
        return prompt
    return column, more if is_blank(text) else f"{text}\n\n{more}"


def _missing(name: Column, coverage: CoverageParameters) -> Found:
    return coverage.columns.get(name) or name, None


def _column(name: Column, row: dict[str, Any], coverage: CoverageParameters) -> str | None:
    return next((each for each in _names(name, coverage) if each in row), None)


def _names(name: Column, coverage: CoverageParameters) -> list[str]:
    if name not in coverage.columns:
        return USUAL_NAMES.get(name, [name])
    theirs = coverage.columns[name]
    return [] if theirs is None else [theirs]


def _problem(value: Any, required: bool) -> str:
    """Why a value cannot be a field of a pair."""
    if value is None:
        return "missing or null" if required else ""
    if isinstance(value, int) and not isinstance(value, bool):
        return ""
    if not isinstance(value, str):
        return _no_text(value)
    if "\0" in value:
        return "a NUL character in it"
    if not is_text(value):
        return "bytes in it that are not UTF-8, or half of a surrogate pair"
    return "empty, or white space alone" if required and is_blank(value) else ""


def _no_text(value: Any) -> str:
    return f"no text ({type(value).__name__} {quote(value, 40)})"


def _is_null(value: Any) -> bool:
    return value is None or (isinstance(value, float) and isnan(value))
