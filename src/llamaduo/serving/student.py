"""The released student as its server knows it, whatever computes its answers."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from llamaduo.local_llm.base_model import (
    BaseModelSpec,
    load_generation_config,
    load_tokenizer,
    stop_token_ids,
)
from llamaduo.local_llm.chat import Message, encode_prompt
from llamaduo.local_llm.release import Release
from llamaduo.serving.errors import Refusal

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


@dataclass(frozen=True)
class Student:
    """Tokenizer, stop tokens, and the decoding with which the student was evaluated."""

    name: str
    tokenizer: PreTrainedTokenizerBase
    stop_tokens: list[int]
    temperature: float
    """0 decodes greedily."""
    top_p: float
    max_tokens: int | None
    """Of an answer; None is as many as fit."""
    window: int | None
    """Tokens that the model can read; None where its config does not say."""
    # One thread: it would slow the answers of others if several long prompts were encoded at once.
    _encoder: ThreadPoolExecutor = field(default_factory=lambda: ThreadPoolExecutor(1), repr=False)

    @classmethod
    def of(cls, release: Release, name: str) -> Student:
        """Read what the release says.

        Args:
            name: By which answers name it.
        """
        from transformers import AutoConfig

        spec = BaseModelSpec(str(release.model))
        tokenizer = load_tokenizer(spec)
        generation = load_generation_config(spec)
        config = AutoConfig.from_pretrained(release.model).get_text_config().to_dict()
        # The first encoding sets the tokenizer up; from then on threads only read it.
        encode_prompt(tokenizer, [{"role": "user", "content": ""}])
        return cls(
            name,
            tokenizer,
            stop_token_ids(generation, tokenizer),
            temperature=_or_1(generation.temperature) if generation.do_sample else 0.0,
            top_p=_or_1(generation.top_p) if generation.do_sample else 1.0,
            max_tokens=generation.max_new_tokens,
            window=config.get("max_position_embeddings"),
        )

    async def encode(self, messages: list[Message]) -> list[int]:
        """The tokens of a prompt, as training and evaluation had them.

        Raises:
            Refusal: The chat template does not take such a conversation.
        """
        loop = asyncio.get_running_loop()
        try:
            return await loop.run_in_executor(
                self._encoder, encode_prompt, self.tokenizer, messages
            )
        except ValueError as error:
            roles = ", ".join(message["role"] for message in messages)
            why = f": {error.__cause__}" if error.__cause__ else ""
            raise Refusal(
                400,
                f"The student's chat template refuses a conversation of {roles}{why}.",
                "invalid_value",
                param="messages",
            ) from error


def _or_1(value: float | None) -> float:
    return 1.0 if value is None else value
