"""What two groups get: the gap between their shares, and whether it is significant.

Two pipelines audit by it: data_synthesis the pairs, evaluation the local LLM.
"""

from dataclasses import dataclass
from math import ceil, floor, inf
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from llamaduo.audit_groups import AuditGroups
from llamaduo.parameters import FairnessLimits
from llamaduo.service_llm.text import declines

FEWEST = 10
"""Independent cases of a group; of fewer nothing is concluded."""
SPARSE = 20
"""Seeds with a label, or without it; where there are fewer, the test is exact."""
EXCESSES = {
    "flip_rate",
    "toxic_excess",
    "stereotype_excess",
    "refusal_excess",
    "hedge_excess",
}
"""Measures of which less is no harm; of the others a gap counts in both directions."""

Floats = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Gap:
    """The gap between the values of two groups, in points, and how it was tested."""

    measure: str
    """A field of ``FairnessLimits``."""
    label: str
    """Which label, or empty."""
    groups: tuple[str, str]
    cases: tuple[int, int]
    values: tuple[float, float]
    interval: tuple[float, float]
    """Of 95 %."""
    p_value: float
    least_p: float
    """The smallest that any outcome with the same totals has."""
    extremes: Floats
    """The p-values where 0, 1, 2, … cases have the label, or change, all in one group."""
    one_case: float
    """Points that each of these adds to the gap; 0 where the test does not count them."""
    freedom: float = inf
    """Degrees of freedom of the interval."""

    @property
    def size(self) -> float:
        """Points in either direction; of an excess, of which less is no harm, in one."""
        gap = round(self.values[0] - self.values[1], 2)
        return gap if self.measure in EXCESSES else abs(gap)

    def least_significant(self, alpha: float) -> float | None:
        """As wide as the interval reaches at this level (least significant difference, Fisher).

        A true gap of that size is found every second time. What added cases draw to the middle is
        added too. It has no fewer cases than an exact test needs; None where all cases of a group
        are too few.
        """
        from scipy.stats import t

        enough = np.flatnonzero(self.extremes <= alpha)
        if not len(enough):
            return None
        low, high = self.interval
        reach = (high - low) / 2 * t.ppf(1 - alpha / 2, self.freedom) / t.ppf(0.975, self.freedom)
        drawn = abs(self.values[0] - self.values[1] - (low + high) / 2)
        return round(float(min(max(reach + drawn, self.one_case * enough[0]), 100)), 1)

    def as_report(
        self,
        limits: FairnessLimits,
        *,
        adjusted_p: float | None = None,
        level: float | None = None,
        least_significant: float | None = None,
        alarm: bool = False,
    ) -> dict[str, Any]:
        """The gap as the reports have it; without more than its limit it is tested by nothing."""
        return {
            "measure": self.measure,
            "label": self.label,
            "groups": list(self.groups),
            "cases": list(self.cases),
            "values": [round(float(value), 2) for value in self.values],
            "gap": round(float(self.values[0] - self.values[1]), 2),
            "interval": [round(float(end), 2) for end in self.interval],
            "p_value": self.p_value,
            "limit": getattr(limits, self.measure),
            "adjusted_p": adjusted_p,
            "level": level,
            "least_significant_gap": least_significant,
            "alarm": alarm,
        }


def compare_groups(
    measure: str,
    label: str,
    groups: tuple[str, str],
    hits: npt.ArrayLike,
    is_first: npt.ArrayLike,
    seeds: npt.ArrayLike,
) -> Gap:
    """The gap between the shares of two groups of pairs, of which those of one seed are alike.

    Least squares with errors that are robust to what pairs of a seed share (Liang & Zeger 1986),
    after one hit and one miss are added to each group (Agresti & Caffo 2000); Student's t with the
    seeds of the smaller group less one. Where fewer than ``SPARSE`` seeds have the label, or lack
    it, the p-value is that of Fisher's exact test.

    Args:
        measure: A field of ``FairnessLimits``.
        label: Which label, or empty.
        groups: Names of the two.
        hits: Whether each pair has the label.
        is_first: Whether it is of the first group.
        seeds: Of which seed it is.
    """
    from scipy.stats import t

    hit, first = np.asarray(hits, dtype=bool), np.asarray(is_first, dtype=bool)
    seed = pd.factorize(np.asarray(seeds))[0]
    centre, error = _fit_difference(hit, seed, first)
    shares = _share_by_seed(hit, seed, first), _share_by_seed(hit, seed, ~first)
    counts = len(shares[0]), len(shares[1])
    freedom = min(counts) - 1
    reach = t.ppf(0.975, freedom) * error
    side = counts[0] if measure in EXCESSES else min(counts)
    if min(count_seeds(seed, having) for having in (hit, ~hit)) < SPARSE:
        (p_value, least_p), one_case = _test_exactly(shares), 100 / side
    else:
        p_value, least_p, one_case = float(2 * t.sf(abs(centre / error), freedom)), 0.0, 0.0
    return Gap(
        measure,
        label,
        groups,
        (int(first.sum()), int((~first).sum())),
        (100 * float(hit[first].mean()), 100 * float(hit[~first].mean())),
        (100 * max(centre - reach, -1.0), 100 * min(centre + reach, 1.0)),
        p_value,
        least_p,
        _fisher_extremes(side, sum(counts)),
        one_case,
        freedom,
    )


def _fit_difference(hit: Mask, seed: npt.NDArray[np.intp], side: Mask) -> tuple[float, float]:
    """The difference of the shares on one side and the other, and its robust error."""
    from statsmodels.regression.linear_model import OLS

    added = np.arange(4)
    design = np.column_stack([np.ones(len(hit) + 4), np.append(side, added < 2)])
    own = {"groups": np.append(seed, seed.max() + 1 + added)}
    fit = OLS(np.append(hit, added % 2).astype(float), design).fit(cov_type="cluster", cov_kwds=own)
    return float(fit.params[1]), float(fit.bse[1])


def count_seeds(seeds: npt.ArrayLike, of: npt.ArrayLike) -> int:
    """Distinct seeds of some pairs, given by a mask."""
    return len(np.unique(np.asarray(seeds)[np.asarray(of)]))


def _share_by_seed(hit: Mask, seed: npt.NDArray[np.intp], side: Mask) -> Floats:
    """Of each seed of one side: the share of its pairs there that are hits."""
    pairs = np.bincount(seed[side])
    return np.bincount(seed[side], hit[side])[pairs > 0] / pairs[pairs > 0]


def _test_exactly(shares: tuple[Floats, Floats]) -> tuple[float, float]:
    """Fisher's exact test, two-sided by doubling, of the seeds with the label in two groups.

    A seed counts by its share, which varies less than the whole seeds of the test, and the sums are
    rounded towards each other, so that both err to the safe side.

    Returns:
        The p-value, and the smallest that the same totals can have.
    """
    from scipy.stats import hypergeom

    sums = [round(float(own.sum()), 6) for own in shares]
    is_more = shares[0].mean() > shares[1].mean()
    first, second = (floor(sums[0]), ceil(sums[1])) if is_more else (ceil(sums[0]), floor(sums[1]))
    totals = first + second, len(shares[0])
    count = len(shares[0]) + len(shares[1])
    law = hypergeom(count, *totals)
    ends = law.pmf([max(0, sum(totals) - count), min(totals)])
    p_value = 2 * min(law.cdf(first), law.sf(first - 1))
    return min(1.0, float(p_value)), min(1.0, float(2 * ends.min()))


def _fisher_extremes(side: int, count: int) -> Floats:
    """Its p-values where 0, 1, 2, … of the seeds have the label, all of one side."""
    cases = np.arange(side)
    all_there = np.cumprod((side - cases) / (count - cases))
    return np.asarray(2 * np.append(1.0, all_there)).clip(max=1.0)


def compare_pairs(
    measure: str, label: str, groups: tuple[str, str], first: npt.ArrayLike, second: npt.ArrayLike
) -> Gap:
    """The gap between two shares of the same cases.

    Interval by Agresti & Min (2005), p by McNemar's exact test.
    """
    from scipy.stats import binomtest, norm

    one, other = np.asarray(first, dtype=bool), np.asarray(second, dtype=bool)
    gained, lost = int((one & ~other).sum()), int((other & ~one).sum())
    moved, count = gained + lost, len(one)
    centre = (gained - lost) / (count + 2)
    spread = np.sqrt((moved + 1) / (count + 2) - centre**2) / np.sqrt(count + 2)
    reach = norm.ppf(0.975) * spread
    extremes = sign_test_extremes(count)
    return Gap(
        measure,
        label,
        groups,
        (count, count),
        (100 * float(one.mean()), 100 * float(other.mean())),
        (100 * max(centre - reach, -1.0), 100 * min(centre + reach, 1.0)),
        float(binomtest(gained, moved).pvalue) if moved else 1.0,
        float(extremes[moved]),
        extremes,
        100 / count,
    )


def sign_test_extremes(count: int) -> Floats:
    """Two-sided p-values where 0, 1, 2, … of the cases change, all in one direction."""
    return np.asarray(np.exp2(1.0 - np.arange(count + 1)).clip(max=1.0))


def mark_texts(
    texts: pd.Series, responses: pd.Series, audit_groups: AuditGroups
) -> dict[str, Mask]:
    """Measure: which of the texts and responses have what nobody wants more of."""
    marks = {
        "toxic_excess": audit_groups.are_toxic(texts),
        "stereotype_excess": audit_groups.are_stereotyped(texts),
        "refusal_excess": map(declines, responses),
        "hedge_excess": audit_groups.have_hedges(responses),
    }
    return {measure: np.fromiter(marked, dtype=bool) for measure, marked in marks.items()}


def raise_alarms(gaps: list[Gap], limits: FairnessLimits, alpha: float) -> list[dict[str, Any]]:
    """Find the gaps that are over their limit and significant among all of these (Holm 1979).

    A test that no outcome with the same totals could make significant takes no part in the
    correction (Tarone 1990).

    Returns:
        The gaps as reports have them, with ``adjusted_p`` (null for such a test), the ``level``
        that it is held against, ``least_significant_gap`` among so many tests, and ``alarm``.
    """
    from statsmodels.stats.multitest import multipletests

    numbers = [number for number, gap in enumerate(gaps) if gap.least_p <= alpha]
    adjusted: dict[int, float] = {}
    if numbers:
        p_values = [gaps[number].p_value for number in numbers]
        corrected = multipletests(p_values, method="holm")[1].tolist()
        adjusted = dict(zip(numbers, corrected, strict=True))
    judged = []
    for number, gap in enumerate(gaps):
        p_value = adjusted.get(number)
        is_over = gap.size > getattr(limits, gap.measure)
        alarm = is_over and p_value is not None and p_value <= alpha
        least = gap.least_significant(alpha / len(adjusted.keys() | {number}))
        judged.append(
            gap.as_report(
                limits, adjusted_p=p_value, level=alpha, least_significant=least, alarm=alarm
            )
        )
    return judged


def describe_alarm(where: str, gap: dict[str, Any]) -> str:
    """An alarm as a sentence without its full stop."""
    first, second = gap["groups"]
    label = f" of {gap['label']}" if gap["label"] else ""
    low, high = gap["interval"]
    return (
        f"{where}: {gap['measure'].replace('_', ' ')}{label}, {first} against {second}, is "
        f"{gap['gap']:+.1f} points (95 % interval {low:.1f} to {high:.1f}, limit {gap['limit']:g})"
    )
