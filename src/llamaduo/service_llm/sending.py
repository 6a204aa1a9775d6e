"""Sending many requests to one endpoint: retries, limits, budget, journal."""

from __future__ import annotations

import asyncio
import json
import logging
import random
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import aiohttp
import httpx2
import openai
from aiolimiter import AsyncLimiter
from tenacity import (
    AsyncRetrying,
    RetryCallState,
    retry_if_exception,
    wait_exponential_jitter,
)

from llamaduo.interruption import GRACE_S, ended_by
from llamaduo.service_llm.answers import Reply, read_reply
from llamaduo.service_llm.budget import Budget, Cost, Price, Rates
from llamaduo.service_llm.endpoints import Limits
from llamaduo.service_llm.failures import (
    MORE_ATTEMPTS,
    NO_CONNECTION,
    FailedAttempt,
    Failure,
    Retry,
    failed_by_status,
)
from llamaduo.service_llm.journal import ANSWERED, JournalWriter, Received, Sent

logger = logging.getLogger(__name__)

NO_KEY = "none"
"""Sent to endpoints that need no key."""
COOL_DOWN_S = 1.0
"""After a rate limit that names no time."""
SHORTEST_WAIT_S = 0.5
"""Though an endpoint asks for less."""
SHORTEST_ATTEMPT_S = 1.0
"""Though a queue has used up the deadline."""
OVERHEAD_TOKENS = 16
"""At most, that a chat template adds to a message."""

_cool_until: dict[str, float] = {}
"""URL: when its cool-down ends, seconds of the monotonic clock; it outlasts a job."""
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

    def begin(self) -> None:
        """It is about to be sent."""
        self.began = self.began or time.monotonic()

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
        self._allowed = float(limits.concurrency)
        self._under_way = 0
        self._one_ended = asyncio.Event()
        self._nothing_under_way = asyncio.Event()
        self._nothing_under_way.set()
        self._fatal: FailedAttempt | None = None
        self._requests = _per_minute(limits.requests_per_minute)
        self._tokens = _per_minute(limits.tokens_per_minute)

    async def run(self, requests: Iterator[Pending]) -> int | None:
        """Send all of them, unless SIGINT or SIGTERM comes.

        A signal, or an error in a worker, ends the sending; what arrives within a grace time is
        kept in the journal.

        Returns:
            The signal that the caller must raise anew, now that nothing is under way.
        """
        with _signals_to(self._hush) as caught:
            tasks = [
                asyncio.create_task(self._work(requests)) for _ in range(self._limits.concurrency)
            ]
            workers = asyncio.gather(*tasks)
            hushed = asyncio.create_task(self._hush.wait())
            try:
                ends: set[asyncio.Future[Any]] = {workers, hushed}
                await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
                if not workers.done() or workers.exception():
                    await self._end_quietly()
            finally:
                for task in (*tasks, hushed):
                    task.cancel()
                await asyncio.gather(*tasks, hushed, return_exceptions=True)
            if workers.done() and not workers.cancelled() and not caught:
                workers.result()
        return caught[0] if caught else None

    async def _end_quietly(self) -> None:
        self._hush.set()
        if self._under_way:
            logger.warning("waiting up to %g s for %d answers", GRACE_S, self._under_way)
        with suppress(TimeoutError):
            await asyncio.wait_for(self._nothing_under_way.wait(), GRACE_S)

    async def _work(self, requests: Iterator[Pending]) -> None:
        for pending in requests:
            if self._hush.is_set():
                return
            self._deliver(pending.key, await self._reply(pending))

    async def _reply(self, pending: Pending) -> Reply:
        retrying = AsyncRetrying(
            retry=retry_if_exception(_is_tried_again),
            stop=lambda state: self._is_given_up(pending, state.upcoming_sleep),
            wait=_wait,
            sleep=self._pause,
            reraise=True,
        )
        try:
            return await retrying(self._attempt, pending)
        except FailedAttempt as failed:
            detail = failed.detail
            if failed.retry is Retry.AGAIN:
                detail = f"{detail} ({self._patience(failed, pending)})"
            return Reply(None, failed.failure, detail, failed.retry)

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
            await self._wait_for_leave(sum(estimate))
            with self._one_more_under_way():
                cost = self._cost(*estimate)
                row = await self._writer.sending(self._sent(pending, estimate))
                outcome, tokens = await self._ask(pending, row)
                cost = self._cost(*(tokens or estimate))
        finally:
            self._budget.settle(most, cost)
        if tokens and sum(tokens):
            self._rates.learn(pending.prompt_bytes, pending.expected_tokens, tokens)
        if isinstance(outcome, Reply):
            self._allowed = min(self._limits.concurrency, self._allowed + 1 / self._allowed)
            return outcome
        self._consider(outcome, pending)
        raise outcome

    async def _ask(
        self, pending: Pending, row: int
    ) -> tuple[Reply | FailedAttempt, tuple[int, int] | None]:
        """Send and enter what came back: the outcome, and the tokens that the endpoint counted."""
        status, body, outcome = await self._exchange(pending)
        if isinstance(outcome, Reply):
            counted = (outcome.prompt_tokens, outcome.completion_tokens)
            tokens, name = (counted if counted[0] else None), ANSWERED
        else:
            tokens, name = outcome.tokens, outcome.failure.value
        usd = self._cost(*tokens).usd if tokens and self._payer.price else None
        await self._writer.received(row, Received(status, body, name, tokens, usd))
        return outcome, tokens

    async def _exchange(
        self, pending: Pending
    ) -> tuple[int | None, str | None, Reply | FailedAttempt]:
        """One HTTP request: status, body, and the reply or what is wrong with it."""
        pending.begin()
        left = self._limits.deadline_s - pending.age_s()
        seconds = min(self._limits.timeout_s, max(left, SHORTEST_ATTEMPT_S))
        try:
            async with asyncio.timeout(seconds):  # the client's own timeout is per read
                response = await self._client.post(
                    self._url, body=pending.body, cast_to=httpx2.Response
                )
        except openai.APIStatusError as error:
            response = error.response
        except (TimeoutError, openai.APIConnectionError, httpx2.HTTPError) as error:
            return None, None, _without_answer(error, seconds)
        text = self._without_key(response.content.decode("utf-8", "backslashreplace"))
        return response.status_code, text, _outcome_of(response, text)

    def _consider(self, failed: FailedAttempt, pending: Pending) -> None:
        """Draw what follows from a failure for this request and for the others."""
        pending.attempts += not failed.is_rate_limit
        if failed.retry is Retry.FATAL:
            self._fatal = self._fatal or failed
        if failed.is_rate_limit:
            if time.monotonic() >= _cool_until.get(self._url, 0.0):
                self._allowed = max(1.0, self._allowed / 2)
            cool = COOL_DOWN_S if failed.retry_after is None else failed.retry_after
            until = time.monotonic() + cool
            _cool_until[self._url] = max(_cool_until.get(self._url, 0.0), until)
        if failed.retry in MORE_ATTEMPTS:
            pending.met[failed.failure] += 1
            if pending.met[failed.failure] > MORE_ATTEMPTS[failed.retry]:
                failed.retry = Retry.NEVER
            elif failed.failure is Failure.CUT_OFF:
                pending.body = {**pending.body, pending.limit: 2 * pending.body[pending.limit]}

    async def _wait_for_leave(self, expected_tokens: float) -> None:
        """Until the endpoint's cool-down is over and its limits allow one more request."""
        if self._requests:
            await self._requests.acquire()
        while self._tokens and expected_tokens > 0:
            part = min(expected_tokens, self._tokens.max_rate)
            await self._tokens.acquire(part)
            expected_tokens -= part
        while (rest := _cool_until.get(self._url, 0.0) - time.monotonic()) > 0:
            if rest > self._limits.deadline_s:
                self._fatal = FailedAttempt(
                    Failure.GAVE_UP,
                    f"the endpoint asked for {rest:.0f} s without requests, longer than the "
                    f"deadline of {self._limits.deadline_s:g} s",
                    Retry.FATAL,
                )
                break
            # Not all at the same instant.
            await self._pause(rest + random.uniform(0, min(rest, 1)))
        # Additive increase, multiplicative decrease: fewer at once after each rate limit.
        while self._under_way >= max(1, int(self._allowed)):
            self._one_ended.clear()
            await self._one_ended.wait()
        self._refuse_if_ended()

    def _refuse_if_ended(self) -> None:
        if self._hush.is_set():
            raise FailedAttempt(Failure.GAVE_UP, "interrupted", Retry.NEVER)
        if self._fatal:
            raise FailedAttempt(
                Failure.GAVE_UP, f"not sent, since: {self._fatal.detail}", Retry.FATAL
            )

    async def _pause(self, seconds: float) -> None:
        """Sleep, unless the sending ends."""
        try:
            async with asyncio.timeout(seconds):
                await self._hush.wait()
        except TimeoutError:
            return
        self._refuse_if_ended()

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
            self._one_ended.set()
            if not self._under_way:
                self._nothing_under_way.set()

    def _cost(self, prompt_tokens: float, completion_tokens: float) -> Cost:
        price = self._payer.price
        usd = price.of(prompt_tokens, completion_tokens) if price else 0.0
        return Cost(usd, prompt_tokens + completion_tokens, 1)

    def _without_key(self, text: str) -> str:
        """Some servers repeat the key."""
        key = self._client.api_key
        return text if key == NO_KEY else text.replace(key, "***")


def _outcome_of(response: httpx2.Response, text: str) -> Reply | FailedAttempt:
    try:
        if response.is_success:
            return read_reply(text)
        return failed_by_status(response.status_code, response.headers, text)
    except FailedAttempt as failed:
        return failed
    except Exception as error:  # the body is paid for: whatever it does to us, it is kept
        logger.debug("the error's origin", exc_info=True)
        return FailedAttempt(Failure.UNREADABLE, repr(error), Retry.ONCE)


def _is_tried_again(error: BaseException) -> bool:
    return isinstance(error, FailedAttempt) and error.retry in {Retry.AGAIN, *MORE_ATTEMPTS}


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
    # The transport calls all that aiohttp says of a connection a timeout; the cause tells it apart.
    origin = cause.__cause__ or cause
    if isinstance(origin, (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError)):
        detail = f"{NO_CONNECTION}: {cause}"
        return FailedAttempt(Failure.GAVE_UP, detail, Retry.AGAIN, tokens=(0, 0))
    is_late = isinstance(error, TimeoutError) or isinstance(cause, httpx2.ReadTimeout)
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
    loop = asyncio.get_running_loop()
    if threading.current_thread() is not threading.main_thread():
        with ended_by(lambda: loop.call_soon_threadsafe(hush.set)):
            yield caught
        return
    handlers = {each: signal.getsignal(each) for each in (signal.SIGINT, signal.SIGTERM)}
    before = {each: h for each, h in handlers.items() if h is not signal.SIG_IGN}

    def restore() -> None:
        for each, handler in before.items():
            loop.remove_signal_handler(each)
            signal.signal(each, handler)

    def on_signal(signum: int) -> None:
        caught.append(signum)
        restore()  # a second signal does not wait
        hush.set()

    for each in before:
        loop.add_signal_handler(each, on_signal, each)
    try:
        yield caught
    finally:
        if not caught:
            restore()
