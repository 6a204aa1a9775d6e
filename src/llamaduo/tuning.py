"""How an iteration tunes the local LLM: by SFT, or past its plateau by preference."""

from typing import Any, Literal, cast

Tuning = Literal["sft", "preference"]


def tuning_of(previous_verdict: dict[str, Any] | None) -> Tuning:
    """What the verdict before has decided; a loop begins with SFT."""
    if previous_verdict is None:
        return "sft"
    return cast(Tuning, previous_verdict["next_tuning"])
