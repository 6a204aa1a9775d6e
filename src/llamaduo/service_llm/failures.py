"""Why a request has no answer, and whether asking again can help."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from enum import Enum, StrEnum
from typing import Any


class Failure(StrEnum):
    """Names of what can go wrong; the column ``failure`` of a table of replies."""

    REFUSED = "refused"
    FILTERED = "filtered"
    CUT_OFF = "cut off"
    EMPTY = "empty"
    UNREADABLE = "unreadable"
    """An HTTP 200 that holds no chat completion."""
    GAVE_UP = "gave up"
    """An error of the endpoint that does not pass, or outlasted the deadline."""
    OVER_BUDGET = "over budget"
    """Not sent: it could have cost more than is left."""


class Retry(Enum):
    """Whether a failed request is sent again."""

    AGAIN = "again"
    TWICE = "twice"
    ONCE = "once"
    NEVER = "never"
    FATAL = "fatal"
    """Nor is any other request of the job: each would fail alike."""


RETRY_OF_ANSWER = {
    Failure.REFUSED: Retry.ONCE,
    Failure.FILTERED: Retry.ONCE,
    Failure.CUT_OFF: Retry.ONCE,  # with twice the tokens
    Failure.EMPTY: Retry.TWICE,
}
MORE_ATTEMPTS = {Retry.ONCE: 1, Retry.TWICE: 2}
FATAL_STATUS = {401, 402, 403, 404}
FATAL_CODES = {
    "insufficient_quota",
    "billing_hard_limit_reached",
    "invalid_api_key",
    "model_not_found",
    "unsupported_parameter",
    "unsupported_value",
    "unknown_parameter",
}
PASSING_STATUS = {408, 409, 429}
LATE_STATUS = {408, 504}
"""A gateway has stopped waiting; the model may have worked, and be paid, all the same."""
NO_CONNECTION = "no connection"
ADVICE = {
    401: "is the key right?",
    403: "may this key use this model?",
    404: "are model and base_url right? It often ends with /v1",
}


class ServiceLLMError(Exception):
    """A service LLM cannot be asked, or gave no answer at all."""


@dataclass(eq=False)
class FailedAttempt(Exception):
    """One attempt at a request that brought no answer."""

    failure: Failure
    detail: str
    retry: Retry
    retry_after: float | None = None
    """Seconds that the endpoint asked to wait."""
    is_rate_limit: bool = False
    """The endpoint wants fewer requests from everybody."""
    tokens: tuple[int, int] | None = None
    """Prompt and completion tokens that the endpoint has counted; None where it says nothing, and
    may have billed the attempt all the same."""


def failed_by_status(status: int, headers: Mapping[str, str], body: str) -> FailedAttempt:
    """An HTTP error as a failed attempt; what is sent again stands in this module's tables."""
    error = error_of(body)
    code = str(error.get("code") or error.get("type") or "")
    message = message_of(body)
    if code == "content_filter":  # as Azure says it
        return FailedAttempt(Failure.FILTERED, message, Retry.ONCE, tokens=(0, 0))
    if error.get("param"):
        message = f"parameter {error['param']}: {message}"
    advice = f" ({ADVICE[status]})" if status in ADVICE else ""
    retry = retry_of(status, code)
    return FailedAttempt(
        Failure.GAVE_UP,
        f"HTTP {status}: {message}{advice}",
        retry,
        retry_after=retry_after(headers),
        is_rate_limit=status == 429 and retry is Retry.AGAIN,
        tokens=None if status in LATE_STATUS else (0, 0),  # an error is not billed
    )


def retry_of(status: int, code: str) -> Retry:
    """What an HTTP status and the error's own code say about asking again."""
    if code in FATAL_CODES or status in FATAL_STATUS:
        return Retry.FATAL
    if status in PASSING_STATUS or status >= 500:
        return Retry.AGAIN
    return Retry.NEVER


def message_of(body: str) -> str:
    """What an endpoint says of an error."""
    return str(error_of(body).get("message") or body[:200] or "no message")


def error_of(body: str) -> dict[str, Any]:
    """The error object of a body in OpenAI's form; empty for any other body."""
    try:
        value = json.loads(body)
    except (ValueError, RecursionError):
        return {}
    if isinstance(value, list) and len(value) == 1:  # as Gemini's endpoint wraps it
        value = value[0]
    error = value.get("error") if isinstance(value, dict) else None
    if isinstance(error, str):
        return {"message": error}
    return error if isinstance(error, dict) else {}


def retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds to wait, from ``retry-after-ms`` or ``retry-after`` (RFC 9110: seconds or a date)."""
    milliseconds = _number(headers.get("retry-after-ms", ""))
    if milliseconds is not None:
        return milliseconds / 1000
    value = headers.get("retry-after", "")
    seconds = _number(value)
    if seconds is not None:
        return seconds
    try:
        at = parsedate_to_datetime(value)
        waits = at.replace(tzinfo=at.tzinfo or UTC) - datetime.now(UTC)
    except (ValueError, OverflowError, TypeError):
        return None
    return max(0.0, waits.total_seconds())


def _number(text: str) -> float | None:
    whole, _, fraction = text.strip().partition(".")
    digits = whole.isdecimal() and whole.isascii() and (fraction or "0").isdecimal()
    return float(text) if digits else None
