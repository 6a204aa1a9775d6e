"""One HTTP request to an endpoint, and what came of it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import NamedTuple

import aiohttp
import httpx2
import openai

from llamaduo.service_llm.answers import Reply
from llamaduo.service_llm.endpoints import Limits
from llamaduo.service_llm.failures import (
    NO_CONNECTION,
    FailedAttempt,
    Failure,
    Retry,
    failed_by_status,
)

logger = logging.getLogger(__name__)

NO_KEY = "none"
"""Sent to endpoints that need no key."""
CONNECT_S = 5.0


class Arrived(NamedTuple):
    """What came of a request."""

    status: int | None
    """HTTP status; None where no answer came."""
    body: str | None
    outcome: Reply | FailedAttempt

    @property
    def tokens(self) -> tuple[int, int] | None:
        """Prompt and completion tokens as the endpoint counted them; None where it did not."""
        if isinstance(self.outcome, FailedAttempt):
            return self.outcome.tokens
        counted = (self.outcome.prompt_tokens, self.outcome.completion_tokens)
        return counted if counted[0] else None


def open_client(base_url: str, key: str, limits: Limits) -> openai.AsyncOpenAI:
    """A client without retries of its own, which would send what no journal knows of."""
    room = httpx2.Limits(
        max_connections=limits.concurrency, max_keepalive_connections=limits.concurrency
    )
    patience = httpx2.Timeout(limits.timeout_s, connect=min(CONNECT_S, limits.timeout_s))
    return openai.AsyncOpenAI(
        base_url=base_url,
        api_key=key,
        max_retries=0,
        timeout=patience,
        http_client=openai.DefaultAioHttpClient(limits=room, timeout=patience),
    )


async def exchange(
    client: openai.AsyncOpenAI,
    url: str,
    body: str,
    seconds: float,
    read: Callable[[str], Reply],
) -> Arrived:
    """Ask for one completion.

    Args:
        url: Whole, so that the client need not join it each time.
        body: JSON, as the journal has it.
        seconds: Of the wall clock, until the whole answer must be there.
        read: What is read of the body of an HTTP 200.
    """
    sending = client.post(url, content=body.encode(), cast_to=httpx2.Response)
    try:
        response, text = await _received(client, sending, seconds)
    except FailedAttempt as failed:
        return Arrived(None, None, failed)
    return Arrived(response.status_code, text, _outcome_of(response, text, read))


async def call(
    client: openai.AsyncOpenAI, path: str, body: dict[str, str] | None, seconds: float
) -> tuple[int, str]:
    """Ask for something else than a completion.

    Args:
        path: Below the client's base URL.
        body: Of a POST; None is a GET.

    Returns:
        HTTP status and body.

    Raises:
        FailedAttempt: No answer came.
    """
    sending = (
        client.get(path, cast_to=httpx2.Response)
        if body is None
        else client.post(path, body=body, cast_to=httpx2.Response)
    )
    response, text = await _received(client, sending, seconds)
    return response.status_code, text


async def _received(
    client: openai.AsyncOpenAI, sending: Awaitable[httpx2.Response], seconds: float
) -> tuple[httpx2.Response, str]:
    """The response and its body, without the key."""
    try:
        async with asyncio.timeout(seconds):  # the client's own timeout is per read
            response = await sending
    except openai.APIStatusError as error:
        response = error.response
    except (TimeoutError, openai.APIConnectionError, httpx2.HTTPError) as error:
        raise _without_answer(error, seconds) from error
    text = response.content.decode("utf-8", "backslashreplace")
    if client.api_key != NO_KEY:  # some servers repeat it
        text = text.replace(client.api_key, "***")
    return response, text


def _outcome_of(
    response: httpx2.Response, text: str, read: Callable[[str], Reply]
) -> Reply | FailedAttempt:
    try:
        if response.is_success:
            return read(text)
        return failed_by_status(response.status_code, response.headers, text)
    except FailedAttempt as failed:
        return failed
    except Exception as error:  # the body is paid for: whatever it does to us, it is kept
        logger.debug("the error's origin", exc_info=True)
        return FailedAttempt(Failure.UNREADABLE, repr(error), Retry.ONCE)


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
