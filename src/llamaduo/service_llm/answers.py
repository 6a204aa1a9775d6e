"""Reading the body of an HTTP 200."""

from __future__ import annotations

import json
from dataclasses import dataclass

from pydantic import BaseModel, Field, ValidationError

from llamaduo.service_llm.failures import (
    RETRY_OF_ANSWER,
    FailedAttempt,
    Failure,
    Retry,
    error_of,
    retry_of,
)


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
    prompt_tokens: int = 0
    completion_tokens: int = 0


class _Message(BaseModel):
    content: str | None = None
    refusal: str | None = None


class _Choice(BaseModel):
    message: _Message
    finish_reason: str | None = None


class _Usage(BaseModel):
    prompt_tokens: int = Field(0, ge=0)
    completion_tokens: int = Field(0, ge=0)


class _Completion(BaseModel):
    """What is read of a chat completion; endpoints add to it freely."""

    choices: list[_Choice] = Field(min_length=1)
    model: str | None = None
    usage: _Usage | None = None


_CUT_SHORT = {"length": Failure.CUT_OFF, "content_filter": Failure.FILTERED}


def read_reply(raw: str) -> Reply:
    """Read a chat completion.

    Raises:
        FailedAttempt: It holds no whole answer.
    """
    try:
        completion = _Completion.model_validate_json(raw)
    except ValidationError as error:
        raise _unreadable(raw, error) from None
    choice, usage = completion.choices[0], completion.usage
    failure = _CUT_SHORT.get(choice.finish_reason or "")
    if choice.message.refusal:
        failure = Failure.REFUSED
    elif not failure and not (choice.message.content or "").strip():
        failure = Failure.EMPTY
    if failure:
        raise FailedAttempt(
            failure,
            choice.message.refusal or "",
            RETRY_OF_ANSWER[failure],
            tokens=(usage.prompt_tokens, usage.completion_tokens)
            if usage and usage.prompt_tokens
            else None,
        )
    return Reply(
        text=choice.message.content,
        model=completion.model,
        prompt_tokens=usage.prompt_tokens if usage else 0,
        completion_tokens=usage.completion_tokens if usage else 0,
    )


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
    return FailedAttempt(
        Failure.UNREADABLE,
        f"no chat completion ({what}): {raw[:100]!r}",
        Retry.AGAIN,
        tokens=(0, 0) if is_page else None,  # a page comes from a gateway, before any model
    )
