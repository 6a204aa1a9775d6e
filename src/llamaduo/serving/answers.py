"""An answer in OpenAI's shape, whole or as a stream of events."""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import AsyncGenerator
from typing import Any

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from llamaduo.serving.engines import FinishReason, Piece
from llamaduo.serving.errors import Refusal

DONE = "[DONE]"
HEADERS = [
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-store"),
    (b"x-accel-buffering", b"no"),  # nginx would hold events back
]


class EventStream:
    """Server-sent events; the status goes out with the first of them."""

    def __init__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self._asgi = scope, receive, send
        self._send = send
        self._has_begun = False

    async def send(self, event: dict[str, Any] | str, *, last: bool = False) -> None:
        """Send one event."""
        if not self._has_begun:
            self._has_begun = True
            await self._send({"type": "http.response.start", "status": 200, "headers": HEADERS})
        text = event if isinstance(event, str) else json.dumps(event, ensure_ascii=False)
        data = f"data: {text}\n\n".encode()
        await self._send({"type": "http.response.body", "body": data, "more_body": not last})

    async def instead(self, response: Response) -> None:
        """Send something else than events, before any of them."""
        await response(*self._asgi)

    async def refuse(self, refusal: Refusal) -> None:
        """End with an error: its status is lost where events have gone out."""
        if self._has_begun:
            await self.send(refusal.body, last=True)
        else:
            await self.instead(refusal.response())


class Answer:
    """One completion.

    Args:
        model: The student's name.
    """

    def __init__(self, model: str, prompt_tokens: int) -> None:
        self._head = {
            "id": f"chatcmpl-{uuid.uuid4().hex}",
            "created": int(time.time()),
            "model": model,
        }
        self._prompt_tokens = prompt_tokens

    async def whole(self, pieces: AsyncGenerator[Piece]) -> dict[str, Any]:
        """The completion, once all pieces are there."""
        drawn = [piece async for piece in pieces]
        message = {
            "role": "assistant",
            "content": "".join(piece.text for piece in drawn),
            "refusal": None,
        }
        choice = {
            "index": 0,
            "message": message,
            "logprobs": None,
            "finish_reason": drawn[-1].finish_reason,
        }
        return {
            **self._head,
            "object": "chat.completion",
            "choices": [choice],
            "usage": self._usage(drawn[-1]),
        }

    async def stream(
        self, pieces: AsyncGenerator[Piece], events: EventStream, *, with_usage: bool
    ) -> None:
        """Send each piece as it comes."""
        usage = {"usage": None} if with_usage else {}
        role = {"role": "assistant", "content": ""}
        first = True
        async for piece in pieces:
            if first:  # not before it: until then a request can still be refused by its status
                await events.send({**self._chunk(role), **usage})
                first = False
            if piece.text:
                await events.send({**self._chunk({"content": piece.text}), **usage})
            if piece.finish_reason:
                await events.send({**self._chunk({}, piece.finish_reason), **usage})
                if with_usage:
                    await events.send({**self._chunk(None), "usage": self._usage(piece)})
        await events.send(DONE, last=True)

    def _chunk(
        self, delta: dict[str, str] | None, finish_reason: FinishReason | None = None
    ) -> dict[str, Any]:
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish_reason}
        choices = [] if delta is None else [choice]
        return {**self._head, "object": "chat.completion.chunk", "choices": choices}

    def _usage(self, last: Piece) -> dict[str, int]:
        return {
            "prompt_tokens": self._prompt_tokens,
            "completion_tokens": last.tokens,
            "total_tokens": self._prompt_tokens + last.tokens,
        }
