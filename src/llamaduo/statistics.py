"""Statistics of per-prompt scores; the unit is the prompt (Miller 2024, arXiv 2411.00640)."""

from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

Floats = npt.NDArray[np.float64]

CONFIDENCE = 0.95
"""Of all two-sided intervals."""
GAIN_ALPHA = 0.10
"""One-sided level at which a gain or a loss between iterations counts as proven."""
LOSS_MARGIN = 1.0
"""Points that a proven loss exceeds."""
FEWEST = 20
"""Prompts; with less a bootstrap has too little to draw from."""
MOST_ZEROS = 0.25
"""Share of the prompts; a ratio to a base that has more of them says little, and might be drawn
without a base at all."""
RESAMPLES_AT_ONCE = 1000
LEAST_SKEW = 1e-6
"""Over √n; below it the correction is lost in rounding."""
LEAST_DEVIATION = 1.0
"""Points; where the prompts differ by less, there is no chance to speak of."""
REPEATS = (1, 3, 10)
"""Judgements per response for which the needed prompts are told."""


def summarise(
    scores: pd.Series, judged_share: pd.Series, alpha: float, threshold: float
) -> dict[str, Any]:
    """Mean, spread and coverage of one score over the prompts.

    Args:
        scores: Per prompt, 0–100, null where nothing was judged.
        judged_share: Per prompt, the share of its judgements that could be read.
        alpha: One-sided level of the lower bound.
        threshold: A prompt counts as covered from this score on.

    Returns:
        ``mean``, ``standard_error`` and ``interval`` (95 %) over the judged prompts, null without
        any; ``lower_bound``, in which a judgement that is missing counts as 0;
        ``coverage_percentage``, the share of all prompts that are covered, 0–100, with its exact
        ``coverage_interval``. A prompt whose missing judgements could take it below the threshold
        is not covered.
    """
    worst = scores.fillna(0.0) * judged_share
    covered = int((worst >= threshold).sum())
    known = scores.dropna().to_numpy(dtype=float)
    return {
        **mean_and_error(scores),
        "interval": bootstrap_interval(known),
        "lower_bound": rounded(_on_scale(lower_bound(worst.to_numpy(dtype=float), alpha))),
        "coverage_percentage": rounded(100 * covered / len(scores)),
        "coverage_interval": exact_interval(covered, len(scores)),
    }


def mean_and_error(scores: pd.Series) -> dict[str, float | None]:
    """``mean`` and ``standard_error`` over the prompts that have a score."""
    return {"mean": rounded(scores.mean()), "standard_error": rounded(scores.sem())}


def _on_scale(bound: Floats) -> Floats:
    return np.maximum(bound, 0.0) if np.isfinite(bound) else bound


def lower_bound(values: Floats, alpha: float) -> Floats:
    """One-sided lower confidence bound of a mean: Student's t, corrected for the skew (Hall 1992).

    Scores pile up at the end of their scale. For such samples Student's own bound at 0.5 % errs in
    1.2 % (``tests/benchmarks/bench_stop_rule.py``); without skew the two are one.

    Args:
        values: ``(…, n)``.

    Returns:
        ``(…)``; minus infinity for fewer than two values.
    """
    from scipy import stats

    count = values.shape[-1]
    if count < 2:
        return np.full(values.shape[:-1], -np.inf)
    mean = values.mean(axis=-1)
    deviations = values - mean[..., None]
    quantile = stats.t.ppf(1 - alpha, count - 1)
    with np.errstate(all="ignore"):  # equal values have no skew
        skew = (deviations**3).mean(axis=-1) / deviations.std(axis=-1) ** 3 / np.sqrt(count)
        corrected = 3 / skew * (np.cbrt(1 + skew * (quantile - skew / 6)) - 1)
    factor = np.where(np.abs(skew) > LEAST_SKEW, corrected, quantile)
    return np.asarray(mean - factor * stats.sem(values, axis=-1))


def is_gain_unproven(gains: Floats) -> npt.NDArray[np.bool_]:
    """Whether the mean gain has a one-sided lower bound at or below zero: ``(…, n)`` to ``(…)``."""
    return lower_bound(gains, GAIN_ALPHA) <= 0


def is_loss_proven(gains: Floats) -> npt.NDArray[np.bool_]:
    """Whether the mean gain has an upper bound below minus the margin: ``(…, n)`` to ``(…)``."""
    return lower_bound(-gains, GAIN_ALPHA) > LOSS_MARGIN


def bootstrap_interval(values: Floats, base: Floats | None = None) -> list[float | None]:
    """BCa bootstrap interval of a mean, or of its ratio to another one (Efron 1987; SciPy).

    Args:
        values: ``(n,)``.
        base: Of the same prompts, ``(n,)``; the ratio is the mean of the values ÷ that of the base.

    Returns:
        Both ends; null where chance cannot be told: for fewer than twenty prompts, where all
        resamples are alike, and where the base is too often zero.
    """
    from scipy import stats

    samples = (values,) if base is None else (values, base)
    if len(values) < FEWEST or (base is not None and (base == 0).mean() > MOST_ZEROS):
        return [None, None]
    value = _mean_or_ratio(*samples, axis=0)
    if np.allclose(values, value if base is None else value * base):
        return [None, None]
    interval = stats.bootstrap(
        samples,
        _mean_or_ratio,
        paired=True,
        confidence_level=CONFIDENCE,
        batch=RESAMPLES_AT_ONCE,
        rng=np.random.default_rng(0),
    ).confidence_interval
    return [rounded(interval.low), rounded(interval.high)]


def _mean_or_ratio(values: Floats, base: Floats | None = None, *, axis: int) -> Floats:
    mean = values.mean(axis=axis)
    return np.asarray(mean if base is None else mean / base.mean(axis=axis))


def exact_interval(count: int, total: int) -> list[float | None]:
    """Clopper–Pearson interval of a share, as percentages."""
    from scipy import stats

    interval = stats.binomtest(count, total).proportion_ci(CONFIDENCE, method="exact")
    return [rounded(100 * interval.low), rounded(100 * interval.high)]


def paired_gains(now: dict[str, float | None], before: dict[str, float | None]) -> Floats:
    """Per-prompt differences over the prompts that both iterations have judged: ``(n,)``."""
    gains = pd.Series(now, dtype=float) - pd.Series(before, dtype=float)
    return np.asarray(gains.dropna(), dtype=np.float64)


def describe_gain(gains: Floats) -> dict[str, Any]:
    """Mean gain with its interval and Wilcoxon's signed-rank test.

    Returns:
        ``prompts``, ``mean``, ``interval`` and ``p_value``; null where they cannot be told.
    """
    from scipy import stats

    if len(gains) < 2:
        return {"prompts": len(gains), "mean": None, "interval": [None, None], "p_value": None}
    ends = [lower_bound(gains, (1 - CONFIDENCE) / 2), -lower_bound(-gains, (1 - CONFIDENCE) / 2)]
    return {
        "prompts": len(gains),
        "mean": rounded(gains.mean()),
        "interval": [rounded(end) for end in ends],
        "p_value": rounded(stats.wilcoxon(gains).pvalue) if gains.any() else None,
    }


def judge_spread(judgements: pd.DataFrame, score: str) -> float | None:
    """The judge's standard deviation within one response; null with one judgement of each."""
    by_item = judgements.dropna(subset=[score]).groupby(["id", "sample", "judge"])[score]
    counts = by_item.size()
    freedom = int((counts - 1).sum())
    if freedom == 0:
        return None
    squares = (by_item.var(ddof=0) * counts).sum()
    return rounded(np.sqrt(squares / freedom))


def needed_prompts(
    deviation: float,
    spread: float | None,
    drawn: tuple[int, int],
    margin: float,
    alpha: float,
    power: float,
) -> dict[str, int] | None:
    """Test prompts that would prove a target from which the truth is a margin away.

    Args:
        deviation: Standard deviation of the prompts' scores.
        spread: The judge's within one response.
        drawn: Responses per prompt times judges, and judgements per response of each, on which the
            deviation rests.
        margin: Points between the target and the truth.
        alpha: One-sided level of the bound.
        power: Chance to prove it.

    Returns:
        By judgements per response; only the present number where the spread is unknown. None
        where the prompts hardly differ.
    """
    from statsmodels.stats.power import TTestPower

    responses, judgements = drawn
    if not deviation >= LEAST_DEVIATION:
        return None
    needed = {}
    for repeats in sorted({judgements, *(REPEATS if spread is not None else ())}):
        change = (spread or 0.0) ** 2 / responses * (1 / repeats - 1 / judgements)
        effect = margin / np.sqrt(max(deviation**2 + change, margin**2))  # at most 1
        count = TTestPower().solve_power(effect, alpha=alpha, power=power, alternative="larger")
        needed[str(repeats)] = int(np.ceil(count))
    return needed


def rounded(value: Any) -> float | None:
    """Four digits behind the point; null for what is no finite number."""
    return round(float(value), 4) + 0.0 if np.isfinite(value) else None  # no minus zero
