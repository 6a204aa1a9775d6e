"""What holds something of a person, and what is done about it."""

import stat
from enum import StrEnum
from pathlib import Path
from typing import NamedTuple

from llamaduo.datasets.adapter import MARKER
from llamaduo.files import replacing
from llamaduo.forgetting.person import UNREADABLE, Person, identify
from llamaduo.forgetting.places import Places
from llamaduo.forgetting.rows import is_table, read_table
from llamaduo.forgetting.wanted import Wanted
from llamaduo.ledger import version
from llamaduo.service_llm.journal import Journal, is_journal

PACKED = {".gz", ".zip", ".xz", ".bz2", ".zst", ".7z", ".xlsx", ".docx", ".pdf"}
BESIDE_JOURNAL = ("-wal", "-shm")
"""Endings of the files that SQLite keeps; they go with the journal's."""
PARTIAL = ".partial"
"""What an interrupted save leaves."""
BEGINNING = 8192
"""Bytes; without a zero among them a file is text."""


class Treatment(StrEnum):
    """What is done about a file."""

    ROWS = "rows"
    """They go."""
    TEXTS = "texts"
    """Of the journal; what they cost stays."""
    WHOLE = "whole file"
    """A report that was made from such rows."""
    LEFT = "nothing"
    """A person has to look at it."""


class Finding(NamedTuple):
    """A file that holds something of the person, or may do so."""

    path: Path
    treatment: Treatment
    number: int | None = None
    """Of rows, or of a journal's attempts."""
    reason: str = ""
    """For which it is left."""

    @property
    def version(self) -> str:
        """Of a file that an iteration or a slice has made."""
        return self.path.parent.name

    def remove(self, person: Person) -> None:
        """Do what is to be done; an interruption leaves the file as it was, or done."""
        match self.treatment:
            case Treatment.ROWS:
                mode = stat.S_IMODE(self.path.stat().st_mode)
                rest, _ = rest_of(self.path, person)
                with replacing(self.path.resolve(), mode) as file:
                    file.write(rest)
            case Treatment.WHOLE:
                self.path.resolve().unlink()


class Search(NamedTuple):
    """What a search has come upon."""

    places: Places
    person: Person
    findings: list[Finding]
    journals: list[Path]
    adapters: list[Path]
    """All, whatever they have seen."""

    def to_remove(self) -> list[Finding]:
        """Training sets and then inputs come last: by these another search finds all the rest."""
        found = [each for each in self.findings if each.treatment is not Treatment.LEFT]
        return sorted(found, key=lambda each: (self.places.is_own(each.path), self._taught(each)))

    def left(self) -> list[Finding]:
        """What a person has to look at."""
        return [each for each in self.findings if each.treatment is Treatment.LEFT]

    def remove(self) -> None:
        """Do what is to be done about each finding."""
        for journal in self.journals:  # an interrupted removal may have left bytes in any of them
            Journal(journal).forget(self.person.wanted.is_in)
        for finding in self.to_remove():
            finding.remove(self.person)

    def tainted(self) -> list[Path]:
        """Adapters that have seen the rows: trained on them, or gone on from one that was."""
        taught = [each.version for each in self.findings if self._taught(each)]
        return [
            adapter
            for adapter in self.adapters
            if any(_follows(adapter.parent.name, version) for version in taught)
        ]

    def ended(self) -> list[str]:
        """Unfinished loops that cannot go on, since a report that they read goes whole."""
        whole = [each for each in self.findings if each.treatment is Treatment.WHOLE]
        gone = {each.version for each in whole if each.path.name in self.places.carried}
        return [
            loop
            for ledger in self.places.ledgers
            for loop in ledger.open_loops()
            if version(loop, max(ledger.verdicts(loop), default=0)) in gone
        ]

    def _taught(self, finding: Finding) -> bool:
        return finding.path.name == self.places.training_set


def search(places: Places, wanted: Wanted) -> Search:
    """Look at every file."""
    person = identify(places, wanted)
    findings, journals, adapters = [], [], []
    for path in places.files():
        if path.name == MARKER:
            adapters.append(path.parent)
        if path.name.endswith(BESIDE_JOURNAL):
            continue
        if is_journal(path):
            journals.append(path)
            count = Journal(path).count(person.wanted.is_in)
            found = Finding(path, Treatment.TEXTS, count) if count else None
        else:
            found = _finding(path, places, person)
        if found:
            findings.append(found)
    return Search(places, person, findings, journals, adapters)


def rest_of(path: Path, person: Person) -> tuple[bytes, int]:
    """A table without the rows of a person, and how many these are.

    Raises:
        ValueError: It holds no table of its format, or its header is such a row (or OSError,
            NotImplementedError).
    """
    table = read_table(path)
    kept = [not person.has(row) for row in table.rows]
    return table.keep(kept), kept.count(False)


def _finding(path: Path, places: Places, person: Person) -> Finding | None:
    reason = ""
    if places.is_in_ledger(path):
        reason = "the ledger is never changed"
    elif (path.parent / MARKER).exists():
        reason = "it belongs to an adapter"
    elif is_table(path, is_own=places.is_own(path)):
        try:
            _, rows = rest_of(path, person)
            return Finding(path, Treatment.ROWS, rows) if rows else None
        except UNREADABLE as error:
            if not _is_text(path):
                return Finding(path, Treatment.LEFT, reason=f"it cannot be read ({error})")
    elif path.suffix.lower() in PACKED:
        return Finding(path, Treatment.LEFT, reason="it is packed and was not looked into")
    if not person.wanted.is_in_file(path):
        return None
    if not reason and not _is_text(path):
        reason = "it is no text"
    elif not reason and places.is_own(path) and path.suffix != PARTIAL:
        reason = "it is yours, and no table"
    return Finding(path, Treatment.LEFT if reason else Treatment.WHOLE, reason=reason)


def _is_text(path: Path) -> bool:
    with path.open("rb") as file:
        return b"\0" not in file.read(BEGINNING)


def _follows(adapter: str, version: str) -> bool:
    """Whether an adapter's version came after a training set's, in its loop or in no loop.

    Names of versions begin with their time. A part of the loop that was run alone reads the last
    iteration of whichever loop came before it.
    """
    loop, of = (each.rpartition("-i")[0] for each in (adapter, version))
    return adapter >= version and loop in ("", of)
