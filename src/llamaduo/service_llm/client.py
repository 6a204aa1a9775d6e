"""A service LLM: requests in, replies out, each paid for once."""

from __future__ import annotations

import asyncio
import json
import logging
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from math import inf
from typing import TYPE_CHECKING, Any

import pydantic

from llamaduo.progress import ProgressDisplay
from llamaduo.service_llm.answers import Reply, read_reply
from llamaduo.service_llm.budget import TOKENS_PER_BYTE, Account, Budget, Caps, Cost, Price, Rates
from llamaduo.service_llm.endpoints import Accepts, Limits
from llamaduo.service_llm.failures import (
    NO_CONNECTION,
    FailedAttempt,
    Failure,
    Retry,
    ServiceLLMError,
)
from llamaduo.service_llm.journal import Journal, request_key

if TYPE_CHECKING:
    import openai

    from llamaduo.service_llm.sending import Pending

logger = logging.getLogger(__name__)

TOKENS_PER_SECOND = 50
"""Of an answer as it is written, before there is one."""
PREFLIGHT = "preflight"
CHECK_S = 9.0
"""The preflight request may take this long."""
CONNECT_S = 5.0
SHOWN_EVERY_S = 0.1


@dataclass(frozen=True)
class Request:
    """One chat completion to ask for."""

    messages: list[dict[str, str]]
    max_tokens: int
    expected_tokens: int
    """How long the answer will about be; for the estimate, it limits nothing."""
    temperature: float | None = None
    response_schema: dict[str, Any] | None = None
    """JSON schema that the answer must follow, with its ``name``; left out where the model takes
    none, so that the prompt must ask for JSON too."""
    repeat: int = 1
    """Tells apart requests that are equal on purpose, such as M judgements."""


@dataclass(frozen=True)
class Estimate:
    """What requests will about cost, before the first is sent."""

    requests: int
    tokens: float
    usd: float | None
    """None: the price is unknown."""
    seconds: float


@dataclass(frozen=True)
class ServiceLLM:
    """A model behind an OpenAI-compatible endpoint.

    Args:
        endpoint: Name of the endpoint in the journal; its ``base_url``, but for the stand-in, whose
            port differs from run to run.
        base_url: Where requests go.
        price: None where it is unknown.
    """

    endpoint: str
    base_url: str
    model: str
    api_key: pydantic.SecretStr
    journal: Journal = field(repr=False)
    accepts: Accepts = field(default_factory=Accepts)
    limits: Limits = field(default_factory=Limits)
    price: Price | None = None

    def complete_all(
        self, requests: Sequence[Request], what: str, account: Account | None = None
    ) -> list[Reply]:
        """Ask for all completions; those in the journal are not asked for again.

        SIGINT and SIGTERM take effect when the answers under way are in the journal.

        Args:
            requests: In any number.
            what: Names the work in the progress display and in the journal.
            account: Who pays, and how much at most.

        Returns:
            One reply or named failure per request, in their order.

        Raises:
            ServiceLLMError: There is a cap in US dollars, and the price of the model is unknown.
            JournalError: The journal cannot be used.
        """
        account = account or Account()
        if problem := self.unknown_price(account.caps):
            raise ServiceLLMError(problem)
        # Equal requests are one: a repeat that is meant says so by its index.
        places: dict[bytes, list[int]] = {}
        for place, request in enumerate(requests):
            key = request_key(self.endpoint, self._body(request), request.repeat)
            places.setdefault(key, []).append(place)
        replies = [Reply(None, Failure.GAVE_UP, "interrupted", Retry.AGAIN)] * len(requests)

        def deliver(key: bytes, reply: Reply) -> None:
            for place in places[key]:
                replies[place] = reply

        unanswered = dict.fromkeys(places)
        for key, body in self.journal.answers(list(places)):
            with suppress(FailedAttempt):  # an earlier version may have been content with it
                deliver(key, read_reply(body))
                del unanswered[key]
        if unanswered:
            to_send = {key: requests[places[key][0]] for key in unanswered}
            signum = asyncio.run(self._send(to_send, what, account, len(places), deliver))
            if signum is not None:
                signal.raise_signal(signum)
                raise KeyboardInterrupt  # a handler that goes on cannot make up the replies
        return replies

    def estimate(self, requests: Iterable[Request], what: str) -> Estimate:
        """What requests will about cost, from their own texts and from what earlier ones cost."""
        each = [(self._prompt_bytes(request), request.expected_tokens) for request in requests]
        rates, seconds = self._experience(what)
        tokens = rates.tokens(sum(one[0] for one in each), sum(one[1] for one in each))
        count = len(each)
        if seconds is None:
            seconds = 1 + tokens[1] / max(count, 1) / TOKENS_PER_SECOND
        minutes = [
            seconds * count / min(self.limits.concurrency, max(count, 1)) / 60,
            count / (self.limits.requests_per_minute or inf),
            sum(tokens) / (self.limits.tokens_per_minute or inf),
        ]
        usd = self.price.of(*tokens) if self.price else None
        return Estimate(count, sum(tokens), usd, 60 * max(minutes))

    def check(self, account: Account) -> str | None:
        """Send one cheap request and wait for less than 10 seconds.

        Returns:
            None, or a sentence that says what is wrong and what to do.
        """
        limits = Limits(concurrency=1, attempts=1, timeout_s=CHECK_S, deadline_s=CHECK_S)
        hasty = replace(self, limits=limits)
        request = Request([{"role": "user", "content": "Say OK."}], 16, 1, repeat=time.time_ns())
        (reply,) = hasty.complete_all([request], PREFLIGHT, account)
        where = f"{self.model} at {self.base_url}"
        passing = reply.failure is Failure.GAVE_UP and reply.retry is Retry.AGAIN
        if passing and not reply.detail.startswith(NO_CONNECTION):
            logger.warning("%s: %s; going on, since this may pass", where, reply.detail)
            return None
        if reply.failure in {Failure.GAVE_UP, Failure.UNREADABLE}:
            return f"{where}: {reply.detail}"
        return None

    def unknown_price(self, caps: Caps) -> str | None:
        """A sentence where a cap in US dollars cannot be kept."""
        if caps.usd is None or self.price:
            return None
        return (
            f"the price of {self.model} is unknown, so that budget.usd cannot be kept: add it to "
            "the prices in conf/base/globals.yml, or cap tokens or requests instead"
        )

    async def _send(
        self,
        to_send: dict[bytes, Request],
        what: str,
        account: Account,
        total: int,
        deliver: Callable[[bytes, Reply], None],
    ) -> int | None:
        """Send what the journal has no answer to; the signal that came meanwhile, if any."""
        from llamaduo.service_llm.sending import Job, Payer

        budget = Budget(account.caps, self.journal.spent(account.name))
        if what != PREFLIGHT:
            _announce(what, self.estimate(to_send.values(), what), budget, account)
        payer = Payer(account.name, self.endpoint, self.model, what, self.price)
        rates, _ = self._experience(what)
        pending = (self._pending(key, request) for key, request in to_send.items())
        with ProgressDisplay(what, quiet=what == PREFLIGHT) as display:
            tally = _Tally(display, total, total - len(to_send), account, budget)

            def take(key: bytes, reply: Reply) -> None:
                deliver(key, reply)
                tally.count(reply)

            async with self._client() as client, self.journal.writer() as writer:
                job = Job(client, writer, payer, self.limits, budget, rates, take)
                signum = await job.run(pending)
        if what != PREFLIGHT:
            tally.say_what_was_odd(self.model)
        return signum

    def _client(self) -> openai.AsyncOpenAI:
        import httpx2
        import openai

        room = httpx2.Limits(
            max_connections=self.limits.concurrency,
            max_keepalive_connections=self.limits.concurrency,
        )
        patience = httpx2.Timeout(
            self.limits.timeout_s, connect=min(CONNECT_S, self.limits.timeout_s)
        )
        return openai.AsyncOpenAI(
            base_url=self.base_url,
            api_key=self.api_key.get_secret_value(),
            max_retries=0,  # one retry layer: the client's own would send what no journal knows of
            timeout=patience,
            http_client=openai.DefaultAioHttpClient(limits=room, timeout=patience),
        )

    def _experience(self, what: str) -> tuple[Rates, float | None]:
        known = self.journal.experience(self.endpoint, self.model, what)
        if known is None:
            return Rates(TOKENS_PER_BYTE, 1.0), None
        return Rates(known.tokens_per_byte, known.tokens_per_expected), known.seconds

    def _pending(self, key: bytes, request: Request) -> Pending:
        from llamaduo.service_llm.sending import Pending

        return Pending(
            key,
            self._body(request),
            self.accepts.token_limit,
            self._prompt_bytes(request),
            request.expected_tokens,
        )

    def _prompt_bytes(self, request: Request) -> int:
        texts = [message["content"] for message in request.messages]
        if self.accepts.json_schema and request.response_schema:
            texts.append(json.dumps(request.response_schema))
        return sum(len(text.encode("utf-8", "replace")) for text in texts)

    def _body(self, request: Request) -> dict[str, Any]:
        body: dict[str, Any] = {
            "model": self.model,
            "messages": request.messages,
            self.accepts.token_limit: request.max_tokens + self.accepts.reasoning_tokens,
        }
        if request.temperature is not None and self.accepts.temperature:
            body["temperature"] = request.temperature
        if request.response_schema is not None and self.accepts.json_schema:
            body["response_format"] = {
                "type": "json_schema",
                "json_schema": request.response_schema,
            }
        return body


def reply_columns(replies: Sequence[Reply]) -> dict[str, list[Any]]:
    """Replies as columns: text, failure, detail, model, prompt_tokens, completion_tokens.

    Raises:
        ServiceLLMError: Every request failed, or one failed in a way that stops the others. What
            has come stands in the journal, and nothing of it is asked for again.
    """
    failed = [reply for reply in replies if reply.failure]
    fatal = [reply for reply in failed if reply.retry is Retry.FATAL]
    stopping = [reply for reply in failed if reply.failure is not Failure.OVER_BUDGET]
    if fatal or (replies and len(stopping) == len(replies)):
        first = (fatal or stopping)[0]
        raise ServiceLLMError(
            f"{len(failed)} of {len(replies)} requests failed, the first with: {first.failure}, "
            f"{first.detail}. The answers that came are in the journal and are not asked for "
            "again; mend the cause and go on."
        )
    names = ("text", "failure", "detail", "model", "prompt_tokens", "completion_tokens")
    return {name: [getattr(reply, name) for reply in replies] for name in names}


class _Tally:
    """What the progress display says beside the count."""

    def __init__(
        self, display: ProgressDisplay, total: int, known: int, account: Account, budget: Budget
    ) -> None:
        self._display = display
        self._total = total
        self._known = self._done = known
        self._caps = account.caps
        self._budget = budget
        self._failures: Counter[str] = Counter()
        self._models: set[str] = set()
        self._tokens_before = budget.spent.tokens
        self._began = self._shown = time.perf_counter()

    def count(self, reply: Reply) -> None:
        """Take one more reply into account."""
        self._done += 1
        if reply.model:
            self._models.add(reply.model)
        if reply.failure:
            self._failures[f"{reply.failure}: {reply.detail}"[:200]] += 1
        now = time.perf_counter()
        if self._done == self._total or now - self._shown >= SHOWN_EVERY_S:
            self._shown = now
            self._display.show(self._done, self._total, self._note(now), begun_at=self._known)

    def say_what_was_odd(self, model: str) -> None:
        """Name each cause of failure with its count, and models that were not asked for."""
        for cause, count in self._failures.most_common(5):
            logger.warning("%d failed, %s", count, cause)
        for other in sorted(self._models):
            if model not in other and other not in model:
                logger.warning("asked for the model %s, the endpoint names %s", model, other)

    def _note(self, now: float) -> str:
        spent = self._budget.spent
        seconds = now - self._began
        parts = [
            f"{self._failures.total()} failed" if self._failures else "",
            f"{self._known} from the journal" if self._known else "",
            f"{(spent.tokens - self._tokens_before) / max(seconds, 1e-3):.0f} tokens/s",
            _of_cap("${:.2f}", spent.usd, self._caps.usd) if spent.usd else "",
            _of_cap("{:.0f} tokens", spent.tokens, self._caps.tokens) if self._caps.tokens else "",
            _of_cap("{} requests", spent.requests, self._caps.requests)
            if self._caps.requests
            else "",
        ]
        return ", ".join(part for part in parts if part)


def _of_cap(form: str, value: float, cap: float | None) -> str:
    return form.format(value) + (f" of {form.format(cap)}" if cap is not None else "")


def _announce(what: str, estimate: Estimate, budget: Budget, account: Account) -> None:
    """Say what is about to be spent."""
    money = "price unknown" if estimate.usd is None else f"${estimate.usd:.4f}"
    logger.info(
        "%s: about %d requests, %.0f tokens, %s, %.0f s; this loop has spent $%.4f",
        what,
        estimate.requests,
        estimate.tokens,
        money,
        estimate.seconds,
        budget.spent.usd,
    )
    after = budget.spent + Cost(estimate.usd or 0.0, estimate.tokens, estimate.requests)
    for name, value in after._asdict().items():
        cap = getattr(account.caps, name)
        if cap is not None and value > cap:
            logger.warning(
                "%s: the cap budget.%s of %g will probably end it (%g with this)",
                what,
                name,
                cap,
                value,
            )
