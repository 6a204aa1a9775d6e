"""How fast requests go to one endpoint."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Iterator
from contextlib import contextmanager

from aiolimiter import AsyncLimiter

from llamaduo.service_llm.endpoints import Limits
from llamaduo.service_llm.failures import FailedAttempt, Failure, Retry

COOL_DOWN_S = 1.0
"""After a rate limit that names no time."""

_cool_until: dict[str, float] = {}
"""URL: when its cool-down ends, seconds of the monotonic clock; it outlasts a job."""


class Pace:
    """Lets requests go as the endpoint's limits and its own words allow.

    After each rate limit half as many are under way at once, and one more for each round that is
    answered: additive increase, multiplicative decrease.

    Args:
        url: Whose cool-down it is.
        stopping: Ends all waiting.
    """

    def __init__(self, url: str, limits: Limits, stopping: asyncio.Event) -> None:
        self.in_flight = 0
        self.idle = asyncio.Event()
        self.idle.set()
        self._one_ended = asyncio.Event()
        self._url = url
        self._stopping = stopping
        self._deadline_s = limits.deadline_s
        self._most = self._allowed = float(limits.concurrency)
        self._requests = _per_minute(limits.requests_per_minute)
        self._tokens = _per_minute(limits.tokens_per_minute)

    async def acquire(self, expected_tokens: float) -> None:
        """Until one more request may go.

        Raises:
            FailedAttempt: The endpoint asked for a longer pause than the deadline.
        """
        if self._requests:
            await self._requests.acquire()
        while self._tokens and expected_tokens > 0:
            part = min(expected_tokens, self._tokens.max_rate)
            await self._tokens.acquire(part)
            expected_tokens -= part
        while (rest := self._cool_down_s()) > 0:
            if rest > self._deadline_s:
                raise FailedAttempt(
                    Failure.GAVE_UP,
                    f"the endpoint asked for {rest:.0f} s without requests, longer than the "
                    f"deadline of {self._deadline_s:g} s",
                    Retry.FATAL,
                )
            # Not all at the same instant.
            await self.pause(rest + random.uniform(0, min(rest, 1)))
        while self.in_flight >= max(1, int(self._allowed)):
            self._one_ended.clear()
            await self._one_ended.wait()

    async def pause(self, seconds: float) -> None:
        """Sleep.

        Raises:
            FailedAttempt: The sending has ended.
        """
        try:
            async with asyncio.timeout(seconds):
                await self._stopping.wait()
        except TimeoutError:
            return
        raise FailedAttempt(Failure.GAVE_UP, "interrupted", Retry.NEVER)

    @contextmanager
    def one_in_flight(self) -> Iterator[None]:
        """Count a request while it is out."""
        self.in_flight += 1
        self.idle.clear()
        try:
            yield
        finally:
            self.in_flight -= 1
            self._one_ended.set()
            if not self.in_flight:
                self.idle.set()

    def speed_up(self) -> None:
        """A request was answered."""
        self._allowed = min(self._most, self._allowed + 1 / self._allowed)

    def slow_down(self, retry_after: float | None) -> None:
        """A rate limit was met, which may name seconds to wait."""
        if self._cool_down_s() <= 0:
            self._allowed = max(1.0, self._allowed / 2)
        until = time.monotonic() + (COOL_DOWN_S if retry_after is None else retry_after)
        _cool_until[self._url] = max(_cool_until.get(self._url, 0.0), until)

    def _cool_down_s(self) -> float:
        return _cool_until.get(self._url, 0.0) - time.monotonic()


def _per_minute(rate: float | None) -> AsyncLimiter | None:
    """A second's worth may come at once."""
    if rate is None:
        return None
    burst = max(1.0, rate / 60)
    return AsyncLimiter(burst, 60 * burst / rate)
