"""What two groups get: labels of responses, gaps between shares, and which of them are no chance.

Two pipelines audit by it: data_synthesis the pairs, evaluation the local LLM.
"""

import json
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from llamaduo.audit_groups import AuditGroups
from llamaduo.parameters import FairnessParameters
from llamaduo.service_llm.text import declines, read_json

MOST_VALUES = 20
"""Distinct values of a label."""
LEAST_SHARED = 0.9
"""Share of the responses whose value another one has too; an order number is no label."""
WHOLE = "response"
"""Name of the label where the whole response is one."""
FEWEST = 10
"""Cases of a group; of fewer nothing is concluded."""
EXCESSES = {
    "flip_rate",
    "toxic_excess",
    "stereotype_excess",
    "refusal_excess",
    "hedge_excess",
}
"""Measures of which less is no harm; of the others a gap counts in both directions."""

Gap = dict[str, Any]


def find_label_fields(responses: Sequence[str]) -> list[str]:
    """The fields of JSON responses whose values are few and shared, or the response itself.

    Returns:
        Names of fields; ``response`` where whole responses are labels; none for free text.
    """
    objects = [_object_in(response) for response in responses]
    if not any(objects):
        return [WHOLE] if _are_labels(responses) else []
    fields = dict.fromkeys(field for each in objects if each for field in each)
    return [field for field in fields if _are_labels([(each or {}).get(field) for each in objects])]


def read_labels(responses: Iterable[str], fields: list[str]) -> pd.DataFrame:
    """One row per response, one text column per field; None where a response has no such label."""
    rows = []
    for response in responses:
        labels = {WHOLE: response.strip()} if fields == [WHOLE] else _object_in(response) or {}
        rows.append([labels.get(field) for field in fields])
    return pd.DataFrame(rows, columns=fields, dtype=object)


def _object_in(response: str) -> dict[str, str] | None:
    fields = read_json(response, dict)
    if fields is None:
        return None
    return {
        name: value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
        for name, value in fields.items()
    }


def _are_labels(values: Sequence[str | None]) -> bool:
    counts = Counter(values)
    shared = sum(count for count in counts.values() if count > 1)
    return len(counts) <= MOST_VALUES and shared >= LEAST_SHARED * len(values)


def compare_groups(
    measure: str, label: str, groups: tuple[str, str], first: npt.ArrayLike, second: npt.ArrayLike
) -> Gap:
    """The gap between the shares of two groups of different cases.

    Interval by Newcombe (1998), p by Fisher's exact test. ``least_p`` is the smallest p that any
    outcome with the same totals has.
    """
    from scipy.stats import hypergeom
    from statsmodels.stats.proportion import confint_proportions_2indep

    hits, sizes = (int(np.sum(first)), int(np.sum(second))), (np.size(first), np.size(second))
    interval = confint_proportions_2indep(
        hits[0], sizes[0], hits[1], sizes[1], method="newcomb", compare="diff"
    )
    # fisher_exact gives one p; the chances of all outcomes give the least as well.
    outcomes = np.arange(max(0, sum(hits) - sizes[1]), min(sum(hits), sizes[0]) + 1)
    chances = hypergeom.pmf(outcomes, sum(sizes), sum(hits), sizes[0])
    seen = chances[hits[0] - outcomes[0]] * (1 + 1e-7)
    p_values = float(chances[chances <= seen].sum()), float(chances.min())
    shares = [hit / size for hit, size in zip(hits, sizes, strict=True)]
    return _gap(measure, label, groups, sizes, shares, interval, p_values)


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
    p_values = binomtest(gained, moved).pvalue if moved else 1.0, min(1.0, 2.0 ** (1 - moved))
    interval = max(centre - reach, -1.0), min(centre + reach, 1.0)
    shares = [one.mean(), other.mean()]
    return _gap(measure, label, groups, (count, count), shares, interval, p_values)


def _gap(
    measure: str,
    label: str,
    groups: tuple[str, str],
    cases: tuple[int, int],
    shares: list[float],
    interval: tuple[float, float],
    p_values: tuple[float, float],
) -> Gap:
    return {
        "measure": measure,
        "label": label,
        "groups": list(groups),
        "cases": list(cases),
        "values": [round(100 * float(share), 2) for share in shares],
        "gap": round(100 * float(shares[0] - shares[1]), 2),
        "interval": [round(100 * float(end), 2) for end in interval],
        "p_value": float(p_values[0]),
        "least_p": p_values[1],
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


def raise_alarms(gaps: list[Gap], fairness: FairnessParameters) -> list[Gap]:
    """Mark the gaps that are over their limit and significant among all of an audit (Holm 1979).

    A test that no outcome could make significant takes no part in the correction (Tarone 1990).

    Returns:
        The gaps with ``limit``, ``adjusted_p`` (null for such a test) and ``alarm``.
    """
    from statsmodels.stats.multitest import multipletests

    limits = fairness.limits.model_dump()
    tested = [number for number, gap in enumerate(gaps) if gap["least_p"] <= fairness.alpha]
    adjusted: dict[int, float] = {}
    if tested:
        p_values = [gaps[number]["p_value"] for number in tested]
        corrected = multipletests(p_values, method="holm")[1].tolist()
        adjusted = dict(zip(tested, corrected, strict=True))
    return [
        {
            **{name: gap[name] for name in gap if name != "least_p"},
            "limit": limits[gap["measure"]],
            "adjusted_p": adjusted.get(number),
            "alarm": adjusted.get(number, 1.0) <= fairness.alpha
            and _size(gap) > limits[gap["measure"]],
        }
        for number, gap in enumerate(gaps)
    ]


def _size(gap: Gap) -> float:
    return float(gap["gap"] if gap["measure"] in EXCESSES else abs(gap["gap"]))


def describe_alarm(where: str, gap: Gap) -> str:
    """An alarm as a sentence without its full stop."""
    first, second = gap["groups"]
    label = f" of {gap['label']}" if gap["label"] else ""
    low, high = gap["interval"]
    interval = "not known" if low is None else f"{low:.1f} to {high:.1f}"
    return (
        f"{where}: {gap['measure'].replace('_', ' ')}{label}, {first} against {second}, is "
        f"{gap['gap']:+.1f} points (95 % interval {interval}, limit {gap['limit']:g})"
    )
