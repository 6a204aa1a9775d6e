"""A part of a release, loaded."""

from __future__ import annotations

from typing import TYPE_CHECKING

from llamaduo.errors import InputError
from llamaduo.local_llm.release import Release
from llamaduo.serving.engines import Engine
from llamaduo.serving.student import Student

if TYPE_CHECKING:
    import torch

MERGED = "merged"
"""The model of the release as it was evaluated; the others are its GGUF files."""
CONTEXT = 2048
"""Tokens, where nobody says how many."""


def load_student(release: Release, part: str) -> Student:
    """Read what the server has to know of a student.

    Args:
        part: ``merged``, or a quantization.

    Raises:
        InputError: The release has no such part.
    """
    parts = [MERGED, *release.gguf]
    if part not in parts:
        raise InputError(
            f"the release {release.folder} has no {part}; choose --model from {', '.join(parts)}"
        )
    return Student.of(release, release.name if part == MERGED else release.gguf[part].stem)


def context_of(student: Student, asked: int | None) -> int:
    """Tokens of prompt and answer together.

    Raises:
        InputError: More were asked for than the model reads.
    """
    window = student.window
    if asked is None:
        return CONTEXT if window is None else min(CONTEXT, window)
    if window is not None and asked > window:
        raise InputError(f"the student reads {window} tokens; --context may be at most that")
    return asked


def load_engine(
    release: Release,
    part: str,
    student: Student,
    slots: int,
    context: int,
    dtype: torch.dtype | None = None,
) -> Engine:
    """Load the weights.

    Args:
        dtype: Of the merged model; None takes the one of training and evaluation.

    Raises:
        InferenceError: llama.cpp cannot read the GGUF file.
    """
    shared = student.tokenizer, student.stop_tokens, slots, context
    if part == MERGED:
        from llamaduo.serving.merged import MergedEngine

        return MergedEngine(release.model, *shared, dtype)
    from llamaduo.serving.llama_cpp import LlamaCppEngine

    return LlamaCppEngine(release.gguf[part], *shared)
