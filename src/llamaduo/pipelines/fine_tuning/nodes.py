"""From a training set to an adapter."""

import hashlib
import json
import logging
from pathlib import Path
from typing import Any

import pandas as pd
import plotly.graph_objects as go

from llamaduo.local_llm.base_model import BaseModelSpec
from llamaduo.local_llm.training import TrainingSettings, train
from llamaduo.parameters import FineTuningParameters, IterationParameters, for_iteration

logger = logging.getLogger(__name__)


def fine_tune(
    base_model: BaseModelSpec,
    previous_adapter: Path | None,
    training_set: pd.DataFrame,
    synthesis_report: dict[str, Any],
    fine_tuning: FineTuningParameters,
    iteration: IterationParameters,
) -> Path:
    """Train a LoRA adapter on the pairs that are due in this iteration.

    Returns:
        A folder that the adapter's dataset copies: a temporary one, or the previous adapter where
        new pairs were asked for in vain.
    """
    if previous_adapter and synthesis_report["asked"] and not synthesis_report["kept"]:
        logger.warning("nothing new to train on: the previous adapter is handed on")
        return previous_adapter
    start = previous_adapter if fine_tuning.start == "previous" else None
    pairs = training_set
    if start is not None:
        pairs = choose_due_pairs(training_set, fine_tuning, iteration.index)
    settings = training_settings(fine_tuning, iteration.index)
    return train(base_model, pairs, start, settings, describe_training_data(training_set))


def describe_training_data(training_set: pd.DataFrame) -> dict[str, Any]:
    """Tell who has taught an adapter, in this iteration and those that it goes on from.

    Returns:
        ``pairs``, their number by origin; ``teachers``, the models that were asked, and ``models``,
        those that their endpoints reported; ``sha256`` of the pairs in UTF-8, each a line with a
        JSON array of system message, prompt and response.
    """
    rows = training_set[["system", "prompt", "response"]].to_numpy().tolist()
    text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    return {
        "pairs": {
            str(origin): int(n) for origin, n in training_set.groupby("origin").size().items()
        },
        "teachers": _names(training_set["teacher"]),
        "models": _names(training_set["model"]),
        "sha256": hashlib.sha256(text.encode("utf-8")).hexdigest(),
    }


def _names(column: pd.Series) -> list[str]:
    return sorted(set(column.dropna()) - {""})


def training_settings(fine_tuning: FineTuningParameters, iteration: int) -> TrainingSettings:
    """What the parameters ask for in an iteration."""
    return TrainingSettings(
        learning_rate=for_iteration(fine_tuning.learning_rate, iteration),
        epochs=for_iteration(fine_tuning.epochs, iteration),
        batch_size=fine_tuning.batch_size,
        gradient_accumulation_steps=fine_tuning.gradient_accumulation_steps,
        warmup=fine_tuning.warmup,
        max_length=fine_tuning.max_length,
        lora_rank=fine_tuning.lora_rank,
        lora_alpha=fine_tuning.lora_alpha,
        lora_dropout=fine_tuning.lora_dropout,
        target_modules=fine_tuning.target_modules,
        seed=fine_tuning.seed,
    )


def choose_due_pairs(
    training_set: pd.DataFrame, fine_tuning: FineTuningParameters, iteration: int
) -> pd.DataFrame:
    """The new pairs, all coverage pairs, and a replay of the earlier synthetic ones.

    Replay keeps what was learned before from being forgotten, at a fraction of its cost.
    """
    new = training_set["iteration"] == iteration
    coverage = training_set["origin"] == "coverage"
    earlier = training_set[~new & ~coverage]
    replayed = earlier.sample(
        frac=fine_tuning.replay_share, random_state=fine_tuning.seed * 1000 + iteration
    )
    return pd.concat([training_set[new | coverage], replayed], ignore_index=True)


def read_training_log(adapter: Path) -> pd.DataFrame:
    """The trainer's log as a table: ``TrainingLog``, one row per logged step."""
    return pd.read_json(adapter / "training_log.jsonl", lines=True)


def plot_training_curve(training_log: pd.DataFrame) -> go.Figure:
    """Loss over steps."""
    figure = go.Figure(go.Scatter(x=training_log["step"], y=training_log["loss"]))
    return figure.update_layout(
        title="Training loss of this iteration", xaxis_title="step", yaxis_title="loss"
    )
