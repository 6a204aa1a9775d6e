"""What computes the answers: the interface that the front knows."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from dataclasses import dataclass
from typing import Any, Literal, Protocol

FinishReason = Literal["stop", "length"]


@dataclass(frozen=True)
class Sampling:
    """How one answer is drawn; the settings are the whole of it (no top-k, no penalties)."""

    temperature: float
    """0 decodes greedily."""
    top_p: float
    max_tokens: int
    stop: tuple[str, ...] = ()
    """Texts before which the answer ends."""
    seed: int | None = None
    json_schema: dict[str, Any] | None = None


@dataclass(frozen=True)
class Piece:
    """A part of an answer, in the order of its text."""

    text: str
    finish_reason: FinishReason | None = None
    """Of the last piece; None of the others."""
    tokens: int = 0
    """Generated so far, with the one that ended the answer."""


class Engine(Protocol):
    """Draws answers to prompts, several together."""

    enforces_schemas: bool
    is_closed: bool
    """Whether it was ended on purpose."""

    def generate(self, prompt: list[int], sampling: Sampling) -> AsyncGenerator[Piece]:
        """The pieces of one answer; closing it before the last one frees its slot.

        Prompt and ``max_tokens`` together have room in the context.

        Raises:
            EngineError: The engine has ended, or fails.
            Refusal: It cannot enforce the schema.
        """

    def is_alive(self) -> bool:
        """Whether it can answer."""

    def close(self) -> None:
        """End it; answers that are being drawn fail. A second call does nothing."""
