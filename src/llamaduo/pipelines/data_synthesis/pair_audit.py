"""Whether the pairs treat groups alike, and which are left out where they do not."""

import logging
from collections.abc import Iterator
from itertools import combinations
from math import ceil
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from llamaduo.audit_groups import AuditGroups
from llamaduo.fairness import (
    FEWEST,
    Gap,
    compare_groups,
    describe_alarm,
    find_label_fields,
    mark_texts,
    raise_alarms,
    read_labels,
)
from llamaduo.parameters import FairnessParameters
from llamaduo.schemas import BalancedPairs

logger = logging.getLogger(__name__)

COLUMNS = list(BalancedPairs.to_schema().columns)
UNBALANCED = "unbalanced"


class Described(NamedTuple):
    """Pairs by what is compared of them, in one order."""

    labels: pd.DataFrame
    """One column per label field."""
    groups: pd.DataFrame
    """One column per dimension: the group that the prompt names, None without one or with two."""


class LabelGap(NamedTuple):
    """How often two groups have a label; the masks are over the pairs."""

    gap: Gap
    first: pd.Series
    second: pd.Series
    has_label: pd.Series


def balance_pairs(
    selected_pairs: pd.DataFrame,
    previous_training_set: pd.DataFrame | None,
    screened_coverage: pd.DataFrame,
    audit_groups: AuditGroups,
    fairness: FairnessParameters,
) -> pd.DataFrame:
    """Put together what this iteration may add; on wish, leave out what ties a label to a group.

    Pairs of the group that has the label too often are left out by lot, until the label is as
    frequent as in the other group. What was trained on before stays.

    Returns:
        ``BalancedPairs``: every new row and, in a loop's first iteration, the coverage pairs, with
        the reason for which a row is left out; the one given here is ``unbalanced``.
    """
    tables = [selected_pairs]
    if previous_training_set is None:
        tables.insert(0, screened_coverage.assign(origin="coverage"))
    balanced = pd.concat(
        [table.reindex(columns=COLUMNS, fill_value="") for table in tables], ignore_index=True
    )
    if fairness.on_excess != "balance":
        return balanced
    rng = np.random.default_rng(fairness.seed)
    fields = find_label_fields(list(_kept(screened_coverage)["response"]))
    others, _ = _compare_with_coverage(_kept(balanced), screened_coverage, audit_groups, fields)
    pairs = _describe(previous_training_set, _kept(balanced), audit_groups, fields)
    while True:
        gaps, _ = _compare_labels(pairs, audit_groups)
        surplus = _draw_surplus(gaps, others, fairness, rng)
        if not len(surplus):
            return balanced
        balanced.loc[surplus, "dropped"] = UNBALANCED
        pairs = Described(*(table.drop(surplus) for table in pairs))


def audit_pairs(
    balanced_pairs: pd.DataFrame,
    previous_training_set: pd.DataFrame | None,
    screened_coverage: pd.DataFrame,
    audit_groups: AuditGroups,
    fairness: FairnessParameters,
) -> dict[str, Any]:
    """Measure labels by the groups that prompts name, and the new pairs against the coverage set.

    Returns:
        ``gaps`` in the pairs that passed the checks, and what was ``unmeasured`` and why;
        ``left_out``, the number of those that are left out to balance them; ``gaps_left``, the gaps
        of labels in what is trained on then; ``alarms``, sentences.
    """
    fields = find_label_fields(list(_kept(screened_coverage)["response"]))
    passed = balanced_pairs[balanced_pairs["dropped"].isin(["", UNBALANCED])]
    pairs = _describe(previous_training_set, passed, audit_groups, fields)
    labels, few_named = _compare_labels(pairs, audit_groups)
    others, few_new = _compare_with_coverage(passed, screened_coverage, audit_groups, fields)
    gaps = raise_alarms([*(each.gap for each in labels), *others], fairness)
    alarms = [describe_alarm("pairs", gap) for gap in gaps if gap["alarm"]]
    gaps_left: list[Gap] = []
    left_out = passed.index[passed["dropped"] == UNBALANCED]
    if len(left_out):
        balanced = Described(*(table.drop(left_out) for table in pairs))
        left, _ = _compare_labels(balanced, audit_groups)
        gaps_left = raise_alarms([*(each.gap for each in left), *others], fairness)[: len(left)]
        alarms += [describe_alarm("pairs, balanced", gap) for gap in gaps_left if gap["alarm"]]
    for alarm in alarms:
        logger.warning("fairness: %s", alarm)
    return {
        "gaps": gaps,
        "unmeasured": [*few_named, *few_new],
        "left_out": len(left_out),
        "gaps_left": gaps_left,
        "alarms": alarms,
    }


def _describe(
    previous_training_set: pd.DataFrame | None,
    new: pd.DataFrame,
    audit_groups: AuditGroups,
    fields: list[str],
) -> Described:
    """All pairs of the iteration; those that were trained on before have negative places."""
    pairs = new[["prompt", "response"]]
    if previous_training_set is not None:
        known = previous_training_set[["prompt", "response"]]
        pairs = pd.concat([known.set_axis(range(-len(known), 0)), pairs])
    groups = {
        dimension: [audit_groups.only_group_in(prompt, dimension) for prompt in pairs["prompt"]]
        for dimension in audit_groups.dimensions
    }
    labels = read_labels(pairs["response"], fields).set_axis(pairs.index)
    return Described(labels, pd.DataFrame(groups, index=pairs.index, dtype=object))


def _compare_labels(
    pairs: Described, audit_groups: AuditGroups
) -> tuple[list[LabelGap], list[str]]:
    """Each label in each two groups that the prompts name, and which could not be compared."""
    gaps: list[LabelGap] = []
    unmeasured = []
    if pairs.labels.columns.empty:
        unmeasured.append("labels: the responses have none, they are free text")
    for dimension, groups in audit_groups.dimensions.items():
        for one, other in combinations(groups, 2):
            first, second = (pairs.groups[dimension] == group for group in (one, other))
            if min(first.sum(), second.sum()) < FEWEST:
                unmeasured.append(
                    f"labels, {one} against {other}: {first.sum()} and {second.sum()} prompts name "
                    f"one of them alone, {FEWEST} of each are needed"
                )
                continue
            for label, has_label in _each_label(pairs.labels):
                own = has_label[first], has_label[second]
                gap = compare_groups("label_gap", label, (one, other), *own)
                gaps.append(LabelGap(gap, first, second, has_label))
    return gaps, unmeasured


def _compare_with_coverage(
    new: pd.DataFrame, screened_coverage: pd.DataFrame, audit_groups: AuditGroups, fields: list[str]
) -> tuple[list[Gap], list[str]]:
    """Labels, categories and what nobody wants, in the new pairs and in the coverage set."""
    new, coverage = new[new["origin"] != "coverage"], _kept(screened_coverage)
    if min(len(new), len(coverage)) < FEWEST:
        return [], [
            f"new pairs against the coverage set: {len(new)} and {len(coverage)} pairs, "
            f"{FEWEST} of each are needed"
        ]
    both = pd.concat([new, coverage], ignore_index=True)
    is_new = both.index < len(new)
    groups = "new pairs", "coverage set"
    labels = read_labels(both["response"], fields).assign(
        **{"category of the seed": both["category"]}
    )
    balance = [
        compare_groups("balance_gap", label, groups, has_label[is_new], has_label[~is_new])
        for label, has_label in _each_label(labels)
    ]
    marks = mark_texts(both["prompt"] + "\n" + both["response"], both["response"], audit_groups)
    excesses = [
        compare_groups(measure, "", groups, marked[is_new], marked[~is_new])
        for measure, marked in marks.items()
    ]
    return [*balance, *excesses], []


def _each_label(labels: pd.DataFrame) -> Iterator[tuple[str, pd.Series]]:
    """Name of a label, and which rows have it."""
    for field in labels:
        for value in sorted(labels[field].dropna().unique()):
            yield f"{field} = {value}", labels[field] == value


def _draw_surplus(
    gaps: list[LabelGap], others: list[Gap], fairness: FairnessParameters, rng: np.random.Generator
) -> np.ndarray:
    """Of the widest gap with an alarm, the new pairs to leave out; none where nothing can be."""
    judged = raise_alarms([*(each.gap for each in gaps), *others], fairness)[: len(gaps)]
    alarms = [(abs(gap["gap"]), n) for n, gap in enumerate(judged) if gap["alarm"]]
    for _, number in sorted(alarms, reverse=True):
        gap, first, second, has_label = gaps[number]
        over, under = (first, second) if gap["gap"] > 0 else (second, first)
        pool = has_label.index[over & has_label & (has_label.index >= 0)]
        if len(pool):
            share = has_label[under].mean()
            surplus = ceil(((over & has_label).sum() - share * over.sum()) / (1 - share))
            return rng.choice(pool, min(surplus, len(pool)), replace=False)
    return np.array([], dtype=int)


def _kept(rows: pd.DataFrame) -> pd.DataFrame:
    return rows[rows["dropped"] == ""]
