"""Replies: reading them from the body of an HTTP 200, and giving them to a table."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, fields
from itertools import chain
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, Field, ValidationError

from llamaduo.service_llm.failures import (
    RETRY_OF_ANSWER,
    FailedAttempt,
    Failure,
    Retry,
    ServiceLLMError,
    error_of,
    retry_of,
)

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer, or the named reason why there is none."""

    text: str | None
    failure: Failure | None = None
    detail: str = ""
    """What the endpoint, or the budget, says of the failure."""
    retry: Retry | None = None
    """Whether asking again could help."""
    model: str | None = None
    """As the endpoint reported it."""
    finished: bool = True
    """False where the answer is as long as it may be, and such answers are taken."""
    prompt_tokens: int = 0
    completion_tokens: int = 0
    answered_at: float | None = None
    """When the answer came, in seconds since the epoch."""
    replaced: Sequence[str] = ()
    """The kind of each personal detail that was replaced in the request."""


def reply_columns(replies: Sequence[Reply], *, needed: bool = True) -> dict[str, list[Any]]:
    """Replies as columns: all but ``retry`` and ``finished``.

    Args:
        needed: Whether nothing can go on where not one reply came.

    Raises:
        ServiceLLMError: Every request failed and replies are needed, or one failed in a way that
            stops the others. What has come stands in the journal, and nothing of it is asked for
            again.
    """
    failed = [reply for reply in replies if reply.failure]
    fatal = [reply for reply in failed if reply.retry is Retry.FATAL]
    stopping = [reply for reply in failed if reply.failure is not Failure.OVER_BUDGET]
    if fatal or (needed and replies and len(stopping) == len(replies)):
        first = (fatal or stopping)[0]
        raise ServiceLLMError(
            f"{len(failed)} of {len(replies)} requests failed, the first with: {first.failure}, "
            f"{first.detail}. The answers that came are in the journal and are not asked for "
            "again; mend the cause and go on."
        )
    names = [field.name for field in fields(Reply) if field.name not in ("retry", "finished")]
    return {name: [getattr(reply, name) for reply in replies] for name in names}


def count_replaced(table: pd.DataFrame) -> dict[str, int]:
    """How many personal details of each kind the column ``replaced`` of a table names."""
    return dict(sorted(Counter(chain.from_iterable(table["replaced"])).items()))


class _Part(BaseModel):
    text: str = ""


class _Message(BaseModel):
    content: str | list[_Part] | None = None
    refusal: str | None = None

    @property
    def text(self) -> str:
        if isinstance(self.content, list):
            return "".join(part.text for part in self.content)
        return self.content or ""


class _Choice(BaseModel):
    message: _Message
    finish_reason: str | None = None


class _Completion(BaseModel):
    """What is read of a chat completion; endpoints add to it freely."""

    choices: list[_Choice] = Field(min_length=1)
    model: str | None = None
    usage: Any = None


MOST_TOKENS = 10**9
WHOLE = {"", "stop", "eos", "end_turn", "stop_sequence"}
"""``finish_reason`` of a whole answer, as OpenAI and others say it."""
TAKEN_VERBATIM = {Failure.CUT_OFF, Failure.EMPTY}
"""No answers of a service LLM, and yet what a model has said."""
_CUT_SHORT = {
    "length": Failure.CUT_OFF,
    "max_tokens": Failure.CUT_OFF,
    "model_length": Failure.CUT_OFF,
    "content_filter": Failure.FILTERED,
    "safety": Failure.FILTERED,
    "refusal": Failure.REFUSED,
}


def read_reply(raw: str, *, verbatim: bool = False) -> Reply:
    """Read a chat completion.

    Args:
        verbatim: What came is the answer, were it empty or cut off.

    Raises:
        FailedAttempt: It holds no whole answer.
    """
    try:
        completion = _Completion.model_validate_json(raw)
    except ValidationError as error:
        raise _unreadable(raw, error) from None
    choice, tokens = completion.choices[0], counted_tokens(completion.usage)
    finish = (choice.finish_reason or "").lower().partition(":")[0]
    failure = _CUT_SHORT.get(finish)
    if choice.message.refusal:
        failure = Failure.REFUSED
    elif not failure and not choice.message.text.strip():
        failure = Failure.EMPTY
    if failure and not (verbatim and failure in TAKEN_VERBATIM):
        detail = choice.message.refusal or ""
        raise FailedAttempt(failure, detail, RETRY_OF_ANSWER[failure], tokens=tokens)
    if finish not in WHOLE and failure is not Failure.CUT_OFF:
        detail = f"the answer ended for the unknown reason {choice.finish_reason!r}"
        raise FailedAttempt(Failure.UNREADABLE, detail, Retry.ONCE, tokens=tokens)
    prompt_tokens, completion_tokens = tokens or (0, 0)
    return Reply(
        choice.message.text,
        model=completion.model,
        finished=failure is not Failure.CUT_OFF,
        prompt_tokens=prompt_tokens,
        completion_tokens=completion_tokens,
    )


def counted_tokens(usage: Any) -> tuple[int, int] | None:
    """Prompt and completion tokens; None where the endpoint does not say, or says nonsense.

    Tokens of a thought that only the total counts are tokens of the completion.
    """
    if not isinstance(usage, dict):
        return None
    names = ("prompt_tokens", "completion_tokens", "total_tokens")
    prompt, completion, total = (
        value if type(value := usage.get(name)) is int and 0 <= value <= MOST_TOKENS else 0
        for name in names
    )
    completion = max(completion, total - prompt)
    return (prompt, completion) if prompt else None


def _unreadable(raw: str, cause: ValidationError) -> FailedAttempt:
    error = error_of(raw)
    if error:
        status = error.get("code") if isinstance(error.get("code"), int) else 500
        return FailedAttempt(
            Failure.UNREADABLE,
            f"HTTP 200 with an error inside: {error.get('message') or json.dumps(error)[:200]}",
            retry_of(int(status or 500), str(error.get("code") or error.get("type") or "")),
            is_rate_limit=status == 429,
            tokens=(0, 0),
        )
    is_page = raw.lstrip()[:1] == "<"
    first = cause.errors(include_url=False)[0]
    what = (
        "a page of HTML or XML; does base_url name the API?"
        if is_page
        else f"{'.'.join(map(str, first['loc'])) or 'body'}: {first['msg']}"
    )
    # A page comes from a gateway, before any model; an answer in a foreign form has its price.
    return FailedAttempt(
        Failure.UNREADABLE,
        f"no chat completion ({what}): {raw[:100]!r}",
        Retry.ONCE if '"usage"' in raw else Retry.AGAIN,
        tokens=(0, 0) if is_page else None,
    )
