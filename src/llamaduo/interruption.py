"""Signals end a run where nothing is half made."""

import asyncio
import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Coroutine, Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import contextmanager
from types import FrameType
from typing import Any, TypeVar

T = TypeVar("T")

logger = logging.getLogger(__name__)


GRACE_S = 10.0
"""For what is under way and paid for when a signal comes."""
AGAIN_S = 0.1
"""Until a signal comes again whose exception Python has swallowed."""
_endings: set[Callable[[], object]] = set()


@contextmanager
def ended_by(end: Callable[[], object]) -> Iterator[None]:
    """Work in a thread that no signal reaches; ``end`` lets it come to its end."""
    _endings.add(end)
    try:
        yield
    finally:
        _endings.discard(end)


def end_threads() -> None:
    """Let all such work end, within a grace time."""
    for end in tuple(_endings):
        end()
    late = time.monotonic() + GRACE_S
    while _endings and time.monotonic() < late:
        time.sleep(0.05)


class InterruptedRun(KeyboardInterrupt):
    """A signal ended the run; what was committed is kept."""

    def __init__(self, signum: int) -> None:
        super().__init__(signal.Signals(signum).name)
        self.signum = signum


class SafePoint:
    """Turns SIGINT and SIGTERM into ``InterruptedRun``, but never between a save and its commit.

    A second signal does not wait.

    Args:
        threads: Nodes run in threads, which no exception can end; then the process ends at once.
        farewell: Called before it does.
    """

    def __init__(self, *, threads: bool, farewell: Callable[[], None]) -> None:
        self._threads = threads
        self._farewell = farewell
        self._saving: set[str] = set()
        self._pending: int | None = None

    def enter_save(self, dataset: str) -> None:
        """A dataset is about to be saved."""
        self._saving.add(dataset)

    def leave_save(self, dataset: str) -> None:
        """The dataset is committed, or its save has failed; a signal that waited takes effect."""
        self._saving.discard(dataset)
        if self._pending is not None and not self._saving:
            self._end(self._pending)

    def on_signal(self, signum: int, frame: FrameType | None) -> None:
        """The signal handler."""
        if self._saving and self._pending is None:
            self._pending = signum
            logger.warning("%s: ending after this save", signal.Signals(signum).name)
            return
        self._end(signum)

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Handle the signals inside, but for ignored ones; only a main thread can."""
        main = threading.current_thread()
        if main is not threading.main_thread():
            yield
            return
        found = {each: signal.getsignal(each) for each in (signal.SIGINT, signal.SIGTERM)}
        before = {each: h for each, h in found.items() if h is not signal.SIG_IGN}
        hook_before = sys.unraisablehook
        again: list[threading.Timer] = []

        def deliver_again(unraisable: "sys.UnraisableHookArgs") -> None:
            # Finalizers and callbacks of weak references run anywhere, and drop what they raise.
            if not isinstance(interrupt := unraisable.exc_value, InterruptedRun):
                hook_before(unraisable)
                return
            # To the main thread itself: only then is it woken from what it waits for.
            whom = (main.ident, interrupt.signum)
            again.append(threading.Timer(AGAIN_S, signal.pthread_kill, whom))
            again[-1].start()

        try:
            sys.unraisablehook = deliver_again
            for each in before:
                signal.signal(each, self.on_signal)
            yield
            for timer in again:  # its signal must not come too late
                timer.join()
        finally:
            for timer in again:
                timer.cancel()
            for each, handler in before.items():
                signal.signal(each, handler)
            sys.unraisablehook = hook_before

    def _end(self, signum: int) -> None:
        if self._threads:
            end_threads()
            self._farewell()
            logging.shutdown()
            os._exit(128 + signum)
        raise InterruptedRun(signum)


@contextmanager
def signals_to(stopping: asyncio.Event) -> Iterator[list[int]]:
    """Turn the first SIGINT or SIGTERM into an event; in a thread, ``end_threads`` sets it.

    Returns:
        The signal that came, if any; its former handler is in place again.
    """
    caught: list[int] = []
    loop = asyncio.get_running_loop()
    if threading.current_thread() is not threading.main_thread():
        with ended_by(lambda: loop.call_soon_threadsafe(stopping.set)):
            yield caught
        return
    handlers = {each: signal.getsignal(each) for each in (signal.SIGINT, signal.SIGTERM)}
    before = {each: h for each, h in handlers.items() if h is not signal.SIG_IGN}

    def restore() -> None:
        for each, handler in before.items():
            signal.signal(each, handler)

    # Not the loop's own handler, which takes effect in the next step only: there may be none.
    def on_signal(signum: int, frame: FrameType | None) -> None:
        caught.append(signum)
        restore()  # a second signal does not wait
        loop.call_soon_threadsafe(stopping.set)

    try:
        for each in before:
            signal.signal(each, on_signal)
        yield caught
    finally:
        restore()


def run_async(work: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine to its end, in a notebook too, whose event loop runs already.

    There a thread does it, and an interrupt ends it as ``signals_to`` would.
    """
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return asyncio.run(work)
    with ThreadPoolExecutor(max_workers=1) as thread:
        result = thread.submit(asyncio.run, work)
        try:
            return result.result()
        except KeyboardInterrupt:
            while not result.done():  # it may not listen yet
                end_threads()
                wait([result], 0.1)
            raise
