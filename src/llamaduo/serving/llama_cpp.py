"""A GGUF file in a process of its own, by llama.cpp's server."""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import AsyncGenerator
from contextlib import ExitStack, aclosing
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import aiohttp
from jsonschema import Draft202012Validator, SchemaError

from llamaduo.local_llm.llama_server import NEUTRAL, llama_server
from llamaduo.serving.engines import Piece, Sampling
from llamaduo.serving.errors import EngineError, Refusal

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

FIXED = {**NEUTRAL, "stream": True, "return_tokens": True}
"""Of every request."""
SEEDS = 2**32 - 1
"""Its largest seed means a random one."""
LARGEST_SCHEMA = 2**15
"""Bytes; llama.cpp takes seconds over larger ones, and everybody waits."""
SCHEMAS = 256
"""How many schemas are remembered as enforceable."""
CERTAIN = 1e4
"""A bias beyond all logits."""
LINE = 2**24
"""Bytes of one event; the last one repeats the prompt."""
NO_TIMEOUT = aiohttp.ClientTimeout(total=None)
"""The front has one."""


class LlamaCppEngine:
    """llama.cpp's server, asked with the tokens of the prompt.

    Args:
        model: A GGUF file.
        tokenizer: The model's.
        stop_tokens: That end an answer; a GGUF file may know fewer.
        slots: Requests in the batch.
        context: Tokens of each, prompt and answer together.
    """

    enforces_schemas = True
    is_closed = False

    def __init__(
        self,
        model: Path,
        tokenizer: PreTrainedTokenizerBase,
        stop_tokens: list[int],
        slots: int,
        context: int,
    ) -> None:
        self._tokenizer, self._stop_tokens = tokenizer, frozenset(stop_tokens)
        # No JSON begins with it.
        self._bracket = tokenizer("]", add_special_tokens=False)["input_ids"][-1]
        self._enforceable: set[str] = set()
        self._running = ExitStack()
        self._server = self._running.enter_context(llama_server(model, slots, context))

    async def generate(self, prompt: list[int], sampling: Sampling) -> AsyncGenerator[Piece]:
        """See ``Engine``."""
        body: dict[str, Any] = {
            "prompt": prompt,
            "temperature": sampling.temperature,
            "top_p": sampling.top_p,
            "n_predict": sampling.max_tokens,
            "stop": list(sampling.stop),
        }
        if sampling.seed is not None:
            body["seed"] = sampling.seed % SEEDS
        if sampling.json_schema is not None:
            await self._require_enforceable(sampling.json_schema)
            body["json_schema"] = sampling.json_schema
        drawn: list[int] = []
        shown = 0
        async with aclosing(self._events(body)) as events:
            async for event in events:
                tokens = event["tokens_predicted"]
                if event["stop"]:
                    cut = event["stop_type"] == "limit"
                    yield Piece(event["content"], "length" if cut else "stop", tokens)
                    return
                if not self._stop_tokens.isdisjoint(event["tokens"]):
                    yield Piece(self._held_back(drawn, shown), "stop", tokens)
                    return
                drawn += event["tokens"]
                if event["content"]:
                    shown = len(drawn)
                    yield Piece(event["content"], None, tokens)
        raise EngineError("llama.cpp's server broke off")

    def is_alive(self) -> bool:
        """Whether the process runs."""
        return self._server.is_alive()

    def close(self) -> None:
        """End the process."""
        self.is_closed = True
        self._running.close()

    def _held_back(self, drawn: list[int], shown: int) -> str:
        """What could have begun a stop string; llama.cpp shows it with a later token, or never."""
        whole, before = (
            cast(str, self._tokenizer.decode(tokens, skip_special_tokens=True))
            for tokens in (drawn, drawn[:shown])
        )
        return whole[len(before) :]

    async def _events(self, body: dict[str, Any]) -> AsyncGenerator[dict[str, Any]]:
        """Of llama.cpp's own ``/completion``, which unlike OpenAI's also names the tokens.

        https://github.com/ggml-org/llama.cpp/tree/master/tools/server#post-completion-given-a-prompt-it-returns-the-predicted-completion
        """
        url = f"{self._server.address}/completion"
        key = {"Authorization": f"Bearer {self._server.api_key}"}
        try:
            async with (
                # A connection for each request: the server stops generating when it closes.
                aiohttp.ClientSession(timeout=NO_TIMEOUT, read_bufsize=LINE) as session,
                session.post(
                    url, json={**body, **FIXED}, headers=key, raise_for_status=True
                ) as response,
            ):
                async for line in response.content:
                    if line.startswith(b"data: "):
                        event = json.loads(line.removeprefix(b"data: "))
                        if "error" in event:
                            raise EngineError("llama.cpp's server failed in the midst of an answer")
                        yield event
        except aiohttp.ClientError as error:
            raise EngineError(f"llama.cpp's server: {type(error).__name__}") from error

    async def _require_enforceable(self, schema: dict[str, Any]) -> None:
        """Try it on one token: a schema that llama.cpp cannot follow it leaves out without a word.

        Raises:
            Refusal: It is no JSON schema, or one that it cannot follow.
        """
        try:
            text = json.dumps(schema, sort_keys=True, allow_nan=False).encode()
        except ValueError as error:
            raise _refused_schema("holds a number that JSON does not have") from error
        if len(text) > LARGEST_SCHEMA:
            raise _refused_schema(f"has {len(text)} bytes; {LARGEST_SCHEMA} are the most")
        known = hashlib.sha256(text).hexdigest()
        if known in self._enforceable:
            return
        try:
            # Seconds for some schemas, in which others want their answers.
            await asyncio.to_thread(Draft202012Validator.check_schema, schema)
        except SchemaError as error:
            raise _refused_schema(f"is no JSON schema: {error.message}") from error
        except RecursionError as error:
            raise _refused_schema("is nested too deeply") from error
        trial = {
            "prompt": [self._bracket],
            "temperature": 0.0,
            "n_predict": 1,
            "logit_bias": [[self._bracket, CERTAIN]],
            "json_schema": schema,
        }
        async with aclosing(self._events(trial)) as events:
            drawn = [token async for event in events for token in event["tokens"]]
        if self._bracket in drawn:
            raise _refused_schema(
                "uses words of JSON Schema that llama.cpp cannot enforce; leave them out, and "
                "check them in the application"
            )
        if len(self._enforceable) >= SCHEMAS:
            self._enforceable.clear()
        self._enforceable.add(known)


def _refused_schema(why: str) -> Refusal:
    param = "response_format.json_schema.schema"
    return Refusal(400, f"'{param}' {why}.", "invalid_value", param=param)
