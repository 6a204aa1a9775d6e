"""Signals end a loop where nothing is half made."""

import logging
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

logger = logging.getLogger(__name__)


class InterruptedLoop(KeyboardInterrupt):
    """A signal ended the loop; what was committed is kept."""

    def __init__(self, signum: int) -> None:
        super().__init__(signal.Signals(signum).name)
        self.signum = signum


class SafePoint:
    """Turns SIGINT and SIGTERM into ``InterruptedLoop``, but never between a save and its commit.

    A second signal does not wait.
    """

    def __init__(self) -> None:
        self._saving = 0
        self._pending: int | None = None

    def enter_save(self) -> None:
        """A dataset is about to be saved."""
        self._saving += 1

    def leave_save(self) -> None:
        """The dataset is committed; a signal that came meanwhile takes effect now."""
        self._saving -= 1
        if self._pending is not None and not self._saving:
            raise InterruptedLoop(self._pending)

    def on_signal(self, signum: int, frame: FrameType | None) -> None:
        """The signal handler."""
        if self._saving and self._pending is None:
            self._pending = signum
            logger.warning("%s: ending after this save", signal.Signals(signum).name)
            return
        raise InterruptedLoop(signum)

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Handle the signals inside; only a main thread can."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = {s: signal.signal(s, self.on_signal) for s in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for signum, handler in before.items():
                signal.signal(signum, handler)
