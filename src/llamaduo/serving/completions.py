"""``POST /v1/chat/completions``."""

from __future__ import annotations

import asyncio
import logging
import traceback
from collections.abc import Coroutine
from contextlib import aclosing, suppress
from typing import Any

from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse
from starlette.types import Receive, Scope, Send

from llamaduo.serving.answers import Answer, EventStream
from llamaduo.serving.engines import Engine, Sampling
from llamaduo.serving.errors import OURS, EngineError, Refusal
from llamaduo.serving.limits import Limits, Slots
from llamaduo.serving.requests import ChatRequest, parse
from llamaduo.serving.student import Student

READ_ON = 16
"""A body may be so many times too large, and its client still hears why it is refused."""

COLDEST = 1e-3
"""A lower temperature is greedy; logits divided by it could overflow, which ends the batch."""
FAREWELL_S = 10
"""A client has so long to take the error with which its request ends."""

logger = logging.getLogger(__name__)


class ChatCompletions:
    """The endpoint, as an application of its own.

    Starlette's responses notice that a client has gone only while they send; here it frees its slot
    or its place in the queue at any time.
    """

    def __init__(self, student: Student, engine: Engine, limits: Limits) -> None:
        self._student, self._engine, self._limits = student, engine, limits
        self._slots = Slots(limits)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer, or say why not."""
        request, events = Request(scope, receive), EventStream(scope, receive, send)
        deadline = asyncio.get_running_loop().time() + self._limits.timeout_s
        try:
            body = await self._body(request, deadline)
            async with asyncio.timeout_at(deadline):
                await _unless_gone(self._answer(parse(body), events), receive)
        except ClientDisconnect:
            return
        except Exception as error:  # whatever it is, the client hears of it in OpenAI's shape
            with suppress(TimeoutError):
                async with asyncio.timeout(FAREWELL_S):
                    await events.refuse(self._as_refusal(error))

    async def _body(self, request: Request, deadline: float) -> bytes:
        try:
            async with asyncio.timeout_at(deadline):
                return await _read(request, self._limits.max_body)
        except TimeoutError:
            raise Refusal(
                408,
                f"The body did not come within {self._limits.timeout_s:g} s.",
                "timeout",
                headers={"Connection": "close"},
            ) from None

    async def _answer(self, request: ChatRequest, events: EventStream) -> None:
        async with self._slots.place():
            prompt = await self._student.encode([each.as_trained() for each in request.messages])
            sampling = self._sampling(request, len(prompt))
            async with self._slots.slot():
                answer = Answer(self._student.name, len(prompt))
                pieces = self._engine.generate(prompt, sampling)
                async with aclosing(pieces):
                    if request.stream:
                        with_usage = request.stream_options.include_usage
                        await answer.stream(pieces, events, with_usage=with_usage)
                        return
                    whole = await answer.whole(pieces)
        await events.instead(JSONResponse(whole))

    def _sampling(self, request: ChatRequest, prompt_tokens: int) -> Sampling:
        """What the request asks for; the rest is as the student was evaluated."""
        student = self._student
        temperature = _given(request.temperature, student.temperature)
        if request.json_schema is not None and not self._engine.enforces_schemas:
            raise Refusal(
                400,
                "The merged model cannot be held to JSON; a GGUF file of the release can: "
                "kedro serve --model=q8_0, say.",
                "unsupported_value",
                param="response_format.type",
            )
        return Sampling(
            temperature=temperature if temperature >= COLDEST else 0.0,
            top_p=_given(request.top_p, student.top_p),
            max_tokens=self._room(request, prompt_tokens),
            stop=tuple(request.stop),
            seed=request.seed,
            json_schema=request.json_schema,
        )

    def _room(self, request: ChatRequest, prompt_tokens: int) -> int:
        """Tokens that the answer may have."""
        limits, wanted = self._limits, request.wanted_tokens
        if wanted is not None and wanted > limits.max_tokens:
            param = "max_completion_tokens" if request.max_completion_tokens else "max_tokens"
            raise Refusal(
                400,
                f"'{param}' is {wanted}; this server's answers have {limits.max_tokens} at most.",
                "invalid_value",
                param=param,
            )
        room = limits.context - prompt_tokens
        if room < (wanted or 1):
            raise Refusal(
                400,
                f"The messages have {prompt_tokens} tokens, and the answer may have "
                f"{wanted or 1}; the context holds {limits.context}.",
                "context_length_exceeded",
                param="messages",
            )
        return wanted or min(room, self._student.max_tokens or room, limits.max_tokens)

    def _as_refusal(self, error: Exception) -> Refusal:
        match error:
            case Refusal():
                return error
            case TimeoutError():
                seconds = f"{self._limits.timeout_s:g}"
                return Refusal(
                    504,
                    f"The answer took more than {seconds} s.",
                    "timeout",
                    kind=OURS,
                    # OpenAI's clients would ask for the same long answer twice more.
                    headers={"x-should-retry": "false"},
                )
            case EngineError():
                if not self._engine.is_closed:
                    logger.error("a request failed: %s", error)
                return Refusal(503, "The student cannot answer now.", "engine_error", kind=OURS)
        # Without its message, which may quote what was asked.
        places = "".join(traceback.format_tb(error.__traceback__))
        logger.error("a request failed with %s:\n%s", type(error).__name__, places)
        return Refusal(500, "The server failed on this request.", "internal_error", kind=OURS)


async def _read(request: Request, limit: int) -> bytes:
    """All of it, or the refusal of one that is too large."""
    parts: list[bytes] = []
    size = 0
    async for part in request.stream():
        size += len(part)
        if size <= limit:
            parts.append(part)
        elif size > READ_ON * limit:
            break
    if size > limit:
        raise Refusal(
            413,
            f"The body is larger than {limit} bytes.",
            "body_too_large",
            headers={"Connection": "close"},
        )
    return b"".join(parts)


async def _unless_gone(work: Coroutine[Any, Any, None], receive: Receive) -> None:
    """Do the work to its end, or until the client has gone."""
    working, watching = asyncio.create_task(work), asyncio.create_task(_gone(receive))
    try:
        await asyncio.wait({working, watching}, return_when=asyncio.FIRST_COMPLETED)
        if working.done():
            working.result()
    finally:
        for task in (working, watching):
            task.cancel()
        await asyncio.gather(working, watching, return_exceptions=True)


async def _gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


def _given(value: float | None, otherwise: float) -> float:
    return otherwise if value is None else value
