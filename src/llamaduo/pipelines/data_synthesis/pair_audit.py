"""Whether the pairs treat groups alike, and which are left out where they do not."""

import logging
from collections.abc import Iterable, Iterator
from itertools import combinations
from math import ceil
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pandas as pd

from llamaduo.audit_groups import AuditGroups
from llamaduo.fairness import (
    FEWEST,
    Gap,
    compare_groups,
    count_seeds,
    describe_alarm,
    mark_texts,
    raise_alarms,
)
from llamaduo.labels import OTHER_VALUE, Labels, each_label, find_labels, read_labels
from llamaduo.parameters import FairnessParameters, LoopParameters
from llamaduo.pipelines.data_synthesis.seeding import AIMED
from llamaduo.pipelines.data_synthesis.training_set import kept
from llamaduo.schemas import BalancedPairs

logger = logging.getLogger(__name__)

COLUMNS = list(BalancedPairs.to_schema().columns)
UNBALANCED = "unbalanced"
MOST_TEXTS = 2000
"""New pairs, and coverage pairs, whose words are looked at; toxic ones cost a millisecond each."""
SIDES = "new pairs", "coverage set"
FAMILIES = 3
"""Of tests: labels by the names in a prompt, labels beside what was shown, and words."""


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
    pairs = _describe(previous_training_set, kept(balanced), audit_groups, labels)
    while True:
        gaps, _ = _compare_labels(pairs, audit_groups)
        surplus = _draw_surplus(gaps, fairness, loop, rng)
        if not len(surplus):
            return balanced
        balanced.loc[surplus, "dropped"] = UNBALANCED
        pairs = pairs.without(surplus)


def audit_pairs(
    balanced_pairs: pd.DataFrame,
    seeds: pd.DataFrame,
    previous_training_set: pd.DataFrame | None,
    screened_coverage: pd.DataFrame,
    audit_groups: AuditGroups,
    loop: LoopParameters,
    fairness: FairnessParameters,
) -> dict[str, Any]:
    """Measure labels by the groups that prompts name, and the new pairs against the coverage set.

    Returns:
        ``gaps`` in the pairs that passed the checks, and what was ``unmeasured`` and why;
        ``left_out``, the number of those that are left out to balance them; ``gaps_left``, the gaps
        of labels in what is trained on then; ``balanced``, sentences on what raises no alarm any
        more; ``alarms``, sentences on what does.
    """
    rules = fairness.limits, fairness.level(FAMILIES, loop.max_iterations)
    labels = find_labels(list(kept(screened_coverage)["response"]))
    passed = balanced_pairs[balanced_pairs["dropped"].isin(["", UNBALANCED])]
    pairs = _describe(previous_training_set, passed, audit_groups, labels)
    compared, few_named = _compare_labels(pairs, audit_groups)
    by_name = raise_alarms([each.gap for each in compared], *rules)
    new, coverage = passed[passed["origin"] != "coverage"], kept(screened_coverage)
    drifts, few_shown = _compare_with_shown(new, coverage, seeds, labels)
    excesses, few_new = _compare_words(new, coverage, audit_groups, fairness)
    others = [*raise_alarms(drifts, *rules), *raise_alarms(excesses, *rules)]
    unmeasured = [*few_named, *few_shown, *few_new]
    alarms = _describe_alarms("pairs", by_name)
    gaps_left: list[dict[str, Any]] = []
    balanced: list[str] = []
    left_out = passed.index[passed["dropped"] == UNBALANCED]
    if len(left_out):
        left, few_left = _compare_labels(pairs.without(left_out), audit_groups)
        gaps_left = raise_alarms([each.gap for each in left], *rules)
        unmeasured += [f"after balancing, {few}" for few in few_left if few not in few_named]
        remaining = _describe_alarms("pairs, balanced", gaps_left)
        balanced = [text for key, text in alarms.items() if key not in remaining]
        alarms = remaining
    said = [*alarms.values(), *_describe_alarms("pairs", others).values()]
    for alarm in said:
        logger.warning("fairness: %s", alarm)
    return {
        "gaps": [*by_name, *others],
        "unmeasured": unmeasured,
        "left_out": len(left_out),
        "gaps_left": gaps_left,
        "balanced": balanced,
        "alarms": said,
    }


def _describe_alarms(where: str, gaps: list[dict[str, Any]]) -> dict[tuple[str, ...], str]:
    """What each alarm is on: its sentence."""
    return {
        (gap["measure"], gap["label"], *gap["groups"]): describe_alarm(where, gap)
        for gap in gaps
        if gap["alarm"]
    }


def _describe(
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
        _seeds_of(pairs),
    )


def _seeds_of(pairs: pd.DataFrame) -> pd.Series:
    """What is independent of each other: seeds with all that was written from them."""
    return pairs["seed_id"].where(pairs["seed_id"] != "", pairs["id"])


def _compare_labels(
    pairs: Described, audit_groups: AuditGroups
) -> tuple[list[LabelGap], list[str]]:
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


def _compare_with_shown(
    new: pd.DataFrame, coverage: pd.DataFrame, seeds: pd.DataFrame, labels: Labels
) -> tuple[list[Gap], list[str]]:
    """Labels of the new pairs, and of the coverage pairs that were shown for them.

    What a request is aimed at is no choice of the service LLM: only those count that walked through
    the coverage set. Ready pairs are compared with all of it, in their categories too if each
    states one.
    """
    written, shown = new[new["origin"] == "ready"], coverage
    are_ready = len(written) > 0
    if not are_ready:
        written = new[new["request"].isin(seeds.loc[seeds["turn"] > AIMED, "request"])]
        shown = coverage.set_index("id", drop=False).loc[written["seed_id"]]
    both = _stack(written, shown)
    read = read_labels(both["response"], labels)
    if are_ready and (both["category"] != "").all():
        is_known = both["category"].isin(coverage["category"])
        read["category of the pair"] = both["category"].where(is_known, OTHER_VALUE)
    masks = (("balance_gap", *label) for label in each_label(read))
    return _compare_sides("labels of new pairs", both, len(written), masks)


def _compare_words(
    new: pd.DataFrame,
    coverage: pd.DataFrame,
    audit_groups: AuditGroups,
    fairness: FairnessParameters,
) -> tuple[list[Gap], list[str]]:
    """What nobody wants, in a sample of the new pairs and of the coverage set."""
    some = [
        side.sample(min(len(side), MOST_TEXTS), random_state=fairness.seed)
        for side in (new, coverage)
    ]
    both = _stack(*some)

    def masks() -> Iterator[tuple[str, str, npt.ArrayLike]]:
        texts = both["prompt"] + "\n" + both["response"]
        for measure, marked in mark_texts(texts, both["response"], audit_groups).items():
            yield measure, "", marked

    return _compare_sides("words of new pairs", both, len(some[0]), masks())


def _stack(new: pd.DataFrame, coverage: pd.DataFrame) -> pd.DataFrame:
    return pd.concat([new, coverage.assign(seed_id="")], ignore_index=True)


def _compare_sides(
    what: str, both: pd.DataFrame, new: int, masks: Iterable[tuple[str, str, npt.ArrayLike]]
) -> tuple[list[Gap], list[str]]:
    """Measures and labels of new pairs, which come first, and of the coverage set."""
    of_seed, is_new = _seeds_of(both), both.index < new
    counts = [count_seeds(of_seed, side) for side in (is_new, ~is_new)]
    if min(counts) < FEWEST:
        return [], [
            f"{what} against the coverage set: pairs of {counts[0]} and {counts[1]} seeds, "
            f"{FEWEST} of each are needed"
        ]
    return [
        compare_groups(measure, label, SIDES, mask, is_new, of_seed)
        for measure, label, mask in masks
    ], []


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
