"""Which pairs are left out where they tie a label to a group."""

from itertools import combinations
from math import ceil
from typing import NamedTuple

import numpy as np
import pandas as pd

from llamaduo.audit_groups import AuditGroups
from llamaduo.fairness import FEWEST, Gap, compare_groups, count_seeds, raise_alarms
from llamaduo.labels import Labels, each_label, find_labels, read_labels
from llamaduo.parameters import FairnessParameters, LoopParameters
from llamaduo.pipelines.data_synthesis.training_set import UNBALANCED, kept
from llamaduo.schemas import BalancedPairs, seeds_of

COLUMNS = list(BalancedPairs.to_schema().columns)
FAMILIES = 3
"""Of tests of the pairs: labels by the names in a prompt and beside what was shown, and words."""


class Described(NamedTuple):
    """Pairs by what is compared of them, in one order."""

    labels: pd.DataFrame
    """One column per label."""
    groups: pd.DataFrame
    """One column per dimension: the group that the prompt names, None without one or with two."""
    seeds: pd.Series
    """The coverage pair that was shown, or the pair's own id."""

    def without(self, places: pd.Index) -> "Described":
        """All but the pairs in these places."""
        return Described(
            self.labels.drop(places), self.groups.drop(places), self.seeds.drop(places)
        )


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
    loop: LoopParameters,
    fairness: FairnessParameters,
) -> pd.DataFrame:
    """Put together what this iteration may add; on wish, leave out what ties a label to a group.

    Where a label raises an alarm and the pairs of this iteration, the coverage set's included,
    themselves have the gap, those of the group that has the label too often are left out by lot,
    until it is as frequent in those of the other group. What was trained on before stays, and
    nothing is left out to make up for it.

    Returns:
        ``BalancedPairs``: every new row and, in a loop's first iteration, the coverage pairs, with
        the reason for which a row is left out; the one given here is ``unbalanced``.
    """
    tables = [selected_pairs]
    if previous_training_set is None:
        tables.insert(0, screened_coverage.assign(origin="coverage", request=0))
    balanced = pd.concat(
        [table.reindex(columns=COLUMNS, fill_value="") for table in tables], ignore_index=True
    )
    if fairness.on_excess != "balance":
        return balanced
    rng = np.random.default_rng(fairness.seed)
    labels = find_labels(list(kept(screened_coverage)["response"]))
    pairs = describe(previous_training_set, kept(balanced), audit_groups, labels)
    while True:
        gaps, _ = compare_labels(pairs, audit_groups)
        surplus = _draw_surplus(gaps, fairness, loop, rng)
        if not len(surplus):
            return balanced
        balanced.loc[surplus, "dropped"] = UNBALANCED
        pairs = pairs.without(surplus)


def describe(
    previous_training_set: pd.DataFrame | None,
    new: pd.DataFrame,
    audit_groups: AuditGroups,
    labels: Labels,
) -> Described:
    """All pairs of the iteration; those that were trained on before have negative places."""
    pairs = new
    if previous_training_set is not None:
        known = previous_training_set.set_axis(range(-len(previous_training_set), 0))
        pairs = pd.concat([known, new])
    groups = {
        dimension: [audit_groups.only_group_in(prompt, dimension) for prompt in pairs["prompt"]]
        for dimension in audit_groups.dimensions
    }
    return Described(
        read_labels(pairs["response"], labels).set_axis(pairs.index),
        pd.DataFrame(groups, index=pairs.index, dtype=object),
        seeds_of(pairs),
    )


def compare_labels(pairs: Described, audit_groups: AuditGroups) -> tuple[list[LabelGap], list[str]]:
    """Each label in each two groups that the prompts name, and which could not be compared."""
    gaps: list[LabelGap] = []
    unmeasured = []
    if pairs.labels.columns.empty:
        unmeasured.append(
            "labels: no field of the coverage set's responses has few values that recur, nor have "
            "whole responses"
        )
    for dimension, groups in audit_groups.dimensions.items():
        for one, other in combinations(groups, 2):
            first, second = (pairs.groups[dimension] == group for group in (one, other))
            counts = [count_seeds(pairs.seeds, side) for side in (first, second)]
            if min(counts) < FEWEST:
                unmeasured.append(
                    f"labels, {one} against {other}: the prompts of {counts[0]} and {counts[1]} "
                    f"seeds name one of them alone, {FEWEST} of each are needed"
                )
                continue
            named = first | second
            for label, has_label in each_label(pairs.labels):
                own = has_label[named], first[named], pairs.seeds[named]
                gap = compare_groups("label_gap", label, (one, other), *own)
                gaps.append(LabelGap(gap, first, second, has_label))
    return gaps, unmeasured


def _draw_surplus(
    gaps: list[LabelGap],
    fairness: FairnessParameters,
    loop: LoopParameters,
    rng: np.random.Generator,
) -> pd.Index:
    """Of the widest gap with an alarm, which pairs of the iteration to leave out, if any can be."""
    level = fairness.level(FAMILIES, loop.max_iterations)
    judged = raise_alarms([each.gap for each in gaps], fairness.limits, level)
    alarms = [(each.gap.size, n) for n, each in enumerate(gaps) if judged[n]["alarm"]]
    for _, number in sorted(alarms, reverse=True):
        gap, first, second, has_label = gaps[number]
        is_first = gap.values[0] > gap.values[1]
        over, under = (
            side & (side.index >= 0) for side in ((first, second) if is_first else (second, first))
        )
        share, wanted = has_label[over].mean(), has_label[under].mean()
        if 100 * (share - wanted) > judged[number]["limit"]:
            pool = has_label.index[over & has_label]
            surplus = ceil((len(pool) - wanted * over.sum()) / (1 - wanted))
            return pool[rng.permutation(len(pool))[:surplus]]
    return pd.Index([], dtype=int)
