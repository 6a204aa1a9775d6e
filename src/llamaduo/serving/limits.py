"""Who is let in, and when: a slot, a place in the queue, or neither."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from llamaduo.serving.errors import LIMITED, Refusal

FIRST_GUESS_S = 2.0
LONGEST_WAIT_S = 60
"""OpenAI's clients do not try again where they are told to wait for more than two minutes."""
NEWEST = 0.1
"""The newest request's weight in the mean."""


@dataclass(frozen=True)
class Limits:
    """What a server takes on at most."""

    slots: int = 16
    """Requests that are answered together."""
    queue: int = 64
    """Requests that wait for a slot."""
    context: int = 2048
    """Tokens of prompt and answer together."""
    max_tokens: int = 1024
    """Of an answer."""
    max_body: int = 2**20
    """Bytes of a request."""
    timeout_s: float = 120.0
    """From a request's first byte to the last of its answer."""
    queue_timeout_s: float = 60.0
    """Of a wait for a slot."""


class Slots:
    """With a queue of bounded length before them; first come, first served."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._free = asyncio.Semaphore(limits.slots)
        self._inside = 0
        self._mean_s = FIRST_GUESS_S

    @asynccontextmanager
    async def place(self) -> AsyncIterator[None]:
        """A slot or a place in the queue.

        Raises:
            Refusal: Both are full.
        """
        slots, queue = self._limits.slots, self._limits.queue
        if self._inside >= slots + queue:
            raise self._full(f"All {slots} slots and {queue} places in the queue are taken.")
        self._inside += 1
        try:
            yield
        finally:
            self._inside -= 1

    @asynccontextmanager
    async def slot(self) -> AsyncIterator[None]:
        """Wait for a slot, and hold it.

        Raises:
            Refusal: None came free in time.
        """
        try:
            async with asyncio.timeout(self._limits.queue_timeout_s):
                await self._free.acquire()
        except TimeoutError:
            seconds = f"{self._limits.queue_timeout_s:g}"
            raise self._full(f"No slot came free in {seconds} s.") from None
        began = time.monotonic()
        try:
            yield
        finally:
            self._free.release()
            self._mean_s += NEWEST * (time.monotonic() - began - self._mean_s)

    def _full(self, message: str) -> Refusal:
        """With the time in which each slot comes free once; clients may not wait much longer."""
        seconds = min(max(1, math.ceil(self._mean_s)), LONGEST_WAIT_S)
        return Refusal(
            429,
            f"{message} Try again in {seconds} s.",
            "rate_limit_exceeded",
            kind=LIMITED,
            headers={"Retry-After": str(seconds)},
        )
