"""What holds a wanted text, and what is done about it."""

import stat
import zlib
from enum import StrEnum
from pathlib import Path
from typing import NamedTuple

from llamaduo.datasets.adapter import MARKER
from llamaduo.files import replacing
from llamaduo.forgetting.places import Places
from llamaduo.forgetting.rows import is_table, rest_of
from llamaduo.forgetting.wanted import Wanted
from llamaduo.service_llm.journal import Journal, is_journal

UNREADABLE = (ValueError, EOFError, OSError, RecursionError, NotImplementedError, zlib.error)
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
    """A file that holds a wanted text, or may do so."""

    path: Path
    treatment: Treatment
    number: int | None = None
    """Of rows, or of a journal's attempts."""
    reason: str = ""
    """For which it is left."""
    version: str | None = None
    """Of a training set."""

    def remove(self, wanted: Wanted) -> None:
        """Do what is to be done; an interruption leaves the file as it was, or done."""
        match self.treatment:
            case Treatment.ROWS:
                mode = stat.S_IMODE(self.path.stat().st_mode)
                rest, _ = rest_of(self.path, wanted)
                with replacing(self.path.resolve(), mode) as file:
                    file.write(rest)
            case Treatment.WHOLE:
                self.path.resolve().unlink()


class Search(NamedTuple):
    """What a search has come upon."""

    findings: list[Finding]
    journals: list[Path]
    adapters: list[Path]
    """All, whatever they have seen."""

    def to_remove(self) -> list[Finding]:
        """Training sets come last: until then a search says which adapters have seen them."""
        found = [each for each in self.findings if each.treatment is not Treatment.LEFT]
        return sorted(found, key=lambda each: each.version is not None)

    def left(self) -> list[Finding]:
        """What a person has to look at."""
        return [each for each in self.findings if each.treatment is Treatment.LEFT]

    def remove(self, wanted: Wanted) -> None:
        """Do what is to be done about each finding."""
        for journal in self.journals:  # an interrupted removal may have left bytes in any of them
            Journal(journal).forget(wanted.is_in)
        for finding in self.to_remove():
            finding.remove(wanted)

    def tainted(self) -> list[Path]:
        """Adapters that have seen the rows: trained on them, or gone on from one that was."""
        taught = [each.version for each in self.findings if each.version is not None]
        return [
            adapter
            for adapter in self.adapters
            if any(_follows(adapter.parent.name, version) for version in taught)
        ]


def search(places: Places, wanted: Wanted) -> Search:
    """Look at every file."""
    findings, journals, adapters = [], [], []
    for path in places.files():
        if path.name == MARKER:
            adapters.append(path.parent)
        if path.name.endswith(BESIDE_JOURNAL):
            continue
        if is_journal(path):
            journals.append(path)
            count = Journal(path).count(wanted.is_in)
            found = Finding(path, Treatment.TEXTS, count) if count else None
        else:
            found = _finding(path, places, wanted)
        if found:
            findings.append(found)
    return Search(findings, journals, adapters)


def _finding(path: Path, places: Places, wanted: Wanted) -> Finding | None:
    reason = ""
    if places.is_in_ledger(path):
        reason = "the ledger is never changed"
    elif (path.parent / MARKER).exists():
        reason = "it belongs to an adapter"
    elif is_table(path):
        try:
            _, rows = rest_of(path, wanted)
            version = path.parent.name if path.name == places.training_set else None
            return Finding(path, Treatment.ROWS, rows, version=version) if rows else None
        except UNREADABLE as error:
            if not _is_text(path):
                return Finding(path, Treatment.LEFT, reason=f"it cannot be read ({error})")
    elif path.suffix.lower() in PACKED:
        return Finding(path, Treatment.LEFT, reason="it is packed and was not looked into")
    if not wanted.is_in_file(path):
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
