"""From a training set to an adapter."""

import hashlib
import json
import logging
from math import ceil
from pathlib import Path
from typing import Any

import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from llamaduo.errors import InputError
from llamaduo.local_llm.base_model import BaseModelSpec
from llamaduo.local_llm.rows import describe_rows
from llamaduo.local_llm.training import LOG_FILE, Method, train
from llamaduo.parameters import FineTuningParameters, IterationParameters
from llamaduo.schemas import DuePairs, TrainingLog, seeds_of
from llamaduo.service_llm.failures import Failure
from llamaduo.service_llm.privacy import PrivacyGate
from llamaduo.tuning import tuning_of

logger = logging.getLogger(__name__)


CURVES = {
    "loss": "loss, and on the validation pairs (dots)",
    "learning_rate": "learning rate",
    "grad_norm": "gradient norm",
    "tokens_per_s": "tokens per second",
}
REWARDS = {
    "reward_margin": "reward margin, chosen over rejected",
    "reward_accuracy": "reward accuracy",
    "kl": "KL from the start, nats a response",
}
"""Of a training by preference alone."""
MOST_LOGGED = 400
"""Characters of a text, the last ones: what counts is how it ends."""
LEAST_VALIDATION = 4
"""Coverage pairs; fewer say nothing, and all are trained on."""


def choose_due_pairs(
    training_set: pd.DataFrame,
    synthesis_report: dict[str, Any],
    previous_verdict: dict[str, Any] | None,
    fine_tuning: FineTuningParameters,
    iteration: IterationParameters,
) -> pd.DataFrame:
    """Choose the pairs that are trained on in this iteration, and those that validate it.

    A training that goes on from the previous adapter takes the new pairs, all coverage pairs and a
    replay of the earlier synthetic ones, which keeps what was learned from being forgotten at a
    fraction of its cost. A pair validates in all iterations or in none, with all that was written
    from the same seed.

    Returns:
        ``DuePairs``; empty in an iteration by preference, and where new pairs were asked for in
        vain.
    """
    if tuning_of(previous_verdict) == "preference":
        return DuePairs.empty()
    if synthesis_report["asked"] and not synthesis_report["kept"]:
        logger.warning("nothing new to train on: the previous adapter is handed on")
        return DuePairs.empty()
    validation = are_validating(training_set, fine_tuning.validation_share)
    if fine_tuning.validation_share and not validation.any():
        logger.warning(
            "fewer than %d coverage pairs would validate the training: all are trained on, and the "
            "last step's adapter is taken for the best (a larger fine_tuning.validation_share "
            "keeps more of them back)",
            LEAST_VALIDATION,
        )
    due = validation | (training_set["origin"] == "coverage")
    due |= training_set["iteration"] == iteration.index
    earlier = training_set[~due]
    replayed = earlier.sample(
        frac=1 if fine_tuning.start == "base" else fine_tuning.replay_share,
        random_state=fine_tuning.seed * 1000 + iteration.index,
    )
    chosen = training_set[due | training_set.index.isin(replayed.index)]
    return chosen.assign(validation=validation).reset_index(drop=True)


def are_validating(training_set: pd.DataFrame, share: float) -> pd.Series:
    """Which pairs are those of the share of the seeds whose digests are lowest.

    Of the coverage set, which is there from the first iteration on, it is the share exactly; ready
    pairs, each its own seed, come later and are too many to matter. None, where these would be
    fewer than ``LEAST_VALIDATION`` coverage pairs: in no iteration, since they are trained on.
    """
    seeds, coverage = seeds_of(training_set), training_set["origin"] == "coverage"
    ids = sorted(training_set.loc[coverage, "id"], key=_place)
    kept_back = ids[: round(share * len(ids))]
    if len(kept_back) < LEAST_VALIDATION:
        return pd.Series(False, index=training_set.index)
    own_seed = ~seeds.isin(ids)
    return seeds.isin(kept_back) | (own_seed & (seeds.map(_place) < share))


def _place(seed: str) -> float:
    """Of a seed, from 0 to below 1: the same for ever."""
    return int.from_bytes(hashlib.sha256(seed.encode("utf-8")).digest()[:6]) / 2**48


def audit_due_pairs(
    base_model: BaseModelSpec,
    due_pairs: pd.DataFrame,
    preference_pairs: pd.DataFrame,
    training_set: pd.DataFrame,
    synthesis_report: dict[str, Any],
    fine_tuning: FineTuningParameters,
) -> dict[str, Any]:
    """See what the model will read and learn, before the first step.

    Returns:
        ``describe_rows`` of the pairs, of preference pairs with the response that is preferred;
        ``validation``, the number of those that are never trained on; ``too_long_share`` of all
        that might have been trained on, with what was left out for it before; ``training_data``
        (``describe_training_data``).

    Raises:
        InputError: There is nothing to train on, or more than ``max_too_long`` is too long.
    """
    preferred = preference_pairs.rename(columns={"chosen": "response"})
    pairs = due_pairs if preferred.empty else preferred
    rows = describe_rows(base_model, pairs, fine_tuning.max_length)
    nothing_due = due_pairs.empty and not training_set.empty
    reports = [] if nothing_due else ["dropped", "coverage_left_out"]
    lost = rows["too_long"] + sum(synthesis_report[name].get("too_long", 0) for name in reports)
    all_rows = lost + rows["rows"] - rows["too_long"]
    audit = {
        **rows,
        "preview": [_without_details(row) for row in rows["preview"]],
        "validation": int(pairs["validation"].sum()),
        "too_long_share": lost / max(1, all_rows),
        "training_data": describe_training_data(training_set),
    }
    if all_rows and (lost == all_rows or audit["too_long_share"] > fine_tuning.max_too_long):
        raise InputError(
            f"{lost} of {all_rows} pairs are too long for the model to be trained on, at most "
            f"{100 * fine_tuning.max_too_long:g} % may be: raise fine_tuning.max_length "
            f"({fine_tuning.max_length} tokens of prompt and response together) and begin a new "
            "loop, or go on without them by a larger fine_tuning.max_too_long"
        )
    for shown in audit["preview"][:1]:
        logger.info("the first pair is read: %r", shown["masked"][-MOST_LOGGED:])
        logger.info("and this is learned of it: %r", shown["learned"][-MOST_LOGGED:])
    return audit


def _without_details(row: dict[str, str]) -> dict[str, str]:
    """Privacy may be off for whoever taught; a log and a report are read by more people."""
    return dict(zip(row, PrivacyGate().protect([*row.values()]).texts, strict=True))


def fine_tune(
    base_model: BaseModelSpec,
    previous_adapter: Path | None,
    previous_best_adapter: Path | None,
    due_pairs: pd.DataFrame,
    preference_pairs: pd.DataFrame,
    training_audit: dict[str, Any],
    checkpoints: Path,
    previous_verdict: dict[str, Any] | None,
    fine_tuning: FineTuningParameters,
    iteration: IterationParameters,
) -> Path:
    """Train a LoRA adapter on the pairs that are due, or the best one so far by preference.

    Returns:
        A folder that the adapter's dataset copies: a temporary one, or the adapter to go on from
        where there are no pairs.
    """
    method: Method = "sft"
    pairs, start = due_pairs, previous_adapter
    if tuning_of(previous_verdict) == "preference":
        method, pairs, start = "dpo", preference_pairs, previous_best_adapter
    if pairs.empty and start:
        return start
    return train(
        base_model,
        pairs,
        None if method == "sft" and fine_tuning.start == "base" else start,
        checkpoints,
        fine_tuning,
        iteration.index,
        training_audit["training_data"],
        method,
    )


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


def report_training(
    adapter: Path,
    training_audit: dict[str, Any],
    preference_prompts: pd.DataFrame,
    preference_judgements: pd.DataFrame,
    previous_verdict: dict[str, Any] | None,
) -> dict[str, Any]:
    """Tell what was trained, how far, and what it took.

    Returns:
        The audit, without the pairs that were too long; ``tuning`` (sft, preference);
        ``steps``, ``best_step`` and ``validation_loss`` of the adapter that was kept; ``seconds``
        and ``tokens`` read in this iteration, ``energy_wh`` (an estimate): 0 where an earlier
        adapter was handed on. By preference also
        ``preference_prompts``, their number; ``reward_margin``, ``reward_accuracy`` and ``kl`` of
        the adapter that was kept (``TrainingLog``; on the validation pairs where there are any),
        null without a training; ``over_budget``, judgements that were not asked for.
    """
    manifest = json.loads((adapter / "manifest.json").read_text(encoding="utf-8"))
    tuning = tuning_of(previous_verdict)
    trained = training_audit["rows"] > 0
    counts = (manifest["rows"], manifest["rows_validation"]) if trained else (0, 0)
    fate = {
        name: manifest[name] if trained else None
        for name in ("steps", "best_step", "validation_loss")
    }
    cost = {name: manifest[name] if trained else 0 for name in ("seconds", "tokens", "energy_wh")}
    return {
        **training_audit,
        "rows": sum(counts),
        "validation": counts[1],
        **fate,
        **cost,
        "tuning": tuning,
        "preference_prompts": len(preference_prompts),
        "over_budget": int((preference_judgements["failure"] == Failure.OVER_BUDGET).sum()),
        **{name: manifest[name] if trained else None for name in REWARDS},
    }


def read_training_log(adapter: Path, training_report: dict[str, Any]) -> pd.DataFrame:
    """The trainer's log as a table: ``TrainingLog``, one row a step of this iteration."""
    if not training_report["rows"]:
        return TrainingLog.empty()
    log = pd.read_json(adapter / LOG_FILE, lines=True)
    took = log["seconds"].diff()
    return log.assign(tokens_per_s=log["tokens"].diff() / took.where(took > 0))


def plot_training_curve(training_log: pd.DataFrame) -> go.Figure:
    """Losses, learning rate, gradient norm and speed over the steps; by preference its rewards."""
    rewards = {name: title for name, title in REWARDS.items() if training_log[name].notna().any()}
    curves = CURVES | rewards
    rows = ceil(len(curves) / 2)
    figure = make_subplots(rows=rows, cols=2, subplot_titles=list(curves.values()))
    for place, column in enumerate(curves):
        line = go.Scatter(x=training_log["step"], y=training_log[column], name=curves[column])
        figure.add_trace(line, row=place // 2 + 1, col=place % 2 + 1)
    looks = training_log.dropna(subset="validation_loss")
    marks = go.Scatter(
        x=looks["step"], y=looks["validation_loss"], name="validation loss", mode="lines+markers"
    )
    figure.add_trace(marks, row=1, col=1)
    figure.update_xaxes(title="step")
    return figure.update_layout(
        title="Training of this iteration", showlegend=False, template="plotly_white", height=600
    )
