"""Sending many requests to one endpoint: workers, retries, budget and journal brought together."""

from __future__ import annotations

import asyncio
import json
import logging
import random
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import openai
from tenacity import AsyncRetrying, RetryCallState, retry_if_exception, wait_exponential_jitter

from llamaduo.interruption import GRACE_S, signals_to
from llamaduo.service_llm.answers import Reply
from llamaduo.service_llm.budget import Budget, Cost, Price, Rates
from llamaduo.service_llm.endpoints import Limits
from llamaduo.service_llm.exchange import Arrived, exchange
from llamaduo.service_llm.failures import MORE_ATTEMPTS, FailedAttempt, Failure, Retry
from llamaduo.service_llm.journal import ANSWERED, Received, Sent
from llamaduo.service_llm.journal_writer import JournalWriter
from llamaduo.service_llm.pacing import Pace

logger = logging.getLogger(__name__)

SHORTEST_WAIT_S = 0.5
"""Though an endpoint asks for less."""
SHORTEST_ATTEMPT_S = 1.0
"""Though a queue has used up the deadline."""
FEWEST_LOST = 16
WAVES_LOST = 2
"""Requests in a row that were given up, at least so many, and so many for each that may be under
way at once: then the endpoint is down, and the rest is not sent to it."""
OVERHEAD_TOKENS = 16
"""At most, that a chat template adds to a message."""

_own_wait = wait_exponential_jitter(multiplier=0.5, max=60, jitter=0.5)


@dataclass
class Pending:
    """One request to be sent."""

    key: bytes
    body: dict[str, Any]
    limit: str
    """Name of the parameter that limits the answer."""
    prompt_bytes: int
    expected_tokens: int
    attempts: int = 0
    """But for those that met a rate limit: only the deadline ends these."""
    met: Counter[Failure] = field(default_factory=Counter)
    """Failures that are worth few more attempts."""
    began: float | None = None
    """When it was first sent, seconds of the monotonic clock."""

    def age_s(self) -> float:
        """Seconds since it was first sent."""
        return time.monotonic() - self.began if self.began else 0.0

    @property
    def most_tokens(self) -> tuple[int, int]:
        """Prompt and completion: no tokenizer makes more tokens than bytes."""
        overhead = OVERHEAD_TOKENS * len(self.body["messages"])
        return self.prompt_bytes + overhead, int(self.body[self.limit])


class Payer(NamedTuple):
    """Whose requests these are, and how they are entered in the journal."""

    account: str
    endpoint: str
    model: str
    purpose: str
    price: Price | None


class Job:
    """Sends what an iterator gives, at most ``limits.concurrency`` at once.

    Args:
        read: What is read of an answer's body.
        deliver: Called with each request's reply as it comes, in any order.
    """

    def __init__(
        self,
        client: openai.AsyncOpenAI,
        writer: JournalWriter,
        payer: Payer,
        limits: Limits,
        budget: Budget,
        rates: Rates,
        read: Callable[[str], Reply],
        deliver: Callable[[bytes, Reply], None],
    ) -> None:
        self._client = client
        self._writer = writer
        self._payer = payer
        self._limits = limits
        self._budget = budget
        self._rates = rates
        self._read = read
        self._deliver = deliver
        self._url = f"{str(client.base_url).rstrip('/')}/chat/completions"
        self._stopping = asyncio.Event()
        self._pace = Pace(self._url, limits, self._stopping)
        self._fatal: FailedAttempt | None = None
        self._given_up_in_a_row = 0

    async def run(self, requests: Iterator[Pending]) -> int | None:
        """Send all of them, unless SIGINT or SIGTERM comes.

        A signal, or an error in a worker, ends the sending; what arrives within a grace time is
        kept in the journal.

        Returns:
            The signal that the caller must raise anew, now that nothing is under way.
        """
        with signals_to(self._stopping) as caught:
            tasks = [
                asyncio.create_task(self._work(requests)) for _ in range(self._limits.concurrency)
            ]
            workers = asyncio.gather(*tasks)
            stopped = asyncio.create_task(self._stopping.wait())
            try:
                ends: set[asyncio.Future[Any]] = {workers, stopped}
                await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
                if not workers.done() or workers.exception():
                    await self._end_quietly()
            finally:
                for task in (*tasks, stopped):
                    task.cancel()
                await asyncio.gather(*tasks, stopped, return_exceptions=True)
            if workers.done() and not workers.cancelled() and not caught:
                workers.result()
        return caught[0] if caught else None

    async def _end_quietly(self) -> None:
        self._stopping.set()
        if self._pace.in_flight:
            logger.warning("waiting up to %g s for %d answers", GRACE_S, self._pace.in_flight)
        with suppress(TimeoutError):
            await asyncio.wait_for(self._pace.idle.wait(), GRACE_S)

    async def _work(self, requests: Iterator[Pending]) -> None:
        for pending in requests:
            if self._stopping.is_set():
                return
            self._deliver(pending.key, await self._reply(pending))

    async def _reply(self, pending: Pending) -> Reply:
        retrying = AsyncRetrying(
            retry=retry_if_exception(_is_tried_again),
            stop=lambda state: self._is_given_up(pending, state.upcoming_sleep),
            wait=_wait,
            sleep=self._pace.pause,
            reraise=True,
        )
        try:
            reply: Reply = await retrying(self._attempt, pending)
        except FailedAttempt as failed:
            if failed.retry is Retry.FATAL:
                self._fatal = self._fatal or failed
            detail = failed.detail
            if failed.retry is Retry.AGAIN:
                self._given_up_in_a_row += 1
                detail = f"{detail} ({self._patience(failed, pending)})"
            return Reply(None, failed.failure, detail, failed.retry)
        self._given_up_in_a_row = 0
        return reply

    def _is_given_up(self, pending: Pending, upcoming_wait_s: float) -> bool:
        limits = self._limits
        return (
            pending.attempts >= limits.attempts
            or pending.age_s() + upcoming_wait_s >= limits.deadline_s
        )

    def _patience(self, failed: FailedAttempt, pending: Pending) -> str:
        asked = failed.retry_after
        waits = "" if asked is None else f", asked to wait {asked:g} s"
        deadline = f"deadline {self._limits.deadline_s:g} s{waits}"
        return f"attempt {pending.attempts} of {self._limits.attempts}, {deadline}"

    async def _attempt(self, pending: Pending) -> Reply:
        self._refuse_if_ended()
        most = self._cost(*pending.most_tokens)
        if exceeded := await self._budget.reserve(most):
            raise FailedAttempt(Failure.OVER_BUDGET, exceeded, Retry.NEVER)
        estimate = self._rates.tokens(pending.prompt_bytes, pending.expected_tokens)
        cost = Cost()
        try:
            await self._pace.acquire(sum(estimate))
            self._refuse_if_ended()
            with self._pace.one_in_flight():
                cost = self._cost(*estimate)
                body = json.dumps(pending.body, ensure_ascii=False)
                row = await self._writer.sending(self._sent(pending, body, estimate))
                arrived = await exchange(
                    self._client, self._url, body, self._time(pending), self._read
                )
                cost = self._cost(*(arrived.tokens or estimate))
                answered_at = await self._writer.received(row, self._received(arrived))
        finally:
            self._budget.settle(most, cost)
        if arrived.tokens and sum(arrived.tokens):
            self._rates.learn(pending.prompt_bytes, pending.expected_tokens, arrived.tokens)
        if isinstance(arrived.outcome, Reply):
            self._pace.speed_up()
            return replace(arrived.outcome, answered_at=answered_at)
        self._consider(arrived.outcome, pending)
        raise arrived.outcome

    def _time(self, pending: Pending) -> float:
        """Seconds that the attempt may take."""
        pending.began = pending.began or time.monotonic()
        left = self._limits.deadline_s - pending.age_s()
        return min(self._limits.timeout_s, max(left, SHORTEST_ATTEMPT_S))

    def _consider(self, failed: FailedAttempt, pending: Pending) -> None:
        """Draw what follows from a failure for this request and for the pace of all."""
        if failed.is_rate_limit:
            self._pace.slow_down(failed.retry_after)
        else:
            pending.attempts += 1
        if failed.retry in MORE_ATTEMPTS:
            pending.met[failed.failure] += 1
            if pending.met[failed.failure] > MORE_ATTEMPTS[failed.retry]:
                failed.retry = Retry.NEVER
            elif failed.failure is Failure.CUT_OFF:
                pending.body = {**pending.body, pending.limit: 2 * pending.body[pending.limit]}

    def _refuse_if_ended(self) -> None:
        if self._stopping.is_set():
            raise FailedAttempt(Failure.GAVE_UP, "interrupted", Retry.NEVER)
        if self._fatal:
            raise FailedAttempt(
                Failure.GAVE_UP, f"not sent, since: {self._fatal.detail}", Retry.FATAL
            )
        if self._given_up_in_a_row >= max(FEWEST_LOST, WAVES_LOST * self._limits.concurrency):
            detail = f"not sent, since {self._given_up_in_a_row} requests in a row were given up"
            raise FailedAttempt(Failure.GAVE_UP, detail, Retry.NEVER)

    def _sent(self, pending: Pending, body: str, estimate: tuple[float, float]) -> Sent:
        price = self._payer.price
        return Sent(
            pending.key,
            self._payer.account,
            self._payer.endpoint,
            self._payer.model,
            self._payer.purpose,
            body,
            pending.prompt_bytes,
            pending.expected_tokens,
            *estimate,
            price.of(*estimate) if price else None,
        )

    def _received(self, arrived: Arrived) -> Received:
        outcome, tokens, price = arrived.outcome, arrived.tokens, self._payer.price
        name = ANSWERED if isinstance(outcome, Reply) else outcome.failure
        usd = price.of(*tokens) if price and tokens else None
        return Received(arrived.status, arrived.body, name, tokens, usd)

    def _cost(self, prompt_tokens: float, completion_tokens: float) -> Cost:
        price = self._payer.price
        usd = price.of(prompt_tokens, completion_tokens) if price else 0.0
        return Cost(usd, prompt_tokens + completion_tokens, 1)


def _is_tried_again(error: BaseException) -> bool:
    return isinstance(error, FailedAttempt) and error.retry in {Retry.AGAIN, *MORE_ATTEMPTS}


def _wait(state: RetryCallState) -> float:
    """The endpoint's own time, else one that grows."""
    error = state.outcome.exception() if state.outcome else None
    asked = error.retry_after if isinstance(error, FailedAttempt) else None
    if asked is None:
        return _own_wait(state)
    return max(asked, SHORTEST_WAIT_S) + random.uniform(0, 1)
