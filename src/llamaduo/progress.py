"""How long it still takes: a bar on a terminal, a line about every tenth elsewhere."""

from __future__ import annotations

import time
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn


class ProgressDisplay:
    """Counts steps on standard error while the context is open."""

    def __init__(self, title: str, *, quiet: bool = False) -> None:
        self._title = title
        self._quiet = quiet
        self._console = Console(stderr=True, highlight=False)
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[note]}"),
            TimeRemainingColumn(),
            TextColumn("left"),
            console=self._console,
            disable=quiet or not self._console.is_terminal,
        )
        self._task = self._bar.add_task(title, total=None, note="")
        self._start = time.perf_counter()
        self._tenth = 0

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._bar.stop()

    def show(self, done: int, total: int, note: str = "", begun_at: int = 0) -> None:
        """Say that ``done`` of ``total`` steps are finished, with a word about the last one.

        Args:
            begun_at: Steps that were finished at the beginning, and took no time.
        """
        self._bar.update(self._task, completed=done, total=total, note=note)
        tenth = 10 * done // total
        if self._quiet or self._console.is_terminal or tenth == self._tenth:
            return
        self._tenth = tenth
        seconds_left = (
            (time.perf_counter() - self._start) * (total - done) / max(1, done - begun_at)
        )
        parts = [f"{self._title} {done}/{total}", note, f"{seconds_left:.0f} s left"]
        self._console.print(", ".join(part for part in parts if part), soft_wrap=True)
