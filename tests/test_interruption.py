"""Signals at moments in which Python or an event loop would lose them."""

import asyncio
import os
import signal
import sys
import threading
import time

import pytest

from llamaduo.interruption import InterruptedRun, SafePoint, run_async, signals_to


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_after_the_last_answer_is_caught(signum):
    async def send():
        with signals_to(asyncio.Event()) as caught:
            await asyncio.sleep(0)
            signal.raise_signal(signum)
        return caught

    assert asyncio.run(send()) == [signum]


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_wakes_what_waits(signum):
    async def send():
        stopping = asyncio.Event()
        with signals_to(stopping) as caught:
            threading.Timer(0.1, os.kill, [os.getpid(), signum]).start()
            await stopping.wait()
        return caught

    began = time.monotonic()
    assert asyncio.run(asyncio.wait_for(send(), 60)) == [signum]
    assert time.monotonic() - began < 30


def test_an_interrupt_reaches_work_that_does_not_listen_yet():
    came = threading.Event()

    def on_signal(*_):
        came.set()
        raise KeyboardInterrupt

    async def work():
        os.kill(os.getpid(), signal.SIGINT)
        came.wait(60)
        stopping = asyncio.Event()
        with signals_to(stopping):
            await asyncio.wait_for(stopping.wait(), 60)

    async def cell():
        before = signal.signal(signal.SIGINT, on_signal)
        try:
            with pytest.raises(KeyboardInterrupt):
                run_async(work())
        finally:
            signal.signal(signal.SIGINT, before)

    began = time.monotonic()
    asyncio.run(cell())
    assert time.monotonic() - began < 30


class Interrupted:
    """Its finalizer meets a signal."""

    def __init__(self, signum):
        self.signum = signum

    def __del__(self):
        signal.raise_signal(self.signum)


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("waits_s", [60, 0])
def test_a_signal_that_a_finalizer_swallows_comes_again(signum, waits_s):
    safe_point = SafePoint(threads=False, farewell=lambda: None)

    def work():
        with safe_point.watching():
            Interrupted(signum)
            threading.Event().wait(waits_s)

    before = sys.unraisablehook, signal.getsignal(signum)
    began = time.monotonic()
    with pytest.raises(InterruptedRun) as interrupt:
        work()

    assert interrupt.value.signum == signum
    assert time.monotonic() - began < 30
    assert (sys.unraisablehook, signal.getsignal(signum)) == before


def test_an_ignored_signal_stays_ignored():
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with SafePoint(threads=False, farewell=lambda: None).watching():
            signal.raise_signal(signal.SIGINT)
    finally:
        signal.signal(signal.SIGINT, before)


def test_what_else_a_finalizer_raises_is_said_as_ever(monkeypatch):
    class Finalized:
        def __del__(self):
            raise ValueError("in vain")

    said = []
    monkeypatch.setattr(sys, "unraisablehook", lambda unraisable: said.append(unraisable.exc_type))
    with SafePoint(threads=False, farewell=lambda: None).watching():
        Finalized()

    assert said == [ValueError]
