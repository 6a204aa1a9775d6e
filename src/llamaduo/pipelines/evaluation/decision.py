"""From what the scores prove to a verdict."""

import logging
from pathlib import Path
from typing import Any

import pandas as pd

from llamaduo.parameters import EvaluationParameters, FairnessParameters, LoopParameters
from llamaduo.pipelines.evaluation.assessment import (
    meets_target,
    per_prompt,
    summarise_scores,
    too_few_judged,
)
from llamaduo.pipelines.evaluation.sentences import conclude

logger = logging.getLogger(__name__)

TRAINING = (
    "rows",
    "validation",
    "steps",
    "best_step",
    "validation_loss",
    "seconds",
    "tokens",
    "energy_wh",
    "tuning",
    "reward_margin",
    "reward_accuracy",
    "kl",
)
"""Of the training report: what the history of iterations keeps."""
ENDINGS = ("over_budget", "judge_failed", "regression", "no_new_data", "plateau")
"""Of the assessment: each ends the loop without the target."""


def open_holdout(assessment: dict[str, Any], coverage_holdout: pd.DataFrame) -> pd.DataFrame:
    """The holdout when the target is met on the test set, no row of it before.

    Returns:
        ``CoveragePairs``, or an empty table.
    """
    if assessment["target_met"]:
        return coverage_holdout
    return coverage_holdout.head(0)


def is_last(
    assessment: dict[str, Any],
    audits: list[dict[str, Any]],
    loop: LoopParameters,
    fairness: FairnessParameters,
) -> bool:
    """Whether the loop ends here, whatever the holdout says."""
    endings = ("target_met", *ENDINGS)
    return (
        any(assessment[ending] for ending in endings)
        or assessment["iteration"] >= loop.max_iterations
        or any(is_unfair(audit, fairness) for audit in audits)
    )


def is_unfair(audit: dict[str, Any], fairness: FairnessParameters) -> bool:
    """Whether an alarm of a fairness audit ends the loop."""
    return fairness.on_excess == "stop" and bool(audit["alarms"])


def confirm(holdout_scores: pd.DataFrame, evaluation: EvaluationParameters) -> dict[str, Any]:
    """Check the target once more on the holdout, at the undivided level: it is seen only once.

    Returns:
        The summary of the holdout, ``obstacles``, ``confirmed`` and ``over_budget``; empty unless
        the target was met.
    """
    if holdout_scores.empty:
        return {}
    summary = summarise_scores(holdout_scores, evaluation, evaluation.alpha)
    obstacles = [f"on the holdout, {each}" for each in too_few_judged(summary, evaluation)]
    return {
        **summary,
        "obstacles": obstacles,
        "confirmed": not obstacles and meets_target(summary, evaluation),
        "over_budget": bool(holdout_scores["over_budget"].any()),
    }


def reach_verdict(
    assessment: dict[str, Any],
    confirmation: dict[str, Any],
    fairness_audit: dict[str, Any],
    loop: LoopParameters,
    fairness: FairnessParameters,
) -> dict[str, Any]:
    """Decide whether the loop ends here, and why.

    Returns:
        ``iteration``; ``stop``; ``reason`` (unfair, target, budget, judge_failed,
        target_not_confirmed, regression, no_new_data, plateau, max_iterations, or null);
        ``target_reached``; ``obstacles``, sentences that forbid a verdict on these scores;
        ``alarms``, those of the fairness audit; ``advisory``, where the test set or the holdout is
        small; ``best_iteration``, the confirmed one, or that whose weaker score is highest over its
        target; ``next_tuning`` (sft, preference), null where the loop ends.
    """
    unfair = is_unfair(fairness_audit, fairness)
    reached = bool(confirmation.get("confirmed")) and not unfair
    unconfirmable = bool(confirmation.get("obstacles"))
    reasons = {
        "unfair": unfair,
        "target": reached,
        "budget": assessment["over_budget"] or confirmation.get("over_budget", False),
        "judge_failed": unconfirmable or assessment["judge_failed"],
        "target_not_confirmed": bool(confirmation) and not reached,
        "regression": assessment["regression"],
        "no_new_data": assessment["no_new_data"],
        "plateau": assessment["plateau"],
        "max_iterations": assessment["iteration"] >= loop.max_iterations,
    }
    reason = next((name for name, holds in reasons.items() if holds), None)
    verdict = {
        "iteration": assessment["iteration"],
        "stop": reason is not None,
        "reason": reason,
        "target_reached": reached,
        "obstacles": assessment["obstacles"] + confirmation.get("obstacles", []),
        "alarms": fairness_audit["alarms"],
        "advisory": assessment["advisory"] or confirmation.get("advisory", False),
        "best_iteration": assessment["iteration" if reached else "best_iteration"],
        "next_tuning": None if reason else assessment["next_tuning"],
    }
    logger.info("%s", conclude(verdict))
    return verdict


def keep_best_adapter(
    adapter: Path, previous_best_adapter: Path | None, verdict: dict[str, Any]
) -> Path:
    """The adapter of the best iteration so far."""
    is_best = verdict["best_iteration"] == verdict["iteration"]
    return adapter if is_best or previous_best_adapter is None else previous_best_adapter


def record_iteration(
    previous_iteration_history: list[dict[str, Any]] | None,
    training_set: pd.DataFrame,
    synthesis_report: dict[str, Any],
    training_report: dict[str, Any],
    scores: pd.DataFrame,
    assessment: dict[str, Any],
    judge_audit: dict[str, Any],
    costs: dict[str, Any],
    verdict: dict[str, Any],
) -> list[dict[str, Any]]:
    """Add this iteration to the history, with its per-prompt scores for later comparisons."""
    entry = {
        "training_pairs": len(training_set),
        "synthesis": synthesis_report,
        "training": {name: training_report[name] for name in TRAINING},
        "assessment": assessment,
        "judge_audit": judge_audit,
        "costs": costs,
        "verdict": verdict,
        "scores": per_prompt(scores),
    }
    return [*(previous_iteration_history or []), entry]
