"""What the scores of an iteration prove."""

import logging
from typing import Any

import pandas as pd

from llamaduo.parameters import EvaluationParameters, FineTuningParameters, LoopParameters
from llamaduo.pipelines.evaluation.judging import SCORES
from llamaduo.statistics import (
    describe_gain,
    is_gain_unproven,
    is_loss_proven,
    mean_and_error,
    needed_prompts,
    paired_gains,
    rounded,
    summarise,
)
from llamaduo.tuning import Tuning

logger = logging.getLogger(__name__)

LEAST_NEW = 0.2
"""Share of the pairs that came which must be no repetition of known ones."""
REPETITIONS = ("copy_of_seed", "near_duplicate")


def assess_scores(
    scores: pd.DataFrame,
    previous_iteration_history: list[dict[str, Any]] | None,
    synthesis_report: dict[str, Any],
    training_report: dict[str, Any],
    judge_audit: dict[str, Any],
    measurement: dict[str, Any],
    evaluation: EvaluationParameters,
    fine_tuning: FineTuningParameters,
    loop: LoopParameters,
) -> dict[str, Any]:
    """Say what the scores prove: is the target met, and does it go on upwards.

    Returns:
        The summaries of both scores, also by category and against earlier iterations;
        ``measured``, what the scores rest on, and all of the ``decoding``; ``best_iteration`` of
        those that rest on the same;
        ``obstacles``, sentences that forbid a verdict on these scores; ``target_met``,
        ``advisory``, and ``plateau``, ``regression``, ``no_new_data``, ``judge_failed`` and
        ``over_budget`` as reasons to stop without the target; ``next_tuning``, how a next iteration
        tunes: by preference from the plateau of SFT on, if that is enabled.
    """
    history, tuning = previous_iteration_history or [], training_report["tuning"]
    summary = summarise_scores(scores, evaluation, evaluation.alpha / loop.max_iterations)
    failures = [
        f"the judge {judge['model']} {failure}"
        for judge in judge_audit["judges"]
        for failure in judge["failures"]
    ]
    obstacles = [*too_few_judged(summary, evaluation), *failures]
    assessment = {
        "iteration": len(history) + 1,
        **summary,
        "measured": measurement,
        "decoding": evaluation.decoding.model_dump(),
        "obstacles": obstacles,
    }
    now = {"scores": per_prompt(scores), "assessment": assessment}
    comparable = comparable_history(history, measurement)
    rivals = [best_before(comparable, evaluation)] if comparable else []
    best = best_of([*rivals, now], evaluation)
    flat = not obstacles and has_flattened(comparable, now, tuning, evaluation)
    changes_over = flat and tuning == "sft" and fine_tuning.preference.enabled
    return {
        **assessment,
        "best_iteration": best["assessment"]["iteration"],
        "categories": summarise_categories(scores),
        "compared": compare(comparable, now, evaluation),
        "needed_prompts": describe_power(scores, summary["alpha"], judge_audit, evaluation),
        "target_met": not obstacles and meets_target(summary, evaluation),
        "plateau": flat and not changes_over,
        "next_tuning": "preference" if changes_over else tuning,
        "regression": is_regression([*comparable, now]),
        "judge_failed": bool(obstacles and comparable and is_refused(comparable[-1])),
        "no_new_data": brought_nothing_new(synthesis_report),
        "over_budget": bool(
            synthesis_report["over_budget"]
            or training_report["over_budget"]
            or scores["over_budget"].any()
            or judge_audit["over_budget"]
        ),
    }


def summarise_scores(
    scores: pd.DataFrame, evaluation: EvaluationParameters, alpha: float
) -> dict[str, Any]:
    """Both scores over the prompts, with their lower bounds at a one-sided level."""
    share = scores["judged"] / scores["expected"]
    return {
        "prompts": len(scores),
        "judged_share": float(scores["judged"].sum() / scores["expected"].sum()),
        **{name: summarise(scores[name], share, alpha, evaluation.threshold) for name in SCORES},
        "full_marks_percentage": rounded(100 * scores["full_marks"].mean()),
        "cut_off": int(scores["cut_off"].sum()),
        "alpha": alpha,
        "advisory": len(scores) < evaluation.min_prompts,
    }


def summarise_categories(scores: pd.DataFrame) -> dict[str, dict[str, Any]]:
    """Prompts, and mean and standard error of both scores, by category."""
    return {
        str(category): {
            "prompts": len(own),
            **{name: mean_and_error(own[name]) for name in SCORES},
        }
        for category, own in scores.groupby("category")
    }


def comparable_history(
    history: list[dict[str, Any]], measurement: dict[str, Any]
) -> list[dict[str, Any]]:
    """The latest iterations in a row that were measured as this one is."""
    comparable: list[dict[str, Any]] = []
    for entry in reversed(history):
        if entry["assessment"]["measured"] != measurement:
            logger.warning(
                "iteration %d and those before it were measured with another judge, judge prompt, "
                "test set, engine or decoding, so that they are not compared with this one",
                entry["assessment"]["iteration"],
            )
            break
        comparable.insert(0, entry)
    return comparable


def compare(
    comparable: list[dict[str, Any]], now: dict[str, Any], evaluation: EvaluationParameters
) -> dict[str, Any]:
    """The gain over the previous and over the best iteration, prompt by prompt."""
    if not comparable:
        return {}
    others = {"previous": comparable[-1], "best": best_before(comparable, evaluation)}
    return {
        label: {
            "iteration": other["assessment"]["iteration"],
            **{
                name: describe_gain(paired_gains(now["scores"][name], other["scores"][name]))
                for name in SCORES
            },
        }
        for label, other in others.items()
    }


def describe_power(
    scores: pd.DataFrame,
    alpha: float,
    judge_audit: dict[str, Any],
    evaluation: EvaluationParameters,
) -> dict[str, dict[str, int] | None]:
    """By score: test prompts that the asked power needs, by judgements per response."""
    judges = judge_audit["judges"]
    drawn = evaluation.responses_per_prompt * len(judges), evaluation.judgements_per_response
    needed: dict[str, dict[str, int] | None] = {}
    for name in SCORES:
        spreads = [judge["spread"][name] for judge in judges]
        spread = None if None in spreads else max(spreads)
        counts = needed_prompts(
            scores[name].std(), spread, drawn, evaluation.margin, alpha, evaluation.power
        )
        needed[name] = counts and {
            repeats: max(count, evaluation.min_prompts) for repeats, count in counts.items()
        }
    return needed


def too_few_judged(summary: dict[str, Any], evaluation: EvaluationParameters) -> list[str]:
    """A sentence where fewer judgements could be read than a verdict needs."""
    if summary["judged_share"] >= evaluation.min_judged:
        return []
    return [
        f"only {100 * summary['judged_share']:.1f} % of the judgements could be read, a verdict "
        f"needs {100 * evaluation.min_judged:g} %"
    ]


def meets_target(summary: dict[str, Any], evaluation: EvaluationParameters) -> bool:
    """Whether both scores reach their target by the verdict's rule."""
    return least_margin(summary, evaluation) >= 0


def least_margin(summary: dict[str, Any], evaluation: EvaluationParameters) -> float:
    """Points by which the weaker score is over its target, by the verdict's rule."""
    values = {name: summary[name][evaluation.verdict] for name in SCORES}
    return min(
        float("-inf") if values[name] is None else values[name] - target
        for name, target in evaluation.targets.items()
    )


def per_prompt(scores: pd.DataFrame) -> dict[str, dict[str, float | None]]:
    """Score: prompt id: value, as the history carries them for paired comparisons."""
    return {
        name: {
            prompt_id: None if pd.isna(value) else float(value)
            for prompt_id, value in zip(scores["id"], scores[name], strict=True)
        }
        for name in SCORES
    }


def has_flattened(
    comparable: list[dict[str, Any]],
    now: dict[str, Any],
    tuning: Tuning,
    evaluation: EvaluationParameters,
) -> bool:
    """Whether SFT is at a plateau, or an iteration by preference brought nothing.

    The latter went on from the best one before, and is measured by it.
    """
    if tuning == "preference":
        return bool(comparable) and gains_nothing(now, best_before(comparable, evaluation))
    return is_plateau([*comparable, now], evaluation.patience)


def is_plateau(history: list[dict[str, Any]], patience: int) -> bool:
    """Whether no score has a proven gain over the last ``patience`` iterations."""
    return len(history) > patience and gains_nothing(history[-1], history[-1 - patience])


def gains_nothing(now: dict[str, Any], before: dict[str, Any]) -> bool:
    """Whether no score of an entry has a proven gain over an earlier one."""
    return not is_refused(before) and all(
        is_gain_unproven(paired_gains(now["scores"][name], before["scores"][name]))
        for name in SCORES
    )


def is_regression(history: list[dict[str, Any]]) -> bool:
    """Whether a score has fallen provably twice in a row."""
    if len(history) < 3 or any(is_refused(entry) for entry in history[-3:]):
        return False
    oldest, middle, latest = (entry["scores"] for entry in history[-3:])
    return any(
        is_loss_proven(paired_gains(middle[name], oldest[name]))
        and is_loss_proven(paired_gains(latest[name], middle[name]))
        for name in SCORES
    )


def is_refused(entry: dict[str, Any]) -> bool:
    """Whether an iteration's scores carry no verdict: with judgements missing they flatter."""
    return bool(entry["assessment"]["obstacles"])


def brought_nothing_new(synthesis_report: dict[str, Any]) -> bool:
    """Whether no pair was kept of those asked for, or nearly all repeated known ones."""
    dropped, kept = synthesis_report["dropped"], synthesis_report["kept"]
    came = kept + sum(dropped.values())
    new = came - sum(dropped.get(reason, 0) for reason in REPETITIONS)
    return bool(synthesis_report["asked"] and (kept == 0 or new < LEAST_NEW * came))


def best_before(
    comparable: list[dict[str, Any]], evaluation: EvaluationParameters
) -> dict[str, Any]:
    """The best one so far as it was named then: its adapter was kept, whatever the targets are now.

    Where that one was measured otherwise, the best of those that were not.
    """
    named = comparable[-1]["assessment"]["best_iteration"]
    kept = [entry for entry in comparable if entry["assessment"]["iteration"] == named]
    return kept[0] if kept else best_of(comparable, evaluation)


def best_of(history: list[dict[str, Any]], evaluation: EvaluationParameters) -> dict[str, Any]:
    """The entry whose weaker score is highest over its target.

    One whose scores carry no verdict is the best only among such.
    """
    return max(
        history,
        key=lambda entry: (not is_refused(entry), least_margin(entry["assessment"], evaluation)),
    )
