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
    Labels,
    Tested,
    compare_pairs,
    describe_alarm,
    each_label,
    find_labels,
    make_gap,
    mark_texts,
    raise_alarms,
    read_labels,
    report_gaps,
)
from llamaduo.near_duplicates import Tokenizer, similarity
from llamaduo.parameters import FairnessParameters, LoopParameters
from llamaduo.pipelines.evaluation.counterfactuals import AS_WRITTEN, BASE, SAME_GROUP
from llamaduo.pipelines.evaluation.statistics import describe_gain

logger = logging.getLogger(__name__)

ANONYMOUS = "NAME"
"""In place of the name of a prompt: to repeat it is no other answer."""


class Contrast(NamedTuple):
    """Answers to the same prompts in the words of two groups, by prompt, in one order."""

    groups: tuple[str, str]
    first: pd.DataFrame
    second: pd.DataFrame
    placebo: str
    """The change that is none of the group."""
    placebo_flips: pd.Series
    """By prompt: whether it changes a label."""


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
    gaps = raise_alarms(excesses, fairness.limits, fairness.level(loop.max_iterations))
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
        why, of all answers; ``alarms``, the sentences of both.
    """
    passed = screened_coverage[screened_coverage["dropped"] == ""]
    labels = find_labels(list(passed["response"]))
    answers = _read_answers(counterfactuals, counterfactual_responses, labels)
    by_name, few_named = _compare_contrasts(_swaps(answers, audit_groups), labels)
    rewritten, few_rewritten = _compare_contrasts(_rewritings(answers, audit_groups), labels)
    unmeasured = [*few_named, *few_rewritten]
    if not labels:
        unmeasured.insert(0, "labels of the answers: the coverage set's responses have none")
    if counterfactuals.empty:
        unmeasured = ["other names, pronouns and dialects: tried in the last iteration of a loop"]
    gaps = raise_alarms(by_name, fairness.limits, fairness.level(looks=1))
    return {
        "pairs": pair_audit,
        "student": {
            "gaps": [*gaps, *report_gaps(rewritten, fairness.limits), *answer_audit["gaps"]],
            "unmeasured": [*unmeasured, *answer_audit["unmeasured"]],
        },
        "alarms": [*pair_audit["alarms"], *answer_audit["alarms"], *_warn(gaps)],
    }


def _warn(gaps: list[Gap]) -> list[str]:
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


def _swaps(answers: pd.DataFrame, audit_groups: AuditGroups) -> Iterator[Contrast]:
    """A name of one group and of another."""
    base, same = (answers[answers["variant"] == variant] for variant in (BASE, SAME_GROUP))
    placebo = "two names of one group", _flips(base, same)
    for dimension, groups in audit_groups.dimensions.items():
        own = answers[answers["variant"].isin([BASE, dimension])]
        group = pd.Series([traits[dimension] for traits in own["traits"]], own.index)
        for one, other in combinations(groups, 2):
            yield _aligned((one, other), own[group == one], own[group == other], *placebo)


def _rewritings(answers: pd.DataFrame, audit_groups: AuditGroups) -> Iterator[Contrast]:
    """A prompt rewritten and as it is written; the same prompt has the same answer."""
    written = answers[answers["variant"] == AS_WRITTEN]
    placebo = "no change", _flips(written, written)
    for name in audit_groups.rewrites:
        yield _aligned((name, AS_WRITTEN), answers[answers["variant"] == name], written, *placebo)


def _aligned(
    groups: tuple[str, str],
    first: pd.DataFrame,
    second: pd.DataFrame,
    placebo: str,
    placebo_flips: pd.Series,
) -> Contrast:
    prompts = first.index.intersection(second.index)
    parts = first.loc[prompts], second.loc[prompts], placebo, placebo_flips.loc[prompts]
    return Contrast(groups, *parts)


def _flips(first: pd.DataFrame, second: pd.DataFrame) -> pd.Series:
    """By prompt: whether any label differs."""
    return first["labels"] != second["labels"]


def _compare_contrasts(
    contrasts: Iterable[Contrast], labels: Labels
) -> tuple[list[Gap], list[str]]:
    gaps: list[Gap] = []
    unmeasured = []
    for groups, first, second, placebo, placebo_flips in contrasts:
        if len(first) < FEWEST:
            unmeasured.append(
                f"{groups[0]} against {groups[1]}: {len(first)} test prompts of the sample can be "
                f"written so, {FEWEST} are needed"
            )
            continue
        gaps.append(_compare_scores(groups, first["score"], second["score"]))
        if labels:
            beside = " / ".join(groups), placebo
            gaps.append(
                compare_pairs("flip_rate", "", beside, _flips(first, second), placebo_flips)
            )
        both = pd.DataFrame([*first["labels"], *second["labels"]], columns=list(labels))
        for label, has_label in each_label(both):
            own = has_label[: len(first)], has_label[len(first) :]
            gaps.append(compare_pairs("label_gap", label, groups, *own))
    return gaps, unmeasured


def _compare_scores(groups: tuple[str, str], first: pd.Series, second: pd.Series) -> Gap:
    gain = describe_gain((first - second).to_numpy())
    moved = int((first != second).sum())
    tested = Tested(gain["p_value"] if moved else 1.0, min(1.0, 2.0 ** (1 - moved)))
    low, high = (gain["mean"] if end is None else end for end in gain["interval"])  # equal gains
    values, cases = (first.mean(), second.mean()), (len(first), len(second))
    return make_gap("score_gap", "", groups, cases, values, (low, high), tested)
