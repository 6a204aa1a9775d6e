"""The ledger: what the loops have committed.

One small file per event, written whole and never rewritten, so that a crash leaves either an event
or nothing:

    <ledger>/<loop>/opened.json                        parameters, versions, inputs
    <ledger>/<loop>/resumed-<time>.json                one per resume
    <ledger>/<loop>/i001/opened.json
    <ledger>/<loop>/i001/committed/<dataset>.json      the dataset's version is complete
    <ledger>/<loop>/i001/verdict.json                  the iteration is complete
    <ledger>/<loop>/closed.json                        the reason for which the loop ended

Kedro's saves are not atomic, and its latest version is the last folder name in text order, so
nothing counts as made before its commit stands here.
"""

import json
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path, PurePosixPath
from typing import Any, NoReturn

import filelock
from kedro.io import AbstractDataset, DatasetError

from llamaduo.files import make_folder, replacing


class LoopBusyError(Exception):
    """Another process holds the data root."""


class UnknownLoopError(Exception):
    """The loop to go on with is not in the ledger, or has ended."""


class Ledger:
    """Events under one folder.

    Args:
        folder: Created at the first event.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def append(self, event: str, facts: dict[str, Any]) -> None:
        """Write one event durably, with its time (UTC) as ``at``.

        Args:
            event: Path below the ledger, without ending, such as ``<loop>/i001/verdict``.
            facts: JSON-serialisable.
        """
        path = self.folder / f"{event}.json"
        make_folder(path.parent)
        stamped = {"at": datetime.now(UTC).isoformat(), **facts}
        with replacing(path) as file:
            text = json.dumps(stamped, ensure_ascii=False, indent=1, sort_keys=True)
            file.write(text.encode())

    def read(self, event: str) -> dict[str, Any] | None:
        """The facts of an event, None where it has not happened."""
        path = self.folder / f"{event}.json"
        if not path.exists():
            return None
        facts: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        return facts

    def loops(self) -> list[str]:
        """Names of all loops, the oldest first."""
        return sorted(path.parent.name for path in self.folder.glob("*/opened.json"))

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

    def committed(self, loop: str, iteration: int) -> set[str]:
        """Names of the datasets that an iteration has committed."""
        return {
            path.stem for path in (self.folder / place(loop, iteration)).glob("committed/*.json")
        }

    def verdicts(self, loop: str) -> dict[int, dict[str, Any]]:
        """Iteration: verdict, for the complete iterations of a loop."""
        found = sorted((self.folder / loop).glob("i*/verdict.json"))
        return {int(p.parent.name[1:]): json.loads(p.read_text(encoding="utf-8")) for p in found}

    def last_complete(self) -> tuple[str, int] | None:
        """Loop and iteration of the iteration that was completed last."""
        complete = [
            (verdict["at"], loop, iteration)
            for loop in self.loops()
            for iteration, verdict in self.verdicts(loop).items()
        ]
        return max(complete)[1:] if complete else None

    @contextmanager
    def held(self, holder: str) -> Iterator[None]:
        """Hold the data root.

        Args:
            holder: Who others are told is running, such as ``loop <name>``.

        Raises:
            LoopBusyError: Another process holds it; the message names it.
        """
        make_folder(self.folder)
        lock = filelock.FileLock(self.folder / "lock", mode=0o600)
        try:
            lock.acquire(timeout=0)
        except filelock.Timeout:
            who = self.read("holder") or {"holder": "another process", "pid": "?", "host": "?"}
            raise LoopBusyError(
                f"{who['holder']} is running on this data (process {who['pid']} on "
                f"{who['host']}); wait for it, stop it, or use another data root"
            ) from None
        try:
            facts = {"holder": holder, "pid": os.getpid(), "host": socket.gethostname()}
            self.append("holder", facts)
            yield
        finally:
            (self.folder / "holder.json").unlink(missing_ok=True)
            lock.release()


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
    """

    def __init__(self, *, filepath: str, metadata: dict[str, Any] | None = None) -> None:
        self._filepath = PurePosixPath(filepath)
        self.metadata = metadata

    def load(self) -> Ledger:
        """The ledger; its folder need not exist yet."""
        return Ledger(Path(self._filepath))

    def save(self, data: NoReturn) -> NoReturn:
        """The ledger is written by the runner alone."""
        raise DatasetError("the ledger takes events, it cannot be saved as a whole")

    def _exists(self) -> bool:
        return Path(self._filepath).exists()

    def _describe(self) -> dict[str, Any]:
        return {"filepath": str(self._filepath)}
