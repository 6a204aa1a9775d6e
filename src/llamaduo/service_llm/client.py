"""Requests to a service LLM, many at once."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import stamina
from pydantic import BaseModel, Field, ValidationError
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from llamaduo.service_llm.journal import Journal, request_key

if TYPE_CHECKING:
    import openai

logger = logging.getLogger(__name__)

ATTEMPTS = 8
LONGEST_WAIT_S = 60
RETRIED_STATUS = {408, 409, 429}
NEVER_RETRIED_CODES = {"insufficient_quota"}


class ServiceLLMError(Exception):
    """A service LLM gave no answer at all."""


@dataclass(frozen=True)
class Request:
    """One chat completion to ask for."""

    messages: list[dict[str, str]]
    max_tokens: int
    temperature: float | None = None
    response_schema: dict[str, Any] | None = None
    """JSON schema that the answer must follow, with its ``name``."""
    repeat: int = 1
    """Tells apart requests that are equal on purpose, such as M judgements."""


@dataclass(frozen=True)
class Reply:
    """An answer, or the named reason why there is none."""

    text: str | None
    failure: str | None = None
    model: str | None = None
    """As the endpoint reported it."""
    prompt_tokens: int = 0
    completion_tokens: int = 0


@dataclass(frozen=True)
class ServiceLLM:
    """A model behind an OpenAI-compatible endpoint.

    Args:
        endpoint: Name of the endpoint in the journal; its ``base_url``, but for the stand-in, whose
            port differs from run to run.
        base_url: Where requests go.
        concurrency: The most requests under way at once.
        timeout_s: Seconds that one request may take.
    """

    endpoint: str
    base_url: str
    model: str
    api_key: str = field(repr=False)
    journal: Journal = field(repr=False)
    concurrency: int = 16
    timeout_s: float = 120.0

    def complete_all(self, requests: Sequence[Request], what: str) -> list[Reply]:
        """Ask for all completions; those in the journal are not asked for again.

        Args:
            requests: In any number.
            what: Names the work in the progress display.

        Returns:
            One reply per request, in their order. A failed request does not stop the others.
        """
        return asyncio.run(self._complete_all(requests, what))

    async def _complete_all(self, requests: Sequence[Request], what: str) -> list[Reply]:
        import openai

        bodies: dict[str, dict[str, Any]] = {}
        keys = []
        for request in requests:
            body = self._body(request)
            keys.append(request_key(self.endpoint, body, request.repeat))
            bodies[keys[-1]] = body
        slots = asyncio.Semaphore(self.concurrency)
        # One retry layer: ours. The client's own would send what the journal does not know of.
        async with openai.AsyncOpenAI(
            base_url=self.base_url, api_key=self.api_key, max_retries=0, timeout=self.timeout_s
        ) as client:
            with _progress(what, len(bodies)) as advance:

                async def reply_to(key: str, body: dict[str, Any]) -> Reply:
                    async with slots:
                        reply = await self._reply(client, key, body)
                    advance()
                    return reply

                # Equal requests are one: a repeat that is meant says so by its index.
                replies = await asyncio.gather(*(reply_to(key, b) for key, b in bodies.items()))
        by_key = dict(zip(bodies, replies, strict=True))
        return [by_key[key] for key in keys]

    async def _reply(self, client: openai.AsyncOpenAI, key: str, body: dict[str, Any]) -> Reply:
        import openai

        known = self.journal.answer(key)
        if known is not None:
            return read_reply(known)
        try:
            async for attempt in stamina.retry_context(
                on=_is_worth_a_retry,
                attempts=ATTEMPTS,
                timeout=10 * self.timeout_s,
                wait_initial=1,
                wait_max=LONGEST_WAIT_S,
            ):
                with attempt:
                    return await self._send(client, key, body)
        except openai.APIStatusError as error:
            return Reply(None, failure=f"HTTP {error.status_code}: {error.message}")
        except openai.APIError as error:
            return Reply(None, failure=f"{type(error).__name__}: {error.message}")
        except TimeoutError:
            return Reply(None, failure=f"no answer within {self.timeout_s:g} s")
        raise AssertionError("unreachable: a retry context returns or raises")

    async def _send(self, client: openai.AsyncOpenAI, key: str, body: dict[str, Any]) -> Reply:
        import openai

        number = self.journal.sending(key, self.endpoint, body)
        async with asyncio.timeout(self.timeout_s):  # the client's own timeout is per read
            try:
                response = await client.chat.completions.with_raw_response.create(**body)
            except openai.APIStatusError as error:
                self.journal.received(
                    key, number, error.status_code, error.response.text, usable=False
                )
                raise
        raw = response.http_response.text
        reply = read_reply(raw)
        self.journal.received(key, number, response.status_code, raw, usable=not reply.failure)
        return reply

    def _body(self, request: Request) -> dict[str, Any]:
        body: dict[str, Any] = {
            "model": self.model,
            "messages": request.messages,
            "max_tokens": request.max_tokens,
        }
        if request.temperature is not None:
            body["temperature"] = request.temperature
        if request.response_schema is not None:
            body["response_format"] = {
                "type": "json_schema",
                "json_schema": request.response_schema,
            }
        return body


def reply_columns(replies: Sequence[Reply]) -> dict[str, list[Any]]:
    """Replies as columns of a table: text, failure, model, prompt_tokens, completion_tokens.

    Raises:
        ServiceLLMError: Every request failed.
    """
    failures = [reply.failure for reply in replies if reply.failure]
    if replies and len(failures) == len(replies):
        raise ServiceLLMError(
            f"all {len(replies)} requests failed, the first with: {failures[0]}. "
            "What was sent and received stands in the journal; mend the cause and run again."
        )
    names = ("text", "failure", "model", "prompt_tokens", "completion_tokens")
    return {name: [getattr(reply, name) for reply in replies] for name in names}


class _Message(BaseModel):
    content: str | None = None
    refusal: str | None = None


class _Choice(BaseModel):
    message: _Message
    finish_reason: str | None = None


class _Usage(BaseModel):
    prompt_tokens: int = 0
    completion_tokens: int = 0


class _Completion(BaseModel):
    """What is read of a chat completion; endpoints add to it freely."""

    choices: list[_Choice] = Field(min_length=1)
    model: str | None = None
    usage: _Usage | None = None


FAILED_FINISHES = {"length": "cut off", "content_filter": "filtered"}


def read_reply(raw: str) -> Reply:
    """Read the body of a chat completion; what is no whole answer becomes a named failure."""
    try:
        completion = _Completion.model_validate_json(raw)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(map(str, first["loc"])) or "body"
        return Reply(None, failure=f"no chat completion ({where}: {first['msg']}): {raw[:200]!r}")
    choice, usage = completion.choices[0], completion.usage or _Usage()
    if choice.message.refusal:
        failure: str | None = f"refused: {choice.message.refusal}"
    elif not choice.message.content:
        failure = FAILED_FINISHES.get(choice.finish_reason or "", "empty")
    else:
        failure = FAILED_FINISHES.get(choice.finish_reason or "")
    return Reply(
        text=None if failure else choice.message.content,
        failure=failure,
        model=completion.model,
        prompt_tokens=usage.prompt_tokens,
        completion_tokens=usage.completion_tokens,
    )


def _is_worth_a_retry(error: Exception) -> bool | float:
    """Whether to try again, or after how many seconds where the endpoint says so."""
    import openai

    if isinstance(error, openai.APIStatusError):
        if error.code in NEVER_RETRIED_CODES:
            return False
        after = error.response.headers.get("retry-after", "")
        if error.status_code in RETRIED_STATUS and after.isdecimal():
            return float(after)
        return error.status_code in RETRIED_STATUS or error.status_code >= 500
    return isinstance(error, (openai.APIConnectionError, TimeoutError))


@contextmanager
def _progress(what: str, total: int) -> Iterator[Any]:
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, disable=total == 0) as progress:
        task = progress.add_task(what, total=total)
        yield lambda: progress.advance(task)
