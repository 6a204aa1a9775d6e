"""Which rows are a person's: by a text in them, or by the input row that they come from.

In the tables of runs, and in requests, the privacy gate has replaced what a person is found by.
"""

from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from typing import NamedTuple

from llamaduo.forgetting.places import Places, is_within
from llamaduo.forgetting.tables import Row, rows_of, text_of
from llamaduo.forgetting.wanted import Passage, Wanted, is_quoted, passage_of, words_of
from llamaduo.service_llm.privacy import PrivacyGate

SHARED_IDS = "rows that go share ids with others, so that nothing is known to be made from them"
QUOTED = (
    "rows hold all the words of a prompt that goes, and stay, as do requests and reports that "
    "quote it; name more of the person's details"
)
Rows = dict[Path, list[Row]]


class RowMatcher(NamedTuple):
    """Knows a person's rows."""

    wanted: Wanted
    """The texts, and passages of rows that hold one."""
    ids: set[tuple[str, str]]
    """Role (of ``Places``) and id of the person's rows in the inputs; version and id of the pairs
    and cases that a run made from them, since these ids are given anew by each loop."""

    def matches(self, row: Row, path: Path) -> bool:
        """Whether a row holds a text, stands for an input row that does, or was made from one.

        A response to such a row's prompt and a judgement of it go too, and its weight as a weak
        spot; other figures, as scores, do not.
        """
        is_reply = "sample" in row or "text" in row
        return (
            self.comes_from(row)
            or ("sample" in row and ("tested", _id(row)) in self.ids)
            or (is_reply and (path.parent.name, _id(row)) in self.ids)
            or self.wanted.is_in(text_of(row))
        )

    def comes_from(self, row: Row) -> bool:
        """Whether a run made a row from a person's; replies to it give its id alone."""
        role = "ready" if row.get("origin") == "ready" else "coverage"
        is_screened = "filter_version" in row and row.get("origin", role) == "coverage"
        return (
            (role, _id(row, "seed_id")) in self.ids
            or ("tested", _id(row, "prompt_id")) in self.ids
            or (is_screened and ("coverage", _id(row)) in self.ids)
            # A case by which the judge is audited; its texts are as they came.
            or ("kind" in row and self.wanted.is_in(text_of(row)))
        )


def identify(
    files: list[Path], places: Places, wanted: Wanted
) -> tuple[RowMatcher, dict[Path, str]]:
    """Find the person's rows in the user's files, and what to know them by elsewhere.

    Returns:
        The matcher; and by file what may be the person's and is not known to be.
    """
    persons, others, unknown = Rows(), Rows(), dict[Path, str]()
    for path in files:
        for row in () if places.is_made(path) else rows_of(path, is_made=False):
            rows = persons if wanted.is_in(text_of(row)) else others
            rows.setdefault(path, []).append(row)
    ids = set()
    for role, inputs in places.roles.items():
        own, taken = _ids(persons, inputs), _ids(others, inputs)
        ids |= {(role, each) for each in own - taken}
        if own & taken:
            files_of_role = (path for path in persons if is_within(path, inputs))
            unknown |= dict.fromkeys(files_of_role, SHARED_IDS)
    by_id, derived = RowMatcher(wanted, ids), Rows()
    for path in filter(places.is_made, files):
        derived[path] = [row for row in rows_of(path, is_made=True) if by_id.comes_from(row)]
    made = {(path.parent.name, _id(row)) for path in derived for row in derived[path]}
    # A screened row keeps its id, which may be another's in the test set.
    made = {(version, each) for version, each in made if each and ("coverage", each) not in ids}
    known = chain(*persons.values(), *derived.values())
    passages = dict(passage for row in known for passage in _passages(row, wanted))
    for path in (path for path in others if is_within(path, places.inputs)):
        rest = [words_of(text_of(row)) for row in others[path]]
        shared = [each for each in passages if any(is_quoted(each, words) for words in rest)]
        if "prompt" in [passages.pop(each) for each in shared]:
            unknown[path] = QUOTED
    return RowMatcher(Wanted(wanted.texts, passages), ids | made), unknown


def _ids(rows: Rows, inputs: set[Path]) -> set[str]:
    return {_id(row) for path in rows if is_within(path, inputs) for row in rows[path]} - {""}


def _id(row: Row, column: str = "id") -> str:
    """An id without leading zeros, which are lost where a dataset reads it as a number."""
    value = row.get(column)
    return "" if value in (None, "") else str(value).lstrip("0") or "0"


def _passages(row: Row, wanted: Wanted) -> Iterator[tuple[Passage, str]]:
    """Of the prompt, and of each value that holds a text; with the column."""
    values = {name: value for name, value in row.items() if isinstance(value, str)}
    sendable = PrivacyGate().protect(list(values.values())).texts
    for (name, value), sent in zip(values.items(), sendable, strict=True):
        is_known = name == "prompt" or wanted.is_in(value)
        if is_known and (passage := passage_of(value, sent)):
            yield passage, name
