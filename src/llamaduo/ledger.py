"""The ledger: what the loops have committed.

One small file per event, written whole and never rewritten, so that a crash leaves either an event
or nothing:

    <ledger>/<loop>/opened.json                        parameters, versions, inputs
    <ledger>/<loop>/resumed-<time>.json                one per resume, and per attached slice
    <ledger>/<loop>/i001/opened.json
    <ledger>/<loop>/i001/committed/<dataset>.json      the dataset's version is complete
    <ledger>/<loop>/i001/verdict.json                  the iteration is complete
    <ledger>/<loop>/i001/pruned.json                   what it made is removed, or about to be
    <ledger>/<loop>/closed.json                        the reason for which the loop ended

Kedro's saves are not atomic, and its latest version is the last folder name in text order, so
nothing counts as made before its commit stands here. The folder may be one on object storage.
"""

import glob
import json
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path, PurePosixPath
from typing import Any, NoReturn

import filelock
import fsspec
from kedro.io import AbstractDataset, DatasetError

from llamaduo.files import make_folder, on_this_machine, write_whole


class LoopBusyError(Exception):
    """Another process holds the data root."""


class UnknownLoopError(Exception):
    """The loop to go on with is not in the ledger, or has ended."""


class Ledger:
    """Events under one folder.

    Args:
        folder: A path or an URL that fsspec knows, such as ``s3://bucket/ledger``; created at the
            first event.
        lock: Folder on this machine where whoever holds the data is entered; by default the same.
    """

    def __init__(self, folder: Path | str, lock: Path | None = None) -> None:
        self.folder = folder
        # Another process may have written since; its events are listed anew each time.
        self._files, self._root = fsspec.url_to_fs(str(folder), use_listings_cache=False)
        self._lock = lock or on_this_machine(str(folder), "the lock of the data")

    def append(self, event: str, facts: dict[str, Any]) -> None:
        """Write one event durably, with its time (UTC) as ``at``.

        Args:
            event: Path below the ledger, without ending, such as ``<loop>/i001/verdict``.
            facts: JSON-serialisable.
        """
        stamped = {"at": datetime.now(UTC).isoformat(), **facts}
        text = json.dumps(stamped, ensure_ascii=False, indent=1, sort_keys=True)
        write_whole(self._files, self._path(event), text.encode())

    def read(self, event: str) -> dict[str, Any] | None:
        """The facts of an event, None where it has not happened."""
        try:
            facts: dict[str, Any] = json.loads(self._files.cat_file(self._path(event)))
        except FileNotFoundError:
            return None
        return facts

    def loops(self) -> list[str]:
        """Names of all loops, the oldest first."""
        return sorted(path.parent.name for path in self._events("*/opened"))

    def open_loops(self) -> list[str]:
        """Names of the loops that have not ended, the oldest first."""
        return [name for name in self.loops() if not self.read(f"{name}/closed")]

    def unfinished(self, loop: str | None = None) -> str:
        """The loop to go on with: the one named, or the latest that is not closed.

        Raises:
            UnknownLoopError: There is no such loop, or it has ended.
        """
        open_loops = self.open_loops()
        if loop is None:
            if open_loops:
                return open_loops[-1]
            raise UnknownLoopError(
                f"no unfinished loop in {self.folder}; start a new one with: kedro run"
            )
        if loop in open_loops:
            return loop
        closed = self.read(f"{loop}/closed")
        if closed:
            raise UnknownLoopError(
                f"loop {loop} has ended ({closed['reason']}); start a new one with: kedro run"
            )
        raise UnknownLoopError(
            f"no loop {loop} in {self.folder}; unfinished: {', '.join(open_loops) or 'none'}"
        )

    def starts(self, loop: str) -> list[dict[str, Any]]:
        """The facts of a loop's beginning and of each resume, in the order of time."""
        events = [path for path in self._events(f"{loop}/*") if path.stem != "closed"]
        found = [json.loads(self._files.cat_file(str(path))) for path in events]
        return sorted(found, key=lambda facts: str(facts["at"]))

    def start_of(self, loop: str, iteration: int) -> dict[str, Any]:
        """The facts of the loop's beginning, or of the resume in which an iteration began."""
        began = (self.read(f"{place(loop, iteration)}/opened") or {}).get("at", "")
        first, *resumes = self.starts(loop)
        return [first, *(each for each in resumes if each["at"] <= began)][-1]

    def is_pruned(self, loop: str, iteration: int) -> bool:
        """Whether what an iteration made has been removed, or was about to be."""
        return self.read(f"{place(loop, iteration)}/pruned") is not None

    def committed(self, loop: str, iteration: int) -> set[str]:
        """Names of the datasets that an iteration has committed; none of one that is pruned."""
        if self.is_pruned(loop, iteration):
            return set()
        return {path.stem for path in self._events(f"{place(loop, iteration)}/committed/*")}

    def verdicts(self, loop: str) -> dict[int, dict[str, Any]]:
        """Iteration: verdict, for the complete iterations of a loop."""
        found = sorted(self._events(f"{loop}/i*/verdict"))
        return {
            int(path.parent.name[1:]): json.loads(self._files.cat_file(str(path))) for path in found
        }

    def last_complete(self) -> tuple[str, int] | None:
        """Loop and iteration of the iteration that was completed last, pruned ones left out."""
        complete = [
            (verdict["at"], loop, iteration)
            for loop in self.loops()
            for iteration, verdict in self.verdicts(loop).items()
            if not self.is_pruned(loop, iteration)
        ]
        return max(complete)[1:] if complete else None

    @contextmanager
    def held(self, holder: str) -> Iterator[None]:
        """Hold the data root, against the processes of this machine.

        Args:
            holder: Who others are told is running, such as ``loop <name>``.

        Raises:
            LoopBusyError: Another process holds it; the message names it.
        """
        make_folder(self._lock)
        lock = filelock.FileLock(self._lock / "lock", mode=0o600)
        here = Ledger(self._lock)
        try:
            lock.acquire(timeout=0)
        except filelock.Timeout:
            who = here.read("holder") or {"holder": "another process", "pid": "?", "host": "?"}
            raise LoopBusyError(
                f"{who['holder']} is running on this data (process {who['pid']} on "
                f"{who['host']}); wait for it, stop it, or use another data root"
            ) from None
        try:
            facts = {"holder": holder, "pid": os.getpid(), "host": socket.gethostname()}
            here.append("holder", facts)
            yield
        finally:
            (self._lock / "holder.json").unlink(missing_ok=True)
            lock.release()

    def _path(self, event: str) -> str:
        return f"{self._root}/{event}.json"

    def _events(self, pattern: str) -> list[PurePosixPath]:
        found = self._files.glob(f"{glob.escape(self._root)}/{pattern}.json")
        return [PurePosixPath(path) for path in found]


def ledgers_below(root: Path) -> list[Ledger]:
    """The ledgers in a folder and its subfolders, those of other environments among them."""
    return [Ledger(each) for each in {path.parents[1] for path in root.rglob("[!i]*/opened.json")}]


def version(loop: str, iteration: int) -> str:
    """Name of the version folders of an iteration; iteration 0 never exists."""
    return f"{loop}-i{iteration:03d}"


def one_back(name: str) -> str:
    """The version before an iteration's; that of a slice stays, nothing tells what was before."""
    loop, separator, iteration = name.rpartition("-i")
    return version(loop, int(iteration) - 1) if separator else name


def is_before_first(name: str) -> bool:
    """Whether a version is that of iteration 0, which never exists."""
    return name.endswith("-i000")


def place(loop: str, iteration: int) -> str:
    """Where an iteration's events stand below the ledger."""
    return f"{loop}/i{iteration:03d}"


class LedgerDataset(AbstractDataset[NoReturn, Ledger]):
    """The ledger as a catalog entry.

    ```yaml
    ledger:
      type: llamaduo.ledger.LedgerDataset
      filepath: data/ledger
    ```

    ```yaml
    ledger:
      type: llamaduo.ledger.LedgerDataset
      filepath: s3://bucket/llamaduo/ledger
      lock: {filepath: data/ledger}
    ```

    Args:
        filepath: A folder, also on object storage.
        lock: ``filepath`` of a folder on this machine, where whoever holds the data is entered; by
            default the ledger's own.
    """

    def __init__(
        self,
        *,
        filepath: str,
        lock: dict[str, str] | None = None,
        metadata: dict[str, Any] | None = None,
    ) -> None:
        self._filepath = filepath
        self._lock = on_this_machine(lock["filepath"] if lock else filepath, "the lock of the data")
        self.metadata = metadata

    def load(self) -> Ledger:
        """The ledger; its folder need not exist yet.

        Raises:
            DatasetError: It is on object storage, which cannot be reached or refuses.
        """
        self._exists()
        return Ledger(self._filepath, self._lock)

    def save(self, data: NoReturn) -> NoReturn:
        """The ledger is written by the runner alone."""
        raise DatasetError("the ledger takes events, it cannot be saved as a whole")

    def _exists(self) -> bool:
        files, path = fsspec.url_to_fs(self._filepath, use_listings_cache=False)
        return bool(files.exists(path))

    def _describe(self) -> dict[str, Any]:
        return {"filepath": self._filepath}
