"""Who computes the responses of the local LLM: this process, or a vLLM server that it calls."""

from __future__ import annotations

import hashlib
import json
import logging
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

from pydantic import BaseModel, ValidationError

from llamaduo.interruption import run_async
from llamaduo.local_llm.base_model import BaseModelSpec
from llamaduo.local_llm.chat import TEMPLATE_VARIABLES, Message
from llamaduo.local_llm.inference import DecodingSettings, Response, respond
from llamaduo.service_llm.client import CHECK_S, Request, ServiceLLM
from llamaduo.service_llm.failures import FailedAttempt, message_of

logger = logging.getLogger(__name__)

PURPOSE = "asking the local LLM"
"""In the journal and in the progress display."""
MODELS = "/models"
LOAD = "/load_lora_adapter"
"""Of vLLM, where VLLM_ALLOW_RUNTIME_LORA_UPDATING is set
(https://docs.vllm.ai/en/latest/features/lora/)."""
NEUTRAL = {"top_k": -1, "min_p": 0.0, "repetition_penalty": 1.0}
"""Parameters of vLLM that a model's own generation config would set otherwise."""
OK, NOT_FOUND = 200, 404
DIGITS = 16
"""Of an adapter's digest in its name."""
HINT = "is the server up, and are base_url and credentials of inference right?"


class InferenceError(Exception):
    """The local LLM cannot be asked, or has not answered all; the message says what to do."""


class InferenceEngine(Protocol):
    """Draws responses as ``respond`` does."""

    def respond(
        self,
        base_model: BaseModelSpec,
        adapter: Path | None,
        conversations: list[list[Message]],
        samples: int,
        decoding: DecodingSettings,
    ) -> list[list[Response]]:
        """One list of ``samples`` responses per conversation, in their order."""

    def check(self) -> str | None:
        """None, or a sentence that says why it cannot answer, and what to do."""

    def describe(self) -> dict[str, str]:
        """What scores rest on."""


class TransformersEngine:
    """This process."""

    def respond(
        self,
        base_model: BaseModelSpec,
        adapter: Path | None,
        conversations: list[list[Message]],
        samples: int,
        decoding: DecodingSettings,
    ) -> list[list[Response]]:
        """See ``llamaduo.local_llm.inference.respond``."""
        return respond(base_model, adapter, conversations, samples, decoding)

    def check(self) -> None:
        """The base model is checked where it is loaded."""

    def describe(self) -> dict[str, str]:
        """The engine's name."""
        return {"engine": "transformers"}


@dataclass(frozen=True)
class EndpointEngine:
    """A vLLM server, which loads each adapter from the folder where it lies.

    Args:
        server: Its client, which takes answers verbatim; its model is the base model.
    """

    server: ServiceLLM

    def respond(
        self,
        base_model: BaseModelSpec,
        adapter: Path | None,
        conversations: list[list[Message]],
        samples: int,
        decoding: DecodingSettings,
    ) -> list[list[Response]]:
        """Draw responses; what the journal has of this adapter is not drawn again.

        No account pays for it, and no budget ends it: the server is the user's own.

        Args:
            base_model: Not asked for: the server has loaded its own.
            adapter: A folder that the server reads under the same absolute path.

        Raises:
            InferenceError: The adapter was not loaded, or a response did not come.
        """
        asked = replace(self.server, model=self._load(adapter)) if adapter else self.server
        requests = [
            _request(messages, sample, decoding)
            for messages in conversations
            for sample in range(samples)
        ]
        replies = asked.complete_all(requests, PURPOSE)
        if failed := [reply for reply in replies if reply.failure]:
            raise InferenceError(
                f"{len(failed)} of {len(replies)} responses of the local LLM did not come from "
                f"{asked.base_url}, the first with: {failed[0].failure}, {failed[0].detail}. Those "
                "that came are in the journal and are not asked for again; mend the cause and go on"
            )
        responses = [
            # vLLM counts the token that ended it too; a server that counts none says 0.
            Response(
                str(reply.text), max(0, reply.completion_tokens - reply.finished), reply.finished
            )
            for reply in replies
        ]
        return [responses[i : i + samples] for i in range(0, len(responses), samples)]

    def check(self) -> str | None:
        """Whether the server has the base model, and loads adapters at run time."""
        where = self.server.base_url
        try:
            models = self._models()
            if self.server.model not in models:
                return (
                    f"{where} serves {', '.join(models)}, and no {self.server.model}; write the "
                    "base model's name as the server has it, or start the server with that model"
                )
            status, _ = self._call(LOAD, {})
        except InferenceError as error:
            return str(error)
        # vLLM refuses the empty body, and so has the call; LM Studio says OK to any.
        if status in (OK, NOT_FOUND):
            return (
                f"{where} loads no adapters at run time (HTTP {status} for {LOAD}); start vLLM "
                "with --enable-lora and VLLM_ALLOW_RUNTIME_LORA_UPDATING=True in its environment"
            )
        logger.info("inference: prompts go to %s as they are", where)
        return None

    def describe(self) -> dict[str, str]:
        """The engine's name, and the base model's at the server."""
        return {"engine": "endpoint", "model": self.server.model}

    def _load(self, adapter: Path) -> str:
        """Have the adapter loaded, unless it is; its name at the server."""
        name, folder = name_of(adapter, self.server.model), adapter.resolve()
        if name in self._models():
            return name
        status, text = self._call(LOAD, {"lora_name": name, "lora_path": str(folder)})
        if status != OK or name not in self._models():
            raise InferenceError(
                f"{self.server.base_url} did not load the adapter {folder} (HTTP {status}: "
                f"{message_of(text)}); the server must reach it under this very path, may read it, "
                "and have a --max-lora-rank of fine_tuning.lora_rank or more; mend the cause and "
                "go on"
            )
        return name

    def _models(self) -> list[str]:
        """Names of the base model and of the adapters that the server has loaded."""
        status, text = self._call(MODELS)
        try:
            return [model.id for model in _ModelList.model_validate_json(text).data]
        except ValidationError:
            raise InferenceError(
                f"{self.server.base_url}{MODELS} gave no list of models "
                f"(HTTP {status}: {message_of(text)}); {HINT}"
            ) from None

    def _call(self, path: str, body: dict[str, str] | None = None) -> tuple[int, str]:
        from llamaduo.service_llm.exchange import call, open_client

        server = self.server
        seconds = CHECK_S if path == MODELS else server.limits.timeout_s

        async def called() -> tuple[int, str]:
            key = server.api_key.get_secret_value()
            async with open_client(server.base_url, key, server.limits) as client:
                return await call(client, path, body, seconds)

        try:
            return run_async(called())
        except FailedAttempt as failed:
            raise InferenceError(f"{server.base_url}{path}: {failed.detail}; {HINT}") from failed


class _Model(BaseModel):
    id: str


class _ModelList(BaseModel):
    """What is read of OpenAI's list of models."""

    data: list[_Model]


def name_of(adapter: Path, base_model: str) -> str:
    """An adapter's name at the server, a digest of all that its answers rest on.

    The journal knows by it whose answers it has.
    """
    digest = hashlib.sha256(base_model.encode())
    for file in ("adapter_config.json", "adapter_model.safetensors"):
        digest.update(hashlib.sha256((adapter / file).read_bytes()).digest())
    return f"llamaduo-{digest.hexdigest()[:DIGITS]}"


def _request(messages: list[Message], sample: int, decoding: DecodingSettings) -> Request:
    # One seed for all would give all prompts the same luck; their scores must be independent.
    drawn = json.dumps([decoding.seed, sample, messages])
    seed = int.from_bytes(hashlib.sha256(drawn.encode()).digest()[:4])
    return Request(
        messages,
        max_tokens=decoding.max_new_tokens,
        expected_tokens=decoding.max_new_tokens,
        temperature=decoding.temperature,
        extra_body={
            "top_p": decoding.top_p,
            "seed": seed,
            **NEUTRAL,
            "chat_template_kwargs": TEMPLATE_VARIABLES,
        },
    )
