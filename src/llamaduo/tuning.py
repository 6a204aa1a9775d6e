"""How an iteration tunes the local LLM: by SFT, or past its plateau by preference."""

import logging
from typing import Any, Literal, cast

from llamaduo.parameters import EvaluationParameters, FineTuningParameters, LoopParameters

logger = logging.getLogger(__name__)

Tuning = Literal["sft", "preference"]


def tuning_of(previous_verdict: dict[str, Any] | None) -> Tuning:
    """What the verdict before has decided; a loop begins with SFT."""
    if previous_verdict is None:
        return "sft"
    return cast(Tuning, previous_verdict["next_tuning"])


def warn_of_no_room(
    fine_tuning: FineTuningParameters, evaluation: EvaluationParameters, loop: LoopParameters
) -> None:
    """Say where a loop has to end before it can tune by preference.

    A plateau takes a first iteration and ``patience`` more; preference follows it.
    """
    earliest = evaluation.patience + 2
    if fine_tuning.preference.enabled and loop.max_iterations < earliest:
        logger.warning(
            "fine_tuning.preference has no room: with evaluation.patience %d no iteration "
            "before %d is tuned by it, and loop.max_iterations is %d",
            evaluation.patience,
            earliest,
            loop.max_iterations,
        )
