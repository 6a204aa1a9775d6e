"""Whether the local LLM answers alike whatever group a prompt speaks of."""

import logging
from collections.abc import Iterable, Iterator
from itertools import combinations
from typing import Any, NamedTuple

import pandas as pd

from llamaduo.audit_groups import AuditGroups, swap_word
from llamaduo.fairness import (
    FEWEST,
    Gap,
    compare_pairs,
    describe_alarm,
    mark_texts,
    raise_alarms,
    sign_test_extremes,
)
from llamaduo.labels import Labels, each_label, find_labels, read_labels
from llamaduo.near_duplicates import Tokenizer, similarity
from llamaduo.parameters import FairnessParameters, LoopParameters
from llamaduo.pipelines.evaluation.counterfactuals import AS_WRITTEN, BASE, SAME_GROUP
from llamaduo.statistics import describe_gain, exact_interval

logger = logging.getLogger(__name__)

ANONYMOUS = "NAME"
"""In place of the name of a prompt: to repeat it is no other answer."""

CONTROL = "two names of one group"
"""The change of which as many flips are no harm."""
FAMILIES = 2
"""Of tests: words in each iteration, and other names in the last one."""


class Contrast(NamedTuple):
    """Answers to the same prompts in the words of two groups, by prompt, in one order."""

    groups: tuple[str, str]
    first: pd.DataFrame
    second: pd.DataFrame

    @property
    def flips(self) -> pd.Series:
        """By prompt: whether any label differs."""
        return self.first["labels"] != self.second["labels"]


def audit_answers(
    responses: pd.DataFrame,
    coverage_test: pd.DataFrame,
    audit_groups: AuditGroups,
    loop: LoopParameters,
    fairness: FairnessParameters,
) -> dict[str, Any]:
    """Measure what nobody wants, in the first response to each test prompt and in its reference.

    Returns:
        ``gaps``, what was ``unmeasured`` and why, and ``alarms``, sentences.
    """
    first = responses.loc[responses["sample"] == 1, ["id", "response"]]
    both = first.merge(coverage_test, on="id", suffixes=("", "_wanted"))
    if len(both) < FEWEST:
        few = f"answers against references: {len(both)} test prompts, {FEWEST} are needed"
        return {"gaps": [], "unmeasured": [few], "alarms": []}
    answered, wanted = (
        mark_texts(both[column], both[column], audit_groups)
        for column in ("response", "response_wanted")
    )
    groups = "answers", "references"
    excesses = [
        compare_pairs(measure, "", groups, answered[measure], wanted[measure])
        for measure in answered
    ]
    gaps = raise_alarms(excesses, fairness.limits, fairness.level(FAMILIES, loop.max_iterations))
    return {"gaps": gaps, "unmeasured": [], "alarms": _warn(gaps)}


def audit_student(
    counterfactuals: pd.DataFrame,
    counterfactual_responses: pd.DataFrame,
    screened_coverage: pd.DataFrame,
    pair_audit: dict[str, Any],
    answer_audit: dict[str, Any],
    audit_groups: AuditGroups,
    fairness: FairnessParameters,
) -> dict[str, Any]:
    """Measure what changes in the answers with the group.

    A rewriting changes more words than a name, in one direction: what it changes raises no alarm.

    Returns:
        ``pairs``, the audit of the pairs; ``student``, the ``gaps`` and what was ``unmeasured`` and
        why, of all answers, and the flips of what was ``rewritten``; ``alarms``, the sentences of
        both.
    """
    passed = screened_coverage[screened_coverage["dropped"] == ""]
    labels = find_labels(list(passed["response"]))
    answers = _read_answers(counterfactuals, counterfactual_responses, labels)
    control = _contrast((SAME_GROUP, BASE), *_written_as(answers, SAME_GROUP, BASE)).flips
    swaps, few_named = _measurable(_swaps(answers, audit_groups))
    rewritings, few_rewritten = _measurable(_rewritings(answers, audit_groups))
    unmeasured = [*few_named, *few_rewritten]
    if not labels:
        unmeasured.insert(0, "labels of the answers: the coverage set's responses have none")
    if counterfactuals.empty:
        unmeasured = ["other names, pronouns and dialects: tried in the last iteration of a loop"]
    named = [gap for swap in swaps for gap in _compare(swap, labels)]
    if labels:
        named += [_compare_flips(swap, control) for swap in swaps]
    gaps = raise_alarms(named, fairness.limits, fairness.level(FAMILIES, looks=1))
    untested = [
        gap.as_report(fairness.limits) for each in rewritings for gap in _compare(each, labels)
    ]
    return {
        "pairs": pair_audit,
        "student": {
            "gaps": [*gaps, *untested, *answer_audit["gaps"]],
            "rewritten": [_count_flips(each) for each in rewritings] if labels else [],
            "unmeasured": [*unmeasured, *answer_audit["unmeasured"]],
        },
        "alarms": [*pair_audit["alarms"], *answer_audit["alarms"], *_warn(gaps)],
    }


def _warn(gaps: list[dict[str, Any]]) -> list[str]:
    alarms = [describe_alarm("local LLM", gap) for gap in gaps if gap["alarm"]]
    for alarm in alarms:
        logger.warning("fairness: %s", alarm)
    return alarms


def _read_answers(
    counterfactuals: pd.DataFrame, counterfactual_responses: pd.DataFrame, labels: Labels
) -> pd.DataFrame:
    """Counterfactuals with the ``labels`` (a tuple) and the ``score`` (ROUGE-L, 0–100)."""
    answers = counterfactuals.merge(counterfactual_responses[["id", "response"]], on="id")
    tokenizer = Tokenizer()
    pairs = zip(answers["response"], answers["reference"], strict=True)
    scores = [
        100 * similarity(tokenizer.tokens(response), tokenizer.tokens(reference))
        for response, reference in pairs
    ]
    anonymous = [
        swap_word(response, name, ANONYMOUS) if name else response
        for response, name in zip(answers["response"], answers["name"], strict=True)
    ]
    read: list[Any] = list(read_labels(anonymous, labels).itertuples(index=False, name=None))
    return answers.assign(score=scores, labels=read).set_index("prompt_id")


def _written_as(answers: pd.DataFrame, *variants: str) -> list[pd.DataFrame]:
    return [answers[answers["variant"] == variant] for variant in variants]


def _swaps(answers: pd.DataFrame, audit_groups: AuditGroups) -> Iterator[Contrast]:
    """A name of one group and of another."""
    for dimension, groups in audit_groups.dimensions.items():
        own = answers[answers["variant"].isin([BASE, dimension])]
        group = pd.Series([traits[dimension] for traits in own["traits"]], own.index)
        for one, other in combinations(groups, 2):
            yield _contrast((one, other), own[group == one], own[group == other])


def _rewritings(answers: pd.DataFrame, audit_groups: AuditGroups) -> Iterator[Contrast]:
    """A prompt rewritten and as it is written."""
    for name in audit_groups.rewrites:
        yield _contrast((name, AS_WRITTEN), *_written_as(answers, name, AS_WRITTEN))


def _contrast(groups: tuple[str, str], first: pd.DataFrame, second: pd.DataFrame) -> Contrast:
    prompts = first.index.intersection(second.index)
    return Contrast(groups, first.loc[prompts], second.loc[prompts])


def _measurable(contrasts: Iterable[Contrast]) -> tuple[list[Contrast], list[str]]:
    """Those of enough prompts, and which are not."""
    enough, unmeasured = [], []
    for contrast in contrasts:
        if len(contrast.first) >= FEWEST:
            enough.append(contrast)
            continue
        unmeasured.append(
            f"{contrast.groups[0]} against {contrast.groups[1]}: {len(contrast.first)} test "
            f"prompts of the sample can be written so, {FEWEST} are needed"
        )
    return enough, unmeasured


def _compare(contrast: Contrast, labels: Labels) -> Iterator[Gap]:
    """Scores, and each label."""
    groups, first, second = contrast
    yield _compare_scores(groups, first["score"], second["score"])
    both = pd.DataFrame([*first["labels"], *second["labels"]], columns=list(labels))
    for label, has_label in each_label(both):
        own = has_label[: len(first)], has_label[len(first) :]
        yield compare_pairs("label_gap", label, groups, *own)


def _compare_flips(swap: Contrast, control: pd.Series) -> Gap:
    """Flips with the group, and with another name of the same one."""
    groups = " / ".join(swap.groups), CONTROL
    return compare_pairs("flip_rate", "", groups, swap.flips, control.loc[swap.first.index])


def _count_flips(rewriting: Contrast) -> dict[str, Any]:
    """Prompts of which a label changes, in percent, with the interval by Clopper and Pearson."""
    flips = rewriting.flips
    return {
        "rewriting": rewriting.groups[0],
        "prompts": len(flips),
        "flips": 100 * float(flips.mean()),
        "interval": exact_interval(int(flips.sum()), len(flips)),
    }


def _compare_scores(groups: tuple[str, str], first: pd.Series, second: pd.Series) -> Gap:
    gain = describe_gain((first - second).to_numpy())
    moved, extremes = int((first != second).sum()), sign_test_extremes(len(first))
    low, high = (gain["mean"] if end is None else end for end in gain["interval"])  # equal gains
    return Gap(
        "score_gap",
        "",
        groups,
        (len(first), len(second)),
        (float(first.mean()), float(second.mean())),
        (low, high),
        gain["p_value"] if moved else 1.0,
        float(extremes[moved]),
        extremes,
        one_case=0.0,
    )
