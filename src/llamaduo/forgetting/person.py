"""Which rows are a person's: by a text in them, and by the input row that they come from.

In the tables of runs, and in requests, the privacy gate has replaced what a person is found by.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from llamaduo.forgetting.places import Places, is_below
from llamaduo.forgetting.rows import Row, is_table, read_table, text_of
from llamaduo.forgetting.wanted import Wanted, words_of

UNREADABLE = (ValueError, OSError, NotImplementedError)
FEWEST_LETTERS = 20
"""Of the words by which a row is known; fewer may stand in the rows of others."""


class Person(NamedTuple):
    """Whose rows are to be forgotten."""

    wanted: Wanted
    """The texts, and the words of the input rows that hold one."""
    taught: set[str]
    """Ids of such rows in the inputs that are trained on."""
    tested: set[str]
    """Ids of such rows in those that are tested on."""

    def has(self, row: Row) -> bool:
        """Whether a row holds a text, stands for an input row that does, or was made from one.

        A response to such a row's prompt and a judgement of it go too; figures, as scores, do not.
        """
        own_id = str(row.get("id"))
        return (
            str(row.get("seed_id")) in self.taught
            or str(row.get("prompt_id")) in self.tested
            or _is_screened(row, self.taught)
            # Of a counterfactual: <id of the test pair>/<number>.
            or ("sample" in row and not {own_id, own_id.rpartition("/")[0]}.isdisjoint(self.tested))
            or self.wanted.is_in(text_of(row))
        )


def identify(places: Places, wanted: Wanted) -> Person:
    """Find the rows of the inputs that hold a text, and what to know them by elsewhere."""
    taught, tested, rows = set[str](), set[str](), list[Row]()
    others = []
    for path in filter(places.is_own, places.files()):
        for row in _rows(path, is_own=True):
            if not wanted.is_in(text_of(row)):
                others.append(words_of(text_of(row)))
                continue
            rows.append(row)
            for split, ids in ((places.taught, taught), (places.tested, tested)):
                if is_below(path, split) and row.get("id") not in (None, ""):
                    ids.add(str(row["id"]))
    if taught:  # names that were replaced are known by what stands for them
        for path in places.files():
            rows += (row for row in _rows(path, is_own=False) if _is_screened(row, taught))
    words = {words for row in rows for words in _own_words(row, wanted)}
    own = [each for each in words if not any(each in other for other in others)]
    return Person(Wanted(wanted.texts, own), taught, tested)


def _rows(path: Path, *, is_own: bool) -> list[Row]:
    """None of a file that cannot be read: the search names it."""
    if not is_table(path, is_own=is_own):
        return []
    try:
        return read_table(path).rows
    except UNREADABLE:
        return []


def _is_screened(row: Row, taught: set[str]) -> bool:
    """Whether it is a row of the coverage set as it may be sent and trained on."""
    return "filter_version" in row and str(row.get("id")) in taught


def _own_words(row: Row, wanted: Wanted) -> Iterator[str]:
    """Of the prompt, and of each value that holds a text."""
    for name, value in row.items():
        if isinstance(value, str) and (name == "prompt" or wanted.is_in(value)):
            words = words_of(value)
            if len(words) >= FEWEST_LETTERS:
                yield words
