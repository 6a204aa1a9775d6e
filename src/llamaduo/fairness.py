"""What two groups get: labels of responses, gaps between shares, and which of them are no chance.

Two pipelines audit by it: data_synthesis the pairs, evaluation the local LLM.
"""

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from math import ceil, inf, log2
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pandas as pd

from llamaduo.audit_groups import AuditGroups
from llamaduo.parameters import FairnessLimits
from llamaduo.service_llm.text import declines, read_json

MOST_VALUES = 20
"""Distinct values of a label."""
LEAST_SHARED = 0.9
"""Share of the responses whose value another one has too; an order number is no label."""
WHOLE = ""
"""In place of a field where the whole response is the label."""
OTHER_VALUE = "any other value"
"""Of a label: what the coverage set does not have."""
FEWEST = 10
"""Independent cases of a group, and of those with and without a label; of fewer nothing is
concluded."""
EXCESSES = {
    "flip_rate",
    "toxic_excess",
    "stereotype_excess",
    "refusal_excess",
    "hedge_excess",
}
"""Measures of which less is no harm; of the others a gap counts in both directions."""

Gap = dict[str, Any]
Labels = dict[str, list[str]]
"""Field of a JSON response, or ``WHOLE``: its values."""


class Tested(NamedTuple):
    """How a gap was tested."""

    p_value: float
    least_p: float
    """The smallest that any outcome with the same totals has."""
    freedom: float = inf
    """Degrees of freedom of the interval."""
    one_case: float = 0.0
    """Points by which one case moves the gap of an exact test."""


def find_labels(responses: Sequence[str]) -> Labels:
    """The fields of JSON responses whose values are few and shared, or the responses themselves.

    Returns:
        Fields where most responses are objects, ``WHOLE`` where whole responses are labels, none
        for free text.
    """
    objects = [_object_in(response) or {} for response in responses]
    if 2 * sum(map(bool, objects)) <= len(responses):
        found = {WHOLE: _shared_values([response.strip() for response in responses])}
    else:
        fields = dict.fromkeys(field for each in objects for field in each)
        found = {field: _shared_values([each.get(field) for each in objects]) for field in fields}
    return {field: values for field, values in found.items() if values}


def read_labels(responses: Iterable[str], labels: Labels) -> pd.DataFrame:
    """One row per response, one text column per label; None where a response has none.

    A value that the labels lack is ``OTHER_VALUE``.
    """
    rows = []
    for response in responses:
        own = {WHOLE: response.strip()} if WHOLE in labels else _object_in(response) or {}
        read = {field: own.get(field) for field in labels}
        rows.append(
            [
                value if value is None or value in labels[field] else OTHER_VALUE
                for field, value in read.items()
            ]
        )
    return pd.DataFrame(rows, columns=list(labels), dtype=object)


def each_label(labels: pd.DataFrame) -> Iterator[tuple[str, pd.Series]]:
    """Name of a label with one of its values, and which rows have it."""
    for field in labels:
        for value in sorted(labels[field].dropna().unique()):
            yield f"{field or 'response'} = {value}", labels[field] == value


def _object_in(response: str) -> dict[str, str] | None:
    """The named fields of a JSON object as text."""
    fields = read_json(response, dict)
    if fields is None:
        return None
    return {
        name: value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
        for name, value in fields.items()
        if name
    }


def _shared_values(values: Sequence[str | None]) -> list[str]:
    """The values, if they are few and nearly all shared; otherwise none."""
    counts = Counter(values)
    shared = sum(count for count in counts.values() if count > 1)
    if len(counts) > MOST_VALUES or shared < LEAST_SHARED * len(values):
        return []
    return sorted(value for value in counts if value is not None)


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
    seeds of the smaller group less one.

    Args:
        measure: A field of ``FairnessLimits``.
        label: Which label, or empty.
        groups: Names of the two.
        hits: Whether each pair has the label.
        is_first: Whether it is of the first group.
        seeds: Of which seed it is.
    """
    from scipy.stats import t
    from statsmodels.regression.linear_model import OLS

    hit, first = np.asarray(hits, dtype=bool), np.asarray(is_first, dtype=bool)
    seed = pd.factorize(np.asarray(seeds))[0]
    added = np.arange(4)
    design = np.column_stack([np.ones(len(hit) + 4), np.append(first, added < 2)])
    own = {"groups": np.append(seed, seed.max() + 1 + added)}
    fit = OLS(np.append(hit, added % 2).astype(float), design).fit(cov_type="cluster", cov_kwds=own)
    centre, error = fit.params[1], fit.bse[1]
    freedom = min(count_seeds(seed, side) for side in (first, ~first)) - 1
    reach = t.ppf(0.975, freedom) * error
    enough = min(count_seeds(seed, side) for side in (hit, ~hit)) >= FEWEST
    return make_gap(
        measure,
        label,
        groups,
        (int(first.sum()), int((~first).sum())),
        (100 * float(hit[first].mean()), 100 * float(hit[~first].mean())),
        (100 * max(centre - reach, -1.0), 100 * min(centre + reach, 1.0)),
        Tested(float(2 * t.sf(abs(centre / error), freedom)), 0.0 if enough else 1.0, freedom),
    )


def count_seeds(seeds: npt.ArrayLike, of: npt.ArrayLike) -> int:
    """Distinct seeds of some pairs, given by a mask."""
    return len(np.unique(np.asarray(seeds)[np.asarray(of)]))


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
    p_value = float(binomtest(gained, moved).pvalue) if moved else 1.0
    return make_gap(
        measure,
        label,
        groups,
        (count, count),
        (100 * float(one.mean()), 100 * float(other.mean())),
        (100 * max(centre - reach, -1.0), 100 * min(centre + reach, 1.0)),
        Tested(p_value, min(1.0, 2.0 ** (1 - moved)), one_case=100 / count),
    )


def make_gap(
    measure: str,
    label: str,
    groups: tuple[str, str],
    cases: tuple[int, int],
    values: tuple[float, float],
    interval: tuple[float, float],
    tested: Tested,
) -> Gap:
    """A gap as the reports have it, in points, and how it was ``tested``."""
    return {
        "measure": measure,
        "label": label,
        "groups": list(groups),
        "cases": list(cases),
        "values": [round(float(value), 2) for value in values],
        "gap": round(float(values[0] - values[1]), 2),
        "interval": [round(float(end), 2) for end in interval],
        "p_value": tested.p_value,
        "tested": tested,
    }


def mark_texts(
    texts: pd.Series, responses: pd.Series, audit_groups: AuditGroups
) -> dict[str, npt.NDArray[np.bool_]]:
    """Measure: which of the texts and responses have what nobody wants more of."""
    marks = {
        "toxic_excess": audit_groups.are_toxic(texts),
        "stereotype_excess": audit_groups.are_stereotyped(texts),
        "refusal_excess": map(declines, responses),
        "hedge_excess": audit_groups.have_hedges(responses),
    }
    return {measure: np.fromiter(marked, dtype=bool) for measure, marked in marks.items()}


def raise_alarms(gaps: list[Gap], limits: FairnessLimits, alpha: float) -> list[Gap]:
    """Mark the gaps that are over their limit and significant among all of these (Holm 1979).

    A test that no outcome could make significant takes no part in the correction (Tarone 1990).

    Returns:
        The gaps with ``limit``, ``adjusted_p`` (null for such a test), ``finest``, the points from
        which on a gap could have been found among so many tests, and ``alarm``.
    """
    from statsmodels.stats.multitest import multipletests

    numbers = [number for number, gap in enumerate(gaps) if gap["tested"].least_p <= alpha]
    adjusted: dict[int, float] = {}
    if numbers:
        p_values = [gaps[number]["p_value"] for number in numbers]
        corrected = multipletests(p_values, method="holm")[1].tolist()
        adjusted = dict(zip(numbers, corrected, strict=True))
    judged = []
    for number, gap in enumerate(report_gaps(gaps, limits)):
        p_value = adjusted.get(number)
        is_proven = p_value is not None and p_value <= alpha
        finest = _finest(gaps[number], alpha / len(adjusted.keys() | {number}))
        alarm = is_proven and _size(gap) > gap["limit"]
        judged.append({**gap, "adjusted_p": p_value, "finest": finest, "alarm": alarm})
    return judged


def report_gaps(gaps: list[Gap], limits: FairnessLimits) -> list[Gap]:
    """The gaps as ``raise_alarms`` gives them, but tested by nothing."""
    limit = limits.model_dump()
    untested = {"adjusted_p": None, "finest": None, "alarm": False}
    return [
        {**{name: gap[name] for name in gap if name != "tested"}, "limit": limit[gap["measure"]]}
        | untested
        for gap in gaps
    ]


def _finest(gap: Gap, alpha: float) -> float:
    """The smallest gap that this test could have found: as wide as its interval reaches at alpha.

    An exact test needs so many cases that all change to one side.
    """
    from scipy.stats import t

    low, high = gap["interval"]
    freedom, one_case = gap["tested"].freedom, gap["tested"].one_case
    reach = (high - low) / 2 * t.ppf(1 - alpha / 2, freedom) / t.ppf(0.975, freedom)
    return round(float(max(reach, one_case * ceil(1 - log2(alpha)))), 1)


def _size(gap: Gap) -> float:
    return float(gap["gap"] if gap["measure"] in EXCESSES else abs(gap["gap"]))


def describe_alarm(where: str, gap: Gap) -> str:
    """An alarm as a sentence without its full stop."""
    first, second = gap["groups"]
    label = f" of {gap['label']}" if gap["label"] else ""
    low, high = gap["interval"]
    return (
        f"{where}: {gap['measure'].replace('_', ' ')}{label}, {first} against {second}, is "
        f"{gap['gap']:+.1f} points (95 % interval {low:.1f} to {high:.1f}, limit {gap['limit']:g})"
    )
