"""A service LLM: requests in, replies out, each paid for once."""

from __future__ import annotations

import json
import logging
import signal
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from math import inf
from typing import TYPE_CHECKING, Any

import pydantic

from llamaduo.interruption import run_async
from llamaduo.progress import ProgressDisplay
from llamaduo.service_llm.answers import Reply, read_reply
from llamaduo.service_llm.budget import (
    TOKENS_PER_BYTE,
    Account,
    Budget,
    Caps,
    Estimate,
    Price,
    Rates,
)
from llamaduo.service_llm.endpoints import Accepts, Limits
from llamaduo.service_llm.failures import (
    NO_CONNECTION,
    FailedAttempt,
    Failure,
    Retry,
    ServiceLLMError,
)
from llamaduo.service_llm.journal import Journal, request_key
from llamaduo.service_llm.journal_writer import JournalWriter
from llamaduo.service_llm.privacy import PrivacyGate
from llamaduo.service_llm.tally import Tally, announce

if TYPE_CHECKING:
    from llamaduo.service_llm.sending import Pending

logger = logging.getLogger(__name__)

TOKENS_PER_SECOND = 50
"""Of an answer as it is written, before there is one."""
PREFLIGHT = "preflight"
ASKING, JUDGING = "asking for pairs", "judging"
"""What requests are for, in the journal, which learns by it what such requests cost."""
JUDGEMENT_TOKENS = 20
"""About: two scores as JSON."""
PREFLIGHT_TOKENS = 32
CHECK_S = 9.0
"""The preflight request may take this long."""


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
    extra_body: dict[str, Any] = field(default_factory=dict)
    """Further parameters, as the endpoint names them."""
    repeat: int = 1
    """Tells apart requests that are equal on purpose, such as M judgements."""
    replaced: Sequence[str] = ()
    """The kind of each personal detail that was replaced before the texts became messages."""


@dataclass(frozen=True)
class ServiceLLM:
    """A model behind an OpenAI-compatible endpoint.

    Args:
        endpoint: Name of the endpoint in the journal; its ``base_url``, but for the stand-in, whose
            port differs from run to run.
        base_url: Where requests go.
        price: None where it is unknown.
        gate: What every request passes.
        verbatim: Whether an answer counts as it came, were it empty or cut off.
    """

    endpoint: str
    base_url: str
    model: str
    api_key: pydantic.SecretStr
    journal: Journal = field(repr=False)
    accepts: Accepts = field(default_factory=Accepts)
    limits: Limits = field(default_factory=Limits)
    price: Price | None = None
    gate: PrivacyGate = field(default_factory=PrivacyGate)
    verbatim: bool = False

    def complete_all(
        self, requests: Sequence[Request], what: str, account: Account | None = None
    ) -> list[Reply]:
        """Ask for all completions; those in the journal are not asked for again.

        What is asked for and kept holds surrogates in place of personal details.

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
        requests = [self._protected(request) for request in requests]
        # Equal requests are one: a repeat that is meant says so by its index.
        places: dict[bytes, list[int]] = {}
        for place, request in enumerate(requests):
            key = request_key(self.endpoint, self._body(request), request.repeat)
            places.setdefault(key, []).append(place)
        replies = [Reply(None, Failure.GAVE_UP, "interrupted", Retry.AGAIN)] * len(requests)

        def deliver(key: bytes, reply: Reply) -> None:
            for place in places[key]:
                replies[place] = replace(reply, replaced=[*requests[place].replaced])

        unanswered = dict.fromkeys(places)
        for key, body, answered_at in self.journal.answers(list(places)):
            with suppress(FailedAttempt):  # an earlier version may have been content with it
                deliver(key, replace(self._read(body), answered_at=answered_at))
                del unanswered[key]
        if unanswered:
            to_send = {key: requests[places[key][0]] for key in unanswered}
            signum = run_async(self._send(to_send, what, account, len(places), deliver))
            if signum is not None:
                signal.raise_signal(signum)
                raise KeyboardInterrupt  # a handler that goes on cannot make up the replies
        return replies

    def estimate(self, requests: Iterable[Request], what: str) -> Estimate:
        """What requests will about cost, from their own texts and from what earlier ones cost."""
        return self._estimate(requests, *self._calibration(what))

    def check(self, account: Account, task: list[dict[str, str]] | None = None) -> str | None:
        """Send one cheap request and wait for less than 10 seconds.

        Args:
            task: A prompt of the task, which the model may refuse; without one anything is asked.

        Returns:
            None, or a sentence that says what is wrong and what to do.
        """
        limits = Limits(concurrency=1, attempts=1, timeout_s=CHECK_S, deadline_s=CHECK_S)
        hasty = replace(self, limits=limits)
        messages = task or [{"role": "user", "content": "Say OK."}]
        request = Request(messages, PREFLIGHT_TOKENS, 1, repeat=time.time_ns())
        (reply,) = hasty.complete_all([request], PREFLIGHT, account)
        where = f"{self.model} at {self.base_url}"
        passing = reply.failure is Failure.GAVE_UP and reply.retry is Retry.AGAIN
        if passing and not reply.detail.startswith(NO_CONNECTION):
            logger.warning("%s: %s; going on, since this may pass", where, reply.detail)
            return None
        if task and reply.failure is Failure.REFUSED:
            return (
                f"{self.model} refuses this task: {reply.detail} Name another service LLM in the "
                "catalog (README, Your own task)"
            )
        if reply.failure in {Failure.GAVE_UP, Failure.UNREADABLE}:
            return f"{where}: {reply.detail}"
        return None

    def unknown_price(self, caps: Caps) -> str | None:
        """A sentence where a cap in US dollars cannot be kept."""
        if caps.usd is None or self.price:
            return None
        return (
            f"the price of {self.model} is unknown, so that budget.usd cannot be kept: add it to "
            "the prices in conf/local/globals.yml (docs/endpoints.md), or cap tokens or requests "
            "instead"
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
        from llamaduo.service_llm.exchange import open_client
        from llamaduo.service_llm.sending import Job, Payer

        budget = Budget(account.caps, self.journal.spent(account.name))
        rates, seconds = self._calibration(what)
        if what != PREFLIGHT:
            estimate = self._estimate(to_send.values(), rates, seconds)
            announce(what, estimate, budget, account)
        payer = Payer(account.name, self.endpoint, self.model, what, self.price)
        pending = (self._pending(key, request) for key, request in to_send.items())
        with ProgressDisplay(what, quiet=what == PREFLIGHT) as display:
            tally = Tally(display, total, total - len(to_send), account, budget)

            def take(key: bytes, reply: Reply) -> None:
                deliver(key, reply)
                tally.count(reply)

            client = open_client(self.base_url, self.api_key.get_secret_value(), self.limits)
            async with client, JournalWriter(self.journal) as writer:
                job = Job(client, writer, payer, self.limits, budget, rates, self._read, take)
                signum = await job.run(pending)
        if what != PREFLIGHT:
            tally.say_what_was_odd(self.model)
        return signum

    def _read(self, body: str) -> Reply:
        return read_reply(body, verbatim=self.verbatim)

    def _protected(self, request: Request) -> Request:
        """All messages of a request are one scope."""
        texts, replaced = self.gate.protect([each["content"] for each in request.messages])
        messages = [
            {**each, "content": text} for each, text in zip(request.messages, texts, strict=True)
        ]
        return replace(request, messages=messages, replaced=[*request.replaced, *replaced])

    def _calibration(self, what: str) -> tuple[Rates, float | None]:
        """How many tokens texts have, and how long an answer takes; None before there is one."""
        known = self.journal.calibration(self.endpoint, self.model, what)
        if known is None:
            return Rates(TOKENS_PER_BYTE, 1.0), None
        return Rates(known.tokens_per_byte, known.tokens_per_expected), known.seconds

    def _estimate(
        self, requests: Iterable[Request], rates: Rates, seconds: float | None
    ) -> Estimate:
        each = [(self._prompt_bytes(request), request.expected_tokens) for request in requests]
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
        return body | request.extra_body
