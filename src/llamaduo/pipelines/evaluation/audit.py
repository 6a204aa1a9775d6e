"""Whether the judge can be trusted: what it says of answers whose worth is known.

The dangers are those of LLM judges: an answer that flatters or commands is scored well (Zheng et
al. 2024, arXiv 2410.07137), scores move while the answers stay, length counts, all answers get much
the same score, people see it otherwise (Thakur et al. 2024, arXiv 2406.12624).
"""

import logging
from typing import Any

import pandas as pd

from llamaduo.labels import WHOLE, find_labels, share_of_right_fields
from llamaduo.near_duplicates import Tokenizer, similarity
from llamaduo.parameters import EvaluationParameters, LoopParameters
from llamaduo.pipelines.evaluation.audit_cases import WORTHLESS
from llamaduo.pipelines.evaluation.judging import SCORES
from llamaduo.service_llm.failures import Failure
from llamaduo.service_llm.text import HIGHEST_SCORE
from llamaduo.statistics import (
    describe_gain,
    judge_spread,
    mean_and_error,
    paired_gains,
    rounded,
)

logger = logging.getLogger(__name__)

MOST_FOR_NOTHING = 30.0
"""Points that a worthless canary may get at most."""
LEAST_FOR_REFERENCE = 90.0
"""Points that the reference itself must get."""
LEAST_APART = 10.0
"""Points of precision by which another prompt's reference must stand below the own one."""
LEAST_SPREAD = 1.0
"""Points of standard deviation over imperfect responses; with less the judge tells none apart."""
LEAST_DIFFERENCE = 5.0
"""Points of standard deviation of ``_distances``; less apart, responses may be worth the same."""
FEWEST = 10
"""Imperfect responses; of fewer nothing is concluded."""
LEAST_DRIFT = 1.0
"""Points; a smaller shift of the anchors changes no decision, however significant."""
ASKED_ALIKE = ("judge", "judge_prompt", "judge_temperature")
"""What must be the same for the scores of the same responses to compare."""
GRADES = 25.0
"""Points between two anchors of the rubric, which are the categories of the weighted kappa."""


def audit_judge(
    audit_cases: pd.DataFrame,
    audit_judgements: pd.DataFrame,
    judge_replies: pd.DataFrame,
    judgements: pd.DataFrame,
    responses: pd.DataFrame,
    measurement: dict[str, Any],
    previous_iteration_history: list[dict[str, Any]] | None,
    loop: LoopParameters,
    evaluation: EvaluationParameters,
) -> dict[str, Any]:
    """Say of each judge how it scored, and whether it failed.

    Returns:
        ``judges``: one entry each, with ``failures``, sentences that forbid to rest a verdict on
        it; ``over_budget``, the cases that were not asked for.
    """
    tests = loop.max_iterations * len(SCORES) * len(measurement["judge"])
    lengths = responses.assign(length=responses["response"].str.len())
    judges = []
    for model in measurement["judge"]:
        own = judgements[judgements["judge"] == model]
        audited = audit_judgements.loc[audit_judgements["judge"] == model, ["id", *SCORES]]
        cases = audit_cases.merge(audited, on="id")
        answered_as = judge_replies.loc[judge_replies["judge"] == model, "model"].dropna()
        known = _first_anchors(previous_iteration_history or [], measurement, model)
        judge = {
            "model": model,
            "answered_as": sorted(answered_as.unique()),
            "judged_share": rounded(own["precision"].notna().mean()),
            # What this judge alone would have said.
            **{name: mean_and_error(own.groupby("id")[name].mean()) for name in SCORES},
            "spread": {name: judge_spread(own, name) for name in SCORES},
            "canaries": _by_kind(cases),
            "anchors": _anchor_scores(cases),
            "drift": {name: _drift(cases, known, name) for name in SCORES},
            "tie_share": _tie_share(own["precision"]),
            "length_correlation": _rank_correlation(
                own.merge(lengths, on=["id", "sample"]), "length", "precision"
            ),
            "human": {name: _agreement(cases, name) for name in SCORES},
        }
        failures = [
            *_canary_failures(judge["canaries"]),
            *_drift_failures(judge["drift"], evaluation.alpha / tests),
            *_spread_failures(cases),
        ]
        for failure in failures:
            logger.warning("the judge %s %s", model, failure)
        judges.append({**judge, "failures": failures})
    return {
        "judges": judges,
        "over_budget": int((audit_judgements["failure"] == Failure.OVER_BUDGET).sum()),
    }


def _by_kind(cases: pd.DataFrame) -> dict[str, dict[str, float | None]]:
    canaries = cases[~cases["kind"].isin(["anchor", "human"])]
    return {
        str(kind): {name: rounded(own[name].mean()) for name in SCORES}
        for kind, own in canaries.groupby("kind", sort=False)
    }


def _canary_failures(canaries: dict[str, Any]) -> list[str]:
    if unjudged := [kind for kind, own in canaries.items() if None in own.values()]:
        return [f"has not scored these canaries: {', '.join(unjudged)}"]
    failures = [
        f"gives {max(canaries[kind].values()):.0f} points to a response that is {kind}"
        for kind in WORTHLESS
        if max(canaries[kind].values()) > MOST_FOR_NOTHING
    ]
    reference = canaries["reference"]
    if min(reference.values()) < LEAST_FOR_REFERENCE:
        failures.append(f"gives the reference itself only {min(reference.values()):.0f} points")
    other = canaries.get("other_reference")
    if other and other["precision"] > reference["precision"] - LEAST_APART:
        failures.append(
            f"gives the reference of another prompt {other['precision']:.0f} points of precision"
        )
    return failures


def _anchor_scores(cases: pd.DataFrame) -> dict[str, dict[str, float | None]]:
    anchors = cases[cases["kind"] == "anchor"]
    return {
        name: {
            str(case): rounded(value)
            for case, value in zip(anchors["id"], anchors[name], strict=True)
        }
        for name in SCORES
    }


def _first_anchors(
    history: list[dict[str, Any]], measurement: dict[str, Any], model: str
) -> dict[str, Any] | None:
    """What the same judge, asked in the same way, gave the anchors the first time."""
    for entry in history:
        before = entry["assessment"]["measured"]
        if any(before[key] != measurement[key] for key in ASKED_ALIKE):
            continue
        for judge in entry["judge_audit"]["judges"]:
            if judge["model"] == model and set(judge["anchors"]["precision"].values()) - {None}:
                return dict(judge["anchors"])
    return None


def _drift(cases: pd.DataFrame, known: dict[str, Any] | None, name: str) -> dict[str, Any] | None:
    """How far the anchors have moved since the first iteration; None in it."""
    if known is None:
        return None
    return describe_gain(paired_gains(_anchor_scores(cases)[name], known[name]))


def _drift_failures(drifts: dict[str, Any], alpha: float) -> list[str]:
    """Sentences about anchors that moved further than chance and the least drift explain."""
    return [
        f"has moved the {name} of the same responses by {drift['mean']:+.1f} points since it first "
        "judged them"
        for name, drift in drifts.items()
        if drift and drift["p_value"] is not None
        if drift["p_value"] < alpha and abs(drift["mean"]) >= LEAST_DRIFT
    ]


def _spread_failures(cases: pd.DataFrame) -> list[str]:
    """A sentence where imperfect responses that differ get one score, other than 0 and 100."""
    imperfect = (cases["kind"] == "anchor") & (cases["response"] != cases["reference"])
    judged = cases[imperfect & cases["precision"].notna()]
    given = judged["precision"]
    if len(given) < FEWEST or given.std() >= LEAST_SPREAD:
        return []
    if _distances(judged).std() < LEAST_DIFFERENCE:
        return []  # such as labels of which each response has one wrong: they are worth the same
    if not LEAST_SPREAD < given.mean() < HIGHEST_SCORE - LEAST_SPREAD:
        return []
    return [
        f"gives nearly every imperfect response {given.mean():.0f} points of precision, however "
        "far it is from its reference"
    ]


def _distances(cases: pd.DataFrame) -> pd.Series:
    """How far each response is from its reference, 0–100, as far as a program can tell.

    Of JSON objects the share of wrong fields, of labels all or nothing, of other texts 1 - ROUGE-L.
    """
    if WHOLE in find_labels(list(cases["reference"])):
        return 100.0 * (cases["response"].str.strip() != cases["reference"].str.strip())
    tokenizer = Tokenizer()
    right = [
        similarity(tokenizer.tokens(response), tokenizer.tokens(reference))
        if (share := share_of_right_fields(response, reference)) is None
        else share
        for response, reference in zip(cases["response"], cases["reference"], strict=True)
    ]
    return 100 * (1 - pd.Series(right, dtype=float))


def _tie_share(scores: pd.Series) -> float | None:
    """Share of the judgements that have the most frequent score."""
    return rounded(scores.value_counts(normalize=True).max())


def _rank_correlation(table: pd.DataFrame, one: str, other: str) -> float | None:
    """Spearman's rank correlation; None where one of the two does not vary."""
    from scipy import stats

    known = table[[one, other]].dropna()
    if known[one].nunique() < 2 or known[other].nunique() < 2:
        return None
    return rounded(stats.spearmanr(known[one], known[other]).statistic)


def _agreement(cases: pd.DataFrame, name: str) -> dict[str, Any] | None:
    """How far the judge agrees with people; None without scores of theirs.

    Returns:
        ``cases``; ``spearman``; ``weighted_kappa``, with quadratic weights on the grades of the
        rubric; ``offset``, the judge's score minus theirs, with its ``interval``.
    """
    human = f"human_{name}"
    known = cases[[name, human]].dropna().astype(float)
    if known.empty:
        return None
    gain = describe_gain((known[name] - known[human]).to_numpy())
    return {
        "cases": len(known),
        "spearman": _rank_correlation(known, name, human),
        "weighted_kappa": _weighted_kappa(known[name], known[human]),
        "offset": gain["mean"],
        "interval": gain["interval"],
    }


def _weighted_kappa(one: pd.Series, other: pd.Series) -> float | None:
    from statsmodels.stats.inter_rater import cohens_kappa

    row, column = ((scores / GRADES).round().astype(int) for scores in (one, other))
    if pd.concat([row, column]).nunique() < 2:
        return None
    grades = range(int(HIGHEST_SCORE / GRADES) + 1)
    table = pd.crosstab(row, column).reindex(index=grades, columns=grades, fill_value=0)
    return rounded(cohens_kappa(table.to_numpy(), wt="quadratic", return_results=True).kappa)
