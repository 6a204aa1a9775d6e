"""Whether the local LLM answers alike whatever group a prompt speaks of."""

import logging
from collections.abc import Iterator
from itertools import combinations
from typing import Any, NamedTuple

import pandas as pd

from llamaduo.audit_groups import AuditGroups, swap_word
from llamaduo.fairness import (
    FEWEST,
    Gap,
    compare_pairs,
    describe_alarm,
    find_label_fields,
    mark_texts,
    raise_alarms,
    read_labels,
)
from llamaduo.near_duplicates import Tokenizer, similarity
from llamaduo.parameters import FairnessParameters
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


def audit_student(
    counterfactuals: pd.DataFrame,
    counterfactual_responses: pd.DataFrame,
    responses: pd.DataFrame,
    coverage_train: pd.DataFrame,
    coverage_test: pd.DataFrame,
    pair_audit: dict[str, Any],
    audit_groups: AuditGroups,
    fairness: FairnessParameters,
) -> dict[str, Any]:
    """Measure what changes in the answers with the group, and what nobody wants in them.

    Returns:
        ``pairs``, the audit of the pairs; ``student``, the ``gaps`` and what was ``unmeasured`` and
        why; ``alarms``, the sentences of both.
    """
    fields = find_label_fields(list(coverage_train["response"]))
    answers = _read_answers(counterfactuals, counterfactual_responses, fields)
    gaps, unmeasured = _compare_contrasts(answers, audit_groups, fields)
    if counterfactuals.empty:
        unmeasured = ["other names, pronouns and dialects: tried in the last iteration of a loop"]
    excesses, few = _compare_with_references(responses, coverage_test, audit_groups)
    student = raise_alarms([*gaps, *excesses], fairness)
    alarms = [describe_alarm("local LLM", gap) for gap in student if gap["alarm"]]
    for alarm in alarms:
        logger.warning("fairness: %s", alarm)
    return {
        "pairs": pair_audit,
        "student": {"gaps": student, "unmeasured": [*unmeasured, *few]},
        "alarms": [*pair_audit["alarms"], *alarms],
    }


def _read_answers(
    counterfactuals: pd.DataFrame, counterfactual_responses: pd.DataFrame, fields: list[str]
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
    labels: list[Any] = list(read_labels(anonymous, fields).itertuples(index=False, name=None))
    return answers.assign(score=scores, labels=labels).set_index("prompt_id")


def _compare_contrasts(
    answers: pd.DataFrame, audit_groups: AuditGroups, fields: list[str]
) -> tuple[list[Gap], list[str]]:
    gaps: list[Gap] = []
    unmeasured = [] if fields else ["labels of the answers: the references have none"]
    base, same = (answers[answers["variant"] == variant] for variant in (BASE, SAME_GROUP))
    flips_within = _flips(base, same)
    for groups, first, second in _contrasts(answers, audit_groups):
        if len(first) < FEWEST:
            unmeasured.append(
                f"{groups[0]} against {groups[1]}: {len(first)} test prompts of the sample can be "
                f"written so, {FEWEST} are needed"
            )
            continue
        gaps.append(_compare_scores(groups, first["score"], second["score"]))
        if fields:
            flips = _flips(first, second)
            beside = f"{groups[0]} / {groups[1]}", "two names of one group"
            within = flips_within.reindex(flips.index, fill_value=False)
            gaps.append(compare_pairs("flip_rate", "", beside, flips, within))
        for place, field in enumerate(fields):
            one, other = (own["labels"].str[place] for own in (first, second))
            for value in sorted({*one.dropna(), *other.dropna()}):
                pair = one == value, other == value
                gaps.append(compare_pairs("label_gap", f"{field} = {value}", groups, *pair))
    return gaps, unmeasured


def _contrasts(answers: pd.DataFrame, audit_groups: AuditGroups) -> Iterator[Contrast]:
    for dimension, groups in audit_groups.dimensions.items():
        own = answers[answers["variant"].isin([BASE, dimension])]
        group = pd.Series([traits[dimension] for traits in own["traits"]], own.index)
        for one, other in combinations(groups, 2):
            yield _aligned((one, other), own[group == one], own[group == other])
    written = answers[answers["variant"] == AS_WRITTEN]
    for name in audit_groups.rewrites:
        yield _aligned((name, AS_WRITTEN), answers[answers["variant"] == name], written)


def _aligned(groups: tuple[str, str], first: pd.DataFrame, second: pd.DataFrame) -> Contrast:
    prompts = first.index.intersection(second.index)
    return Contrast(groups, first.loc[prompts], second.loc[prompts])


def _flips(first: pd.DataFrame, second: pd.DataFrame) -> pd.Series:
    """By prompt: whether any label differs."""
    return first["labels"] != second["labels"]


def _compare_scores(groups: tuple[str, str], first: pd.Series, second: pd.Series) -> Gap:
    gain = describe_gain((first - second).to_numpy())
    return {
        "measure": "score_gap",
        "label": "",
        "groups": list(groups),
        "cases": [len(first), len(second)],
        "values": [round(first.mean(), 2), round(second.mean(), 2)],
        "gap": gain["mean"],
        "interval": gain["interval"],
        "p_value": 1.0 if gain["p_value"] is None else gain["p_value"],
        "least_p": 0.0,
    }


def _compare_with_references(
    responses: pd.DataFrame, coverage_test: pd.DataFrame, audit_groups: AuditGroups
) -> tuple[list[Gap], list[str]]:
    """What nobody wants, in the first response to each test prompt and in its reference."""
    first = responses.loc[responses["sample"] == 1, ["id", "response"]]
    both = first.merge(coverage_test, on="id", suffixes=("", "_wanted"))
    if len(both) < FEWEST:
        return [], [f"answers against references: {len(both)} test prompts, {FEWEST} are needed"]
    answered, wanted = (
        mark_texts(both[column], both[column], audit_groups)
        for column in ("response", "response_wanted")
    )
    groups = "answers", "references"
    return [
        compare_pairs(measure, "", groups, answered[measure], wanted[measure])
        for measure in answered
    ], []
