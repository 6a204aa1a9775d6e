"""A process of this package that does not outlive the one that started it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import IO

_KILL_AFTER_S = 10


@dataclass(frozen=True)
class Child:
    """A process that runs, or has run."""

    process: subprocess.Popen[str]
    log: IO[str]

    def said(self) -> list[str]:
        """The lines of its standard error, once it has ended."""
        self.process.wait()
        self.log.seek(0)
        return [line.strip() for line in self.log if line.strip()]


@contextmanager
def child(module: str, *arguments: str, env: dict[str, str] | None = None) -> Iterator[Child]:
    """Run a module of ours, which calls ``end_with_the_parent``, until the block ends.

    Args:
        env: What its environment has beside that of this process.
    """
    with (
        tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace") as log,
        subprocess.Popen(  # noqa: S603  (our own interpreter and module)
            [sys.executable, "-m", module, *arguments],
            stdin=subprocess.PIPE,  # never written to: the process ends when this end closes
            stdout=subprocess.PIPE,
            stderr=log,
            env={**os.environ, **(env or {})},
            encoding="utf-8",
        ) as process,
    ):
        try:
            yield Child(process, log)
        finally:
            process.terminate()
            try:
                process.wait(_KILL_AFTER_S)
            except subprocess.TimeoutExpired:
                process.kill()


def end_with_the_parent() -> None:
    """End this process at the end of its standard input, which the parent holds open.

    Ctrl-C reaches both; the parent decides what becomes of it.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_wait_for_the_end, daemon=True).start()


def _wait_for_the_end() -> None:
    os.read(0, 1)
    os._exit(1)
