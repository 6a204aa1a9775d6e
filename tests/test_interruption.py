"""Signals at moments in which Python or an event loop would lose them."""

import asyncio
import signal
import sys
import threading

import pytest

from llamaduo.interruption import InterruptedRun, SafePoint, signals_to


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
            timer = threading.Timer(0.1, signal.raise_signal, [signum])
            timer.start()
            await asyncio.wait_for(stopping.wait(), 10)
        return caught

    assert asyncio.run(send()) == [signum]


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_that_a_finalizer_swallows_comes_again(signum):
    class Finalized:
        def __del__(self):
            signal.raise_signal(signum)

    safe_point = SafePoint(threads=False, farewell=lambda: None)

    def work():
        with safe_point.watching():
            Finalized()
            threading.Event().wait(10)

    with pytest.raises(InterruptedRun) as interrupt:
        work()

    assert interrupt.value.signum == signum


def test_what_else_a_finalizer_raises_is_said_as_ever(monkeypatch):
    class Finalized:
        def __del__(self):
            raise ValueError("in vain")

    said = []
    monkeypatch.setattr(sys, "unraisablehook", lambda unraisable: said.append(unraisable.exc_type))
    with SafePoint(threads=False, farewell=lambda: None).watching():
        Finalized()

    assert said == [ValueError]
