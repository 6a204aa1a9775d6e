"""From scores to a verdict."""

import json
import logging
from typing import Any

import pandas as pd

from llamaduo.parameters import EvaluationParameters, LoopParameters
from llamaduo.pipelines.evaluation.nodes import SCORES
from llamaduo.pipelines.evaluation.statistics import is_gain_unproven, is_loss_proven, summarise

logger = logging.getLogger(__name__)


def assess_scores(
    scores: pd.DataFrame,
    previous_iteration_history: list[dict[str, Any]] | None,
    synthesis_report: dict[str, Any],
    evaluation: EvaluationParameters,
    loop: LoopParameters,
) -> dict[str, Any]:
    """Say what the scores prove: is the target met, and does it go on upwards.

    Returns:
        The summaries of both scores, ``judged_share``, ``target_met``, ``advisory``, and
        ``plateau``, ``regression``, ``no_new_data`` and ``over_budget`` as reasons to stop without
        the target.
    """
    history = previous_iteration_history or []
    summary = summarise_scores(scores, evaluation, evaluation.alpha / loop.max_iterations)
    now = {"scores": per_prompt(scores)}
    asked_in_vain = synthesis_report["asked"] > 0 and synthesis_report["kept"] == 0
    return {
        "iteration": len(history) + 1,
        **summary,
        "target_met": meets_target(summary, evaluation),
        "plateau": is_plateau([*history, now], evaluation.patience),
        "regression": is_regression([*history, now]),
        "no_new_data": asked_in_vain,
        "over_budget": bool(synthesis_report["over_budget"] or scores["over_budget"].any()),
    }


def summarise_scores(
    scores: pd.DataFrame, evaluation: EvaluationParameters, alpha: float
) -> dict[str, Any]:
    """Both scores over the prompts, with their lower bounds at a one-sided level."""
    judged_share = scores["judged"].sum() / scores["expected"].sum()
    return {
        "prompts": len(scores),
        "judged_share": round(float(judged_share), 4),
        **{name: summarise(scores[name], alpha, evaluation.threshold) for name in SCORES},
        "full_marks_percentage": round(float(100 * scores["full_marks"].mean()), 2)
        if scores["full_marks"].notna().any()
        else None,
        "alpha": alpha,
        "advisory": len(scores) < evaluation.min_prompts,
    }


def meets_target(summary: dict[str, Any], evaluation: EvaluationParameters) -> bool:
    """Whether both scores reach their target by the verdict's rule, with enough judged."""
    if summary["judged_share"] < evaluation.min_judged:
        return False
    what = "lower_bound" if evaluation.verdict == "lower_bound" else "mean"
    targets = {
        "similarity": evaluation.target_similarity,
        "precision": evaluation.target_precision,
    }
    values = {name: summary[name][what] for name in SCORES}
    return all(values[name] is not None and values[name] >= targets[name] for name in SCORES)


def per_prompt(scores: pd.DataFrame) -> dict[str, dict[str, float | None]]:
    """Score: prompt id: value, as the history carries them for paired comparisons."""
    return {
        name: {
            prompt_id: None if pd.isna(value) else float(value)
            for prompt_id, value in zip(scores["id"], scores[name], strict=True)
        }
        for name in SCORES
    }


def is_plateau(history: list[dict[str, Any]], patience: int) -> bool:
    """Whether no score has a proven gain over the last ``patience`` iterations."""
    if len(history) <= patience:
        return False
    now, before = history[-1]["scores"], history[-1 - patience]["scores"]
    return all(is_gain_unproven(now[name], before[name]) for name in SCORES)


def is_regression(history: list[dict[str, Any]]) -> bool:
    """Whether the precision has fallen provably twice in a row."""
    if len(history) < 3:
        return False
    steps = [(history[-1], history[-2]), (history[-2], history[-3])]
    return all(
        is_loss_proven(now["scores"]["precision"], before["scores"]["precision"])
        for now, before in steps
    )


def open_holdout(assessment: dict[str, Any], coverage_holdout: pd.DataFrame) -> pd.DataFrame:
    """The holdout when the target is met on the test set, no row of it before.

    Returns:
        ``CoveragePairs``, or an empty table.
    """
    if assessment["target_met"]:
        return coverage_holdout
    return coverage_holdout.head(0)


def confirm(holdout_scores: pd.DataFrame, evaluation: EvaluationParameters) -> dict[str, Any]:
    """Check the target once more on the holdout, at the undivided level: it is seen only once.

    Returns:
        The summary of the holdout, ``confirmed`` and ``over_budget``; empty unless the target was
        met.
    """
    if holdout_scores.empty:
        return {}
    summary = summarise_scores(holdout_scores, evaluation, evaluation.alpha)
    return {
        **summary,
        "confirmed": meets_target(summary, evaluation),
        "over_budget": bool(holdout_scores["over_budget"].any()),
    }


def reach_verdict(
    assessment: dict[str, Any],
    confirmation: dict[str, Any],
    previous_iteration_history: list[dict[str, Any]] | None,
    loop: LoopParameters,
) -> dict[str, Any]:
    """Decide whether the loop ends here, and why.

    Returns:
        ``iteration``; ``stop``; ``reason`` (target, budget, target_not_confirmed, regression,
        no_new_data, plateau, max_iterations, or null); ``target_reached``; ``advisory``, where
        the test set or the holdout is small; ``best_iteration``, the one with the highest lower
        bound of the precision.
    """
    reached = bool(confirmation.get("confirmed"))
    reasons = {
        "target": reached,
        "budget": assessment["over_budget"] or confirmation.get("over_budget", False),
        "target_not_confirmed": bool(confirmation) and not reached,
        "regression": assessment["regression"],
        "no_new_data": assessment["no_new_data"],
        "plateau": assessment["plateau"],
        "max_iterations": assessment["iteration"] >= loop.max_iterations,
    }
    reason = next((name for name, holds in reasons.items() if holds), None)
    earlier = [entry["assessment"] for entry in previous_iteration_history or []]
    best = max([*earlier, assessment], key=lambda each: each["precision"]["lower_bound"] or 0.0)
    verdict = {
        "iteration": assessment["iteration"],
        "stop": reason is not None,
        "reason": reason,
        "target_reached": reached,
        "advisory": assessment["advisory"] or confirmation.get("advisory", False),
        "best_iteration": best["iteration"],
    }
    logger.info("verdict: %s", json.dumps(verdict))
    return verdict


def record_iteration(
    previous_iteration_history: list[dict[str, Any]] | None,
    training_set: pd.DataFrame,
    scores: pd.DataFrame,
    assessment: dict[str, Any],
    verdict: dict[str, Any],
) -> list[dict[str, Any]]:
    """Add this iteration to the history, with its per-prompt scores for later comparisons."""
    entry = {
        "training_pairs": len(training_set),
        "assessment": assessment,
        "verdict": verdict,
        "scores": per_prompt(scores),
    }
    return [*(previous_iteration_history or []), entry]
