"""Past the plateau of SFT: what the local LLM is to prefer, and over what.

In an iteration of SFT all of these tables are empty.
"""

import logging
from pathlib import Path
from typing import Any

import pandas as pd

from llamaduo.local_llm.base_model import BaseModelSpec
from llamaduo.local_llm.engines import InferenceEngine
from llamaduo.parameters import (
    EvaluationParameters,
    FineTuningParameters,
    IterationParameters,
    PreferenceParameters,
)
from llamaduo.pipelines.evaluation.answering import answer_prompts
from llamaduo.pipelines.evaluation.judging import SCORES
from llamaduo.pipelines.fine_tuning.nodes import are_validating
from llamaduo.schemas import PreferencePairs, PreferencePrompts
from llamaduo.service_llm.text import HIGHEST_SCORE
from llamaduo.tuning import tuning_of

logger = logging.getLogger(__name__)

LEAST_PREFERRED = 16
"""Pairs that validate a training; on 4 the loss moved by 1e-4, and stopped trainings by chance."""


def choose_preference_prompts(
    training_set: pd.DataFrame,
    previous_verdict: dict[str, Any] | None,
    fine_tuning: FineTuningParameters,
    iteration: IterationParameters,
) -> pd.DataFrame:
    """Draw coverage-train prompts that the local LLM is to answer, others in each iteration.

    Surrogates stand for personal details, as in all that trains.

    Returns:
        ``PreferencePrompts``.
    """
    if tuning_of(previous_verdict) != "preference":
        return PreferencePrompts.empty()
    validation = are_validating(training_set, fine_tuning.validation_share)
    marked = training_set.assign(validation=validation, seed_id=training_set["id"])
    coverage = marked[training_set["origin"] == "coverage"]
    chosen = coverage.sample(
        min(fine_tuning.preference.prompts, len(coverage)),
        random_state=fine_tuning.seed * 1000 + iteration.index,
    )
    ids = [f"p{iteration.index:03d}-{number:05d}" for number in range(1, len(chosen) + 1)]
    columns = list(PreferencePrompts.to_schema().columns)
    return chosen.assign(id=ids)[columns].reset_index(drop=True)


def answer_preference_prompts(
    inference: InferenceEngine,
    base_model: BaseModelSpec,
    previous_best_adapter: Path | None,
    preference_prompts: pd.DataFrame,
    fine_tuning: FineTuningParameters,
    evaluation: EvaluationParameters,
) -> pd.DataFrame:
    """Let the best adapter so far answer each prompt several times, once where it is greedy.

    Returns:
        ``Responses``.
    """
    is_greedy = evaluation.decoding.temperature == 0
    samples = 1 if is_greedy else fine_tuning.preference.responses_per_prompt
    drawn = evaluation.model_copy(update={"responses_per_prompt": samples})
    return answer_prompts(inference, base_model, previous_best_adapter, preference_prompts, drawn)


def make_preference_pairs(
    preference_judgements: pd.DataFrame,
    preference_responses: pd.DataFrame,
    preference_prompts: pd.DataFrame,
    fine_tuning: FineTuningParameters,
) -> pd.DataFrame:
    """Prefer the reference, or the best response, over the worst response to a prompt.

    A response's score is the mean of both scores over its readable judgements; one without any
    is left out, and so is a pair whose scores are nearer than the margin, or whose texts are equal.
    One that was cut off is never preferred. What SFT keeps back for validation is never trained on
    here either: it validates, or is left out where there are few.

    Returns:
        ``PreferencePairs``, at most one per prompt.
    """
    if preference_prompts.empty:
        return PreferencePairs.empty()
    judged = _scored(preference_judgements, preference_responses)
    worst = judged.drop_duplicates("id", keep="first")
    rejected = worst[["id", "response", "score", "finished"]].set_axis(
        ["id", "rejected", "rejected_score", "rejected_finished"], axis=1
    )
    chosen = _chosen(judged, preference_prompts, fine_tuning.preference)
    pairs = preference_prompts.merge(rejected, on="id").merge(chosen, on="id")
    differ = pairs["chosen"].str.strip() != pairs["rejected"].str.strip()
    apart = pairs["chosen_score"] - pairs["rejected_score"] >= fine_tuning.preference.margin
    pairs = pairs.loc[differ & apart, list(PreferencePairs.to_schema().columns)]
    if pairs["validation"].sum() < LEAST_PREFERRED:
        pairs = pairs[~pairs["validation"]]
    logger.info("%d preference pairs of %d prompts", len(pairs), len(preference_prompts))
    if pairs["validation"].all():
        logger.warning("no response is to be preferred over another: the best adapter is handed on")
        return PreferencePairs.empty()
    return pairs.reset_index(drop=True)


def _scored(judgements: pd.DataFrame, responses: pd.DataFrame) -> pd.DataFrame:
    """The responses that have a ``score``, each prompt's worst first."""
    scores = judgements.assign(score=judgements[list(SCORES)].mean(axis=1))
    means = scores.groupby(["id", "sample"], as_index=False)["score"].mean().dropna()
    return responses.merge(means, on=["id", "sample"]).sort_values(
        ["id", "score", "sample"], kind="stable"
    )


def _chosen(
    judged: pd.DataFrame, prompts: pd.DataFrame, preference: PreferenceParameters
) -> pd.DataFrame:
    """``id``, ``chosen`` and ``chosen_score``; the judge is not asked about a reference."""
    if preference.chosen == "reference":
        best = prompts.assign(score=float(HIGHEST_SCORE))
    else:
        best = judged[judged["finished"]].drop_duplicates("id", keep="last")
    return best[["id", "response", "score"]].set_axis(["id", "chosen", "chosen_score"], axis=1)
