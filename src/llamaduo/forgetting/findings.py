"""What holds something of a person, and what is done about it."""

import os
import stat
from pathlib import Path
from typing import NamedTuple

from llamaduo.datasets import AdapterDataset
from llamaduo.files import replacing
from llamaduo.forgetting.matcher import RowMatcher, identify
from llamaduo.forgetting.places import Places, is_within
from llamaduo.forgetting.tables import UNREADABLE, is_table, read_table
from llamaduo.forgetting.wanted import Wanted, is_text
from llamaduo.service_llm.journal import Journal, is_journal

MARKER = AdapterDataset.marker
PACKED = {".gz", ".zip", ".xz", ".bz2", ".zst", ".7z", ".xlsx", ".docx", ".pdf"}
"""Endings of files whose bytes do not show what they hold."""
BESIDE_JOURNAL = ("-wal", "-shm")
"""Endings of the files that SQLite keeps; they go with the journal's."""
REPLIES = ("replies", "judgements", "responses")
"""Endings of the names of tables whose rows may be known by their id alone."""
LARGEST = 2**28
"""Bytes of a file that is read whole, but for tables."""


class Findings(NamedTuple):
    """The files that hold something of a person, or may do so."""

    matcher: RowMatcher
    journals: dict[Path, int]
    """All, with the number of attempts that hold a text."""
    whole: list[Path]
    """Reports that were made from such rows."""
    rows: dict[Path, int]
    """Number of such rows in a table, in the order in which they are removed."""
    left: dict[Path, str]
    """What a person has to look at, and why."""
    adapters: list[Path]
    """Folders of those that have seen the rows: trained on them, or gone on from one that was, and
    of whole models that were made from such."""

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing to remove."""
        return not (self.whole or self.rows or any(self.journals.values()))

    def remove(self) -> None:
        """Remove what is found; after an interruption another search finds the rest."""
        for journal in self.journals:  # an interrupted removal may have left bytes in any of them
            Journal(journal).forget(self.matcher.wanted.is_in)
        for report in self.whole:
            report.resolve().unlink()
        for table in self.rows:
            rest, _ = rest_of(table, self.matcher)
            with replacing(table.resolve(), stat.S_IMODE(table.stat().st_mode)) as file:
                file.write(rest)


def find(places: Places, wanted: Wanted) -> Findings:
    """Look at every file."""
    files = places.files()
    matcher, left = identify(files, places, wanted)
    found = Findings(matcher, {}, [], {}, left, [])
    for path in files:
        try:
            _look_into(path, places, found)
        except OSError as error:
            left[path] = f"it cannot be read ({error.strerror})"
        if wanted.is_in(os.path.relpath(path)):
            left.setdefault(path, "its path holds the text")
    versions = [table.parent.name for table in found.rows if table.name in places.training_sets]
    every = [path.parent for path in files if path.name == MARKER]
    every += [each for root in sorted(places.models) for each in root.glob(f"*/{root.name}")]
    adapters = [each for each in every if _may_have_seen(each, versions)]

    def turn(table: Path) -> tuple[bool, bool, bool]:
        """Replies are known by what they answer, adapters by training sets, all by the inputs."""
        is_training_set = table.name in places.training_sets
        return not places.is_made(table), is_training_set, not table.stem.endswith(REPLIES)

    rows = {table: found.rows[table] for table in sorted(found.rows, key=turn)}
    return found._replace(rows=rows, adapters=adapters)


def rest_of(path: Path, matcher: RowMatcher) -> tuple[bytes, int]:
    """A table without the rows of a person, and how many these are.

    Raises:
        ValueError: It holds no table of its format, or what is no row, as its header, holds a text.
    """
    try:
        table = read_table(path)
        kept = [not matcher.matches(row, path) for row in table.rows]
        content = table.content_of(kept)
    except UNREADABLE as error:  # which may quote a row
        raise ValueError("it cannot be read as a table") from error
    for name, text in table.others.items():
        if matcher.wanted.is_in(text):
            raise ValueError(f"{name} holds the text")
    return content, kept.count(False)


def _look_into(path: Path, places: Places, found: Findings) -> None:
    """Enter a file among the findings, if it holds something."""
    wanted, left = found.matcher.wanted, found.left
    is_made, fixed = places.is_made(path), _fixed(path, places)
    if _is_beside_journal(path):
        return
    if is_journal(path):
        found.journals[path] = Journal(path).count(wanted.is_in)
    elif not fixed and is_table(path, is_made=is_made):
        try:
            if rows := rest_of(path, found.matcher)[1]:
                found.rows[path] = rows
        except ValueError as error:
            left[path] = str(error)
    elif path.suffix.lower() in PACKED:
        left[path] = "it is packed, and was not looked into"
    elif path.stat().st_size > LARGEST:
        left[path] = "it is too large, and was not looked into"
    elif wanted.is_in_bytes(content := path.read_bytes()):
        # Only a run names a folder so; a page of the user may have a report's name.
        is_version = path.parent.parent.name in places.made
        if is_made and is_version and not fixed and is_text(content):
            found.whole.append(path)
        else:
            left[path] = fixed or "it is neither a table nor a report in a version's folder"


def _fixed(path: Path, places: Places) -> str:
    """Why a file is left whatever it holds."""
    if is_within(path, [Path(ledger.folder) for ledger in places.ledgers]):
        return "the ledger is never changed"
    return "it belongs to an adapter" if (path.parent / MARKER).exists() else ""


def _is_beside_journal(path: Path) -> bool:
    journal = path.parent / path.name[: -len("-wal")]
    return path.name.endswith(BESIDE_JOURNAL) and journal.is_file() and is_journal(journal)


def _may_have_seen(adapter: Path, versions: list[str]) -> bool:
    """Whether an adapter may have been trained on one of these versions of a training set."""
    if adapter.name.startswith("checkpoint-"):  # its folder tells no version
        return bool(versions)
    return any(_follows(adapter.parent.name, version) for version in versions)


def _follows(adapter: str, version: str) -> bool:
    """Whether an adapter came after a training set's version, in its loop or in no loop.

    Versions begin with their time. After a training set ``<loop>-i002`` come the adapters
    ``<loop>-i002``, ``<loop>-i003`` and any later ``<time>`` of a part of the loop that was run
    alone: it reads the last iteration of whichever loop came before it.
    """
    loop, of = (each.rpartition("-i")[0] for each in (adapter, version))
    return adapter >= version and loop in ("", of)
