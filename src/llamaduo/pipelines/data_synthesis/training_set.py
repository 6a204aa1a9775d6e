"""From the pairs that passed to a longer training set, and what became of the others."""

import logging
from typing import Any

import pandas as pd

from llamaduo.errors import InputError
from llamaduo.near_duplicates import plain
from llamaduo.parameters import IterationParameters, SynthesisParameters
from llamaduo.pipelines.data_synthesis.reading import BEFORE_FIRST, pairs_to_ask
from llamaduo.pipelines.data_synthesis.seeding import AIMED
from llamaduo.schemas import TrainingSet
from llamaduo.service_llm.answers import count_replaced
from llamaduo.service_llm.client import ServiceLLM
from llamaduo.service_llm.failures import Failure

logger = logging.getLogger(__name__)

COLUMNS = list(TrainingSet.to_schema().columns)
UNBALANCED = "unbalanced"


def extend_training_set(
    balanced_pairs: pd.DataFrame,
    previous_training_set: pd.DataFrame | None,
    coverage_test: pd.DataFrame,
    coverage_holdout: pd.DataFrame,
    iteration: IterationParameters,
) -> pd.DataFrame:
    """Add the kept pairs to what was trained on before: accumulate, never replace.

    Returns:
        ``TrainingSet``; in a loop's first iteration it begins with the coverage set.

    Raises:
        InputError: A test or holdout prompt is in it, whatever the checks let pass.
    """
    training_set = added = kept(balanced_pairs).assign(iteration=iteration.index)[COLUMNS]
    if previous_training_set is not None:
        training_set = pd.concat([previous_training_set[COLUMNS], added])
    training_set = training_set.reset_index(drop=True)
    reserved = pd.concat([coverage_test["prompt"], coverage_holdout["prompt"]]).map(plain)
    leaked = training_set[training_set["prompt"].map(plain).isin(set(reserved))]
    if len(leaked):
        raise InputError(
            f"{len(leaked)} prompt(s) of the training set stand in coverage_test or "
            f"coverage_holdout too, first of all {leaked['id'].iloc[0]}. Did a coverage file "
            "change since the loop began? Then begin a new loop"
        )
    logger.info("training set: %d pairs, %d of them new", len(training_set), len(_new(added)))
    return training_set


def report_synthesis(
    balanced_pairs: pd.DataFrame,
    training_set: pd.DataFrame,
    synthesis_replies: pd.DataFrame,
    pair_judge_replies: pd.DataFrame,
    seeds: pd.DataFrame,
    screened_coverage: pd.DataFrame,
    ready_pairs: pd.DataFrame,
    previous_synthesis_report: dict[str, Any] | None,
    previous_verdict: dict[str, Any] | None,
    diversity: dict[str, Any],
    service_llm: ServiceLLM,
    synthesis: SynthesisParameters,
) -> dict[str, Any]:
    """Count what was asked for, what came, and what was dropped for which reason.

    The sums so far tell the next iteration where to go on, whatever its parameters are.
    """
    so_far = previous_synthesis_report or BEFORE_FIRST
    iteration = so_far["iteration"] + 1
    asked = pairs_to_ask(iteration, previous_verdict, synthesis)
    new_pairs = _new(balanced_pairs)
    used, dropped = kept(new_pairs), _counts(new_pairs["dropped"])
    own = training_set.loc[training_set["origin"] == "coverage", "id"]
    left_out = screened_coverage.loc[~screened_coverage["id"].isin(own), "dropped"]
    if asked:
        wanted = asked / (synthesis.judging.best_of if synthesis.judging else 1)
        logger.log(
            logging.WARNING if len(used) < synthesis.min_yield * wanted else logging.INFO,
            "%d of %d pairs that were asked for can be used; dropped: %s",
            len(used),
            asked,
            ", ".join(f"{count} {reason}" for reason, count in dropped.items()) or "none",
        )
    replies = pd.concat([synthesis_replies, pair_judge_replies])
    return {
        "iteration": iteration,
        "ready_pairs": len(ready_pairs),
        "asked": asked,
        "asked_so_far": so_far["asked_so_far"] + asked,
        "requests_so_far": so_far["requests_so_far"] + int(synthesis_replies["request"].nunique()),
        "walked_so_far": max([so_far["walked_so_far"], *map(int, seeds["turn"])]),
        "kept": len(used),
        "by_category": _by_category(seeds, used, screened_coverage),
        "kept_by_prompt": _counts(used["prompt_version"]),
        "dropped": dropped,
        "coverage_left_out": _counts(left_out.replace("", UNBALANCED)),
        "requests": len(replies),
        "asked_again": int((synthesis_replies["attempt"] > 1).sum()),
        "failed_requests": int(replies["failure"].notna().sum()),
        "over_budget": int((replies["failure"] == Failure.OVER_BUDGET).sum()),
        "prompt_tokens": int(replies["prompt_tokens"].sum()),
        "completion_tokens": int(replies["completion_tokens"].sum()),
        "teacher": sorted(synthesis_replies["model"].dropna().unique()),
        "diversity": diversity,
        "privacy": {
            "detect": service_llm.gate.settings.detect,
            "coverage": count_replaced(screened_coverage),
            "pairs": count_replaced(new_pairs),
            "requests": count_replaced(synthesis_replies),
            "judge_requests": count_replaced(pair_judge_replies),
        },
    }


def _by_category(
    seeds: pd.DataFrame, used: pd.DataFrame, screened_coverage: pd.DataFrame
) -> dict[str, dict[str, int]]:
    """Pairs by the category of their seed: asked for, of these aimed, and kept."""
    of_seed = screened_coverage.set_index("id")["category"]
    category = seeds["seed_id"].map(of_seed)
    counts = pd.DataFrame(
        {
            "asked": seeds["pairs"].groupby(category).sum(),
            "aimed": seeds["pairs"].where(seeds["turn"] == AIMED, 0).groupby(category).sum(),
            "kept": used["category"].value_counts(),
        }
    )
    counts = counts.fillna(0).astype(int).sort_index()
    return {str(name): {str(k): int(v) for k, v in row.items()} for name, row in counts.iterrows()}


def _new(rows: pd.DataFrame) -> pd.DataFrame:
    return rows[rows["origin"] != "coverage"]


def kept(rows: pd.DataFrame) -> pd.DataFrame:
    """The rows that no check has dropped."""
    return rows[rows["dropped"] == ""]


def _counts(values: pd.Series) -> dict[str, int]:
    """How often each value occurs, but for the empty one."""
    counts = values[values != ""].value_counts().sort_index()
    return {str(value): int(count) for value, count in counts.items()}
