"""Whether the pairs treat groups alike."""

import logging
from collections.abc import Iterable, Iterator
from typing import Any

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
from llamaduo.pipelines.data_synthesis.balancing import (
    FAMILIES,
    compare_labels,
    describe,
)
from llamaduo.pipelines.data_synthesis.seeding import AIMED
from llamaduo.pipelines.data_synthesis.training_set import UNBALANCED, kept
from llamaduo.schemas import seeds_of

logger = logging.getLogger(__name__)

MOST_TEXTS = 2000
"""New pairs, and coverage pairs, whose words are looked at; toxic ones cost a millisecond each."""
SIDES = "new pairs", "coverage set"


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
    pairs = describe(previous_training_set, passed, audit_groups, labels)
    compared, few_named = compare_labels(pairs, audit_groups)
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
        left, few_left = compare_labels(pairs.without(left_out), audit_groups)
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
    of_seed, is_new = seeds_of(both), both.index < new
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
