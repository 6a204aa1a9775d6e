"""Statistics of per-prompt scores; the unit is the prompt (Miller 2024, arXiv 2411.00640)."""

from typing import Any

import numpy as np
import pandas as pd

GAIN_ALPHA = 0.10
"""One-sided level at which a gain over earlier iterations counts as proven."""


def summarise(scores: pd.Series, alpha: float, threshold: float) -> dict[str, Any]:
    """Mean, spread and coverage of one score over the prompts.

    Args:
        scores: Per prompt, 0–100, null where nothing was judged.
        alpha: One-sided level of the lower bound.
        threshold: A prompt counts as covered from this score on.

    Returns:
        ``mean`` and ``standard_error`` over the judged prompts (null without any);
        ``lower_bound``, in which a prompt that was not judged counts as 0;
        ``coverage_percentage``, the share of all prompts that are covered, 0–100.
    """
    worst = scores.fillna(0.0)
    return {
        "mean": _number(scores.mean()),
        "standard_error": _number(scores.sem()),
        "lower_bound": _number(lower_bound(worst, alpha)),
        "coverage_percentage": _number(100 * (worst >= threshold).mean()),
    }


def lower_bound(values: pd.Series, alpha: float) -> float:
    """One-sided lower confidence bound of a mean (Student's t)."""
    if len(values) < 2:
        return float("-inf")
    from scipy import stats

    sample = values.to_numpy(dtype=float)
    quantile = stats.t.ppf(1 - alpha, len(sample) - 1)
    return float(sample.mean() - quantile * stats.sem(sample))


def gain(now: dict[str, float], before: dict[str, float]) -> pd.Series:
    """Per-prompt differences over the prompts that both iterations have judged."""
    return (pd.Series(now, dtype=float) - pd.Series(before, dtype=float)).dropna()


def is_gain_unproven(now: dict[str, float], before: dict[str, float]) -> bool:
    """Whether the mean gain has a one-sided lower bound at or below zero."""
    return lower_bound(gain(now, before), GAIN_ALPHA) <= 0


def is_loss_proven(now: dict[str, float], before: dict[str, float]) -> bool:
    """Whether the mean gain has a one-sided upper bound below zero."""
    return lower_bound(-gain(now, before), GAIN_ALPHA) > 0


def _number(value: Any) -> float | None:
    return round(float(value), 4) if np.isfinite(value) else None
