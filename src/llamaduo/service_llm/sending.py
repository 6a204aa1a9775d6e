"""Sending many requests to one endpoint: retries, limits, budget, journal."""

from __future__ import annotations

import asyncio
import json
import random
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import httpx2
import openai
from aiolimiter import AsyncLimiter
from tenacity import (
    AsyncRetrying,
    RetryCallState,
    retry_if_exception,
    stop_before_delay,
    wait_exponential_jitter,
)

from llamaduo.service_llm.answers import Reply, read_reply
from llamaduo.service_llm.budget import Budget, Cost, Price, Rates
from llamaduo.service_llm.endpoints import Limits
from llamaduo.service_llm.failures import (
    NO_CONNECTION,
    FailedAttempt,
    Failure,
    Retry,
    failed_by_status,
)
from llamaduo.service_llm.journal import ANSWERED, JournalWriter, Received, Sent

ATTEMPTS = 8
COOL_DOWN_S = 1.0
"""After a rate limit that names no time."""
SHORTEST_WAIT_S = 0.5
"""Though an endpoint asks for less."""
GRACE_S = 10.0
"""For the answers under way when a signal comes."""
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
    retried: set[Failure] = field(default_factory=set)
    """Failures that are worth one more attempt, and had it."""

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
        deliver: Callable[[bytes, Reply], None],
    ) -> None:
        self._client = client
        self._writer = writer
        self._payer = payer
        self._limits = limits
        self._budget = budget
        self._rates = rates
        self._deliver = deliver
        # Whole, so that the client need not join it each time.
        self._url = f"{str(client.base_url).rstrip('/')}/chat/completions"
        self._hush = asyncio.Event()
        self._under_way = 0
        self._nothing_under_way = asyncio.Event()
        self._nothing_under_way.set()
        self._fatal: FailedAttempt | None = None
        self._cool_until = 0.0
        self._requests = _per_minute(limits.requests_per_minute)
        self._tokens = _per_minute(limits.tokens_per_minute)

    async def run(self, requests: Iterator[Pending]) -> int | None:
        """Send all of them, unless SIGINT or SIGTERM comes.

        A signal ends the sending; what arrives within a grace time is kept in the journal.

        Returns:
            The signal that the caller must raise anew, now that nothing is under way.
        """
        with _signals_to(self._hush) as caught:
            workers: asyncio.Future[list[None]] = asyncio.gather(
                *(self._work(requests) for _ in range(self._limits.concurrency))
            )
            hushed = asyncio.ensure_future(self._hush.wait())
            try:
                awaited: set[asyncio.Future[Any]] = {workers, hushed}
                await asyncio.wait(awaited, return_when=asyncio.FIRST_COMPLETED)
                if workers.done():
                    workers.result()
                else:
                    await asyncio.wait(
                        {asyncio.ensure_future(self._nothing_under_way.wait())}, timeout=GRACE_S
                    )
            finally:
                hushed.cancel()
                workers.cancel()
                await asyncio.wait({workers})
        return caught[0] if caught else None

    async def _work(self, requests: Iterator[Pending]) -> None:
        for pending in requests:
            if self._hush.is_set():
                return
            self._deliver(pending.key, await self._reply(pending))

    async def _reply(self, pending: Pending) -> Reply:
        is_late = stop_before_delay(self._limits.deadline_s)
        retrying = AsyncRetrying(
            retry=retry_if_exception(_is_tried_again),
            stop=lambda state: pending.attempts >= ATTEMPTS or is_late(state),
            wait=_wait,
            sleep=self._pause,
            reraise=True,
        )
        began = time.monotonic()
        try:
            return await retrying(self._attempt, pending, began)
        except FailedAttempt as failed:
            detail = failed.detail
            if failed.retry is Retry.AGAIN and failed.failure is Failure.GAVE_UP:
                detail = f"{detail} ({self._patience(failed, pending)})"
            return Reply(None, failed.failure, detail, failed.retry)

    def _patience(self, failed: FailedAttempt, pending: Pending) -> str:
        asked = failed.retry_after
        waits = "" if asked is None else f", asked to wait {asked:g} s"
        deadline = f"deadline {self._limits.deadline_s:g} s{waits}"
        return f"attempt {pending.attempts} of {ATTEMPTS}, {deadline}"

    async def _attempt(self, pending: Pending, began: float) -> Reply:
        await self._wait_for_leave(pending, began)
        most = self._cost(*pending.most_tokens)
        if exceeded := await self._budget.reserve(most):
            raise FailedAttempt(Failure.OVER_BUDGET, exceeded, Retry.NEVER)
        estimate = self._rates.tokens(pending.prompt_bytes, pending.expected_tokens)
        cost = self._cost(*estimate)
        with self._one_more_under_way():
            try:
                row = await self._writer.sending(self._sent(pending, estimate))
                outcome, tokens = await self._ask(pending, row)
                cost = self._cost(*(tokens or estimate))
            finally:
                self._budget.settle(most, cost)
        if tokens and sum(tokens):
            self._rates.learn(pending.prompt_bytes, pending.expected_tokens, tokens)
        if isinstance(outcome, Reply):
            return outcome
        self._consider(outcome, pending)
        raise outcome

    async def _ask(
        self, pending: Pending, row: int
    ) -> tuple[Reply | FailedAttempt, tuple[int, int] | None]:
        """Send and enter what came back: the outcome, and the tokens that the endpoint counted."""
        status, body, outcome = await self._exchange(pending.body)
        if isinstance(outcome, Reply):
            counted = (outcome.prompt_tokens, outcome.completion_tokens)
            tokens, name = (counted if counted[0] else None), ANSWERED
        else:
            tokens, name = outcome.tokens, outcome.failure.value
        usd = self._cost(*tokens).usd if tokens and self._payer.price else None
        await self._writer.received(row, Received(status, body, name, tokens, usd))
        return outcome, tokens

    async def _exchange(
        self, body: dict[str, Any]
    ) -> tuple[int | None, str | None, Reply | FailedAttempt]:
        """One HTTP request: status, body, and the reply or what is wrong with it."""
        seconds = self._limits.timeout_s
        try:
            async with asyncio.timeout(seconds):  # the client's own timeout is per read
                response = await self._client.post(self._url, body=body, cast_to=httpx2.Response)
        except openai.APIStatusError as error:
            text = self._without_key(error.response.text)
            return (
                error.status_code,
                text,
                failed_by_status(error.status_code, error.response.headers, text),
            )
        except (TimeoutError, openai.APIConnectionError, httpx2.HTTPError) as error:
            return None, None, _without_answer(error, seconds)
        text = response.content.decode("utf-8", "backslashreplace")
        try:
            return response.status_code, text, read_reply(text)
        except FailedAttempt as failed:
            return response.status_code, text, failed

    def _consider(self, failed: FailedAttempt, pending: Pending) -> None:
        """Draw what follows from a failure for this request and for the others."""
        pending.attempts += not failed.is_rate_limit
        if failed.retry is Retry.FATAL:
            self._fatal = self._fatal or failed
        if failed.is_rate_limit:
            cool = COOL_DOWN_S if failed.retry_after is None else failed.retry_after
            self._cool_until = max(self._cool_until, time.monotonic() + cool)
        if failed.retry is Retry.ONCE:
            if failed.failure in pending.retried:
                failed.retry = Retry.NEVER
            pending.retried.add(failed.failure)
            if failed.failure is Failure.CUT_OFF and failed.retry is Retry.ONCE:
                pending.body = {**pending.body, pending.limit: 2 * pending.body[pending.limit]}

    async def _wait_for_leave(self, pending: Pending, began: float) -> None:
        """Until the endpoint's cool-down is over and its limits allow one more request."""
        if self._requests:
            await self._requests.acquire()
        if self._tokens:
            expected = sum(self._rates.tokens(pending.prompt_bytes, pending.expected_tokens))
            await self._tokens.acquire(min(expected, self._tokens.max_rate))
        while (rest := self._cool_until - time.monotonic()) > 0:
            if time.monotonic() - began + rest > self._limits.deadline_s:
                raise FailedAttempt(
                    Failure.GAVE_UP,
                    f"the endpoint asked for {rest:.0f} s without requests, longer than what is "
                    f"left of the deadline of {self._limits.deadline_s:g} s",
                    Retry.NEVER,
                )
            # Not all at the same instant.
            await self._pause(rest + random.uniform(0, min(rest, 1)))
        if self._hush.is_set():
            raise FailedAttempt(Failure.GAVE_UP, "interrupted", Retry.NEVER)
        if self._fatal:
            raise FailedAttempt(
                Failure.GAVE_UP, f"not sent, since: {self._fatal.detail}", Retry.FATAL
            )

    async def _pause(self, seconds: float) -> None:
        """Sleep, but not through a signal."""
        try:
            async with asyncio.timeout(seconds):
                await self._hush.wait()
        except TimeoutError:
            return

    def _sent(self, pending: Pending, estimate: tuple[float, float]) -> Sent:
        price = self._payer.price
        return Sent(
            pending.key,
            self._payer.account,
            self._payer.endpoint,
            self._payer.model,
            self._payer.purpose,
            json.dumps(pending.body, ensure_ascii=False),
            pending.prompt_bytes,
            pending.expected_tokens,
            *estimate,
            price.of(*estimate) if price else None,
        )

    @contextmanager
    def _one_more_under_way(self) -> Iterator[None]:
        self._under_way += 1
        self._nothing_under_way.clear()
        try:
            yield
        finally:
            self._under_way -= 1
            if not self._under_way:
                self._nothing_under_way.set()

    def _cost(self, prompt_tokens: float, completion_tokens: float) -> Cost:
        price = self._payer.price
        usd = price.of(prompt_tokens, completion_tokens) if price else 0.0
        return Cost(usd, prompt_tokens + completion_tokens, 1)

    def _without_key(self, text: str) -> str:
        """Some servers repeat the key in their refusal."""
        return text.replace(self._client.api_key, "***")


def _is_tried_again(error: BaseException) -> bool:
    return isinstance(error, FailedAttempt) and error.retry in {Retry.AGAIN, Retry.ONCE}


def _wait(state: RetryCallState) -> float:
    """The endpoint's own time, else one that grows."""
    error = state.outcome.exception() if state.outcome else None
    asked = error.retry_after if isinstance(error, FailedAttempt) else None
    if asked is None:
        return _own_wait(state)
    return max(asked, SHORTEST_WAIT_S) + random.uniform(0, 1)


def _without_answer(error: Exception, seconds: float) -> FailedAttempt:
    """A connection that was not made has cost nothing; one that broke may have."""
    cause = error.__cause__ or error
    # The aiohttp transport calls a refused connection a timeout too.
    if isinstance(cause, (httpx2.ConnectError, httpx2.ConnectTimeout)):
        detail = f"{NO_CONNECTION}: {cause}"
        return FailedAttempt(Failure.GAVE_UP, detail, Retry.AGAIN, tokens=(0, 0))
    is_late = isinstance(error, (TimeoutError, openai.APITimeoutError))
    detail = f"no answer within {seconds:g} s" if is_late else f"connection lost: {cause}"
    return FailedAttempt(Failure.GAVE_UP, detail, Retry.AGAIN)


def _per_minute(rate: float | None) -> AsyncLimiter | None:
    """A second's worth may come at once."""
    if rate is None:
        return None
    burst = max(1.0, rate / 60)
    return AsyncLimiter(burst, 60 * burst / rate)


@contextmanager
def _signals_to(hush: asyncio.Event) -> Iterator[list[int]]:
    """Turn the first SIGINT or SIGTERM into an event; only a main thread can."""
    caught: list[int] = []
    if threading.current_thread() is not threading.main_thread():
        yield caught
        return
    loop = asyncio.get_running_loop()
    signals = (signal.SIGINT, signal.SIGTERM)
    before = {each: signal.getsignal(each) for each in signals}

    def restore() -> None:
        for each, handler in before.items():
            loop.remove_signal_handler(each)
            signal.signal(each, handler)

    def on_signal(signum: int) -> None:
        caught.append(signum)
        restore()  # a second signal does not wait
        hush.set()

    for each in signals:
        loop.add_signal_handler(each, on_signal, each)
    try:
        yield caught
    finally:
        if not caught:
            restore()
