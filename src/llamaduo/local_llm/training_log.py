"""The trainer's log as a table of steps."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from transformers import TrainerState


def write_log(state: TrainerState, beta: float, file: Path) -> None:
    """The log as JSON lines, one a step: ``TrainingLog``."""
    steps: dict[float, dict[str, Any]] = {}
    for entry in state.log_history:
        if "loss" in entry:
            steps[entry["step"]] = {
                "step": entry["step"],
                "epoch": round(entry["epoch"], 4),
                "loss": entry["loss"],
                "validation_loss": None,
                "learning_rate": entry["learning_rate"],
                "grad_norm": entry["grad_norm"],
                "seconds": entry["seconds"],
                "tokens": entry["num_input_tokens_seen"],
                **rewards(entry, beta),
            }
        elif "eval_loss" in entry:
            steps[entry["step"]]["validation_loss"] = entry["eval_loss"]
    lines = "".join(json.dumps(step) + "\n" for step in steps.values())
    file.write_text(lines, encoding="utf-8")


def rewards(entry: dict[str, Any], beta: float, prefix: str = "") -> dict[str, float | None]:
    """Of an entry of TRL's log what DPO adds to it: ``TrainingLog``; null for SFT.

    A reward is beta times the log ratio of the adapter and the one that it started from. The one
    that it started from has drawn the rejected responses, so that their mean log ratio, turned
    round, estimates KL(start ‖ now).
    """
    rejected = entry.get(f"{prefix}rewards/rejected")
    return {
        "reward_margin": entry.get(f"{prefix}rewards/margins"),
        "reward_accuracy": entry.get(f"{prefix}rewards/accuracies"),
        "kl": None if rejected is None else 0.0 - rejected / beta,  # no minus zero
    }


def outcome(state: TrainerState, beta: float) -> dict[str, Any]:
    """How far a training came, and the figures of the adapter that is kept.

    Rewards are those on the validation pairs, without any those of the last step.
    """
    looks = [
        entry
        for entry in state.log_history
        if "eval_loss" in entry and entry["step"] == state.best_global_step
    ]
    steps = [entry for entry in state.log_history if "loss" in entry]
    return {
        "steps": state.global_step,
        "best_step": state.best_global_step or state.global_step,
        "validation_loss": state.best_metric,
        "tokens": state.num_input_tokens_seen,
        **(rewards(looks[-1], beta, "eval_") if looks else rewards(steps[-1], beta)),
    }
