"""From seeds to a longer training set."""

import json
import logging
from collections.abc import Hashable
from typing import Any

import numpy as np
import pandas as pd

from llamaduo.parameters import IterationParameters, SynthesisParameters
from llamaduo.schemas import ParsedPairs, Seeds, SynthesisReplies
from llamaduo.service_llm.answers import reply_columns
from llamaduo.service_llm.budget import expected_tokens
from llamaduo.service_llm.client import Request, ServiceLLM
from llamaduo.service_llm.failures import Failure
from llamaduo.service_llm.text import fill, is_text, read_json

logger = logging.getLogger(__name__)

BEFORE_FIRST = {"iteration": 0, "asked_so_far": 0, "requests_so_far": 0}

PAIRS_SCHEMA = {
    "name": "pairs",
    "strict": True,
    "schema": {
        "type": "object",
        "properties": {
            "pairs": {
                "type": "array",
                "items": {
                    "type": "object",
                    "properties": {"prompt": {"type": "string"}, "response": {"type": "string"}},
                    "required": ["prompt", "response"],
                    "additionalProperties": False,
                },
            }
        },
        "required": ["pairs"],
        "additionalProperties": False,
    },
}


def choose_seeds(
    coverage_train: pd.DataFrame,
    ready_pairs: pd.DataFrame,
    previous_synthesis_report: dict[str, Any] | None,
    synthesis: SynthesisParameters,
) -> pd.DataFrame:
    """Choose the coverage-train pairs that this iteration shows to the service LLM.

    Requests walk through one stratified order of the coverage set, from where the iteration before
    stopped: every pair is shown before any is shown again.

    Returns:
        ``Seeds``; empty in the first iteration and where ready pairs stand in.
    """
    if len(ready_pairs):
        return Seeds.empty()
    so_far = previous_synthesis_report or BEFORE_FIRST
    done, new_pairs = so_far["requests_so_far"], synthesis.new_pairs(so_far["iteration"] + 1)
    count = -(-new_pairs // synthesis.pairs_per_request)
    if not count:
        return Seeds.empty()
    order = _stratified_order(coverage_train["category"], synthesis.seed)
    chosen = coverage_train.iloc[order[np.arange(done, done + count) % len(order)]]
    pairs = np.full(count, synthesis.pairs_per_request)
    pairs[-1] = new_pairs - pairs[:-1].sum()
    return pd.DataFrame(
        {
            "request": np.arange(done, done + count) + 1,
            "seed_id": chosen["id"].to_numpy(),
            "prompt": chosen["prompt"].to_numpy(),
            "response": chosen["response"].to_numpy(),
            "pairs": pairs,
        }
    )


def ask_service_llm(
    seeds: pd.DataFrame,
    synthesis_prompt: str,
    service_llm: ServiceLLM,
    synthesis: SynthesisParameters,
    iteration: IterationParameters,
) -> pd.DataFrame:
    """Ask for new pairs, one request per seed.

    Returns:
        ``SynthesisReplies``, one row per seed, raw.

    Raises:
        ServiceLLMError: Every request failed.
    """
    if seeds.empty:
        return SynthesisReplies.empty()
    requests = [
        Request(
            messages=[{"role": "user", "content": _synthesis_request(synthesis_prompt, seed)}],
            max_tokens=synthesis.max_tokens,
            expected_tokens=seed["pairs"] * expected_tokens(_shown(seed)),
            temperature=synthesis.temperature,
            response_schema=PAIRS_SCHEMA,
        )
        for seed in seeds.to_dict("records")
    ]
    replies = service_llm.complete_all(requests, "asking for pairs", iteration.account)
    return pd.DataFrame(
        {
            "request": seeds["request"],
            "seed_id": seeds["seed_id"],
            **reply_columns(replies),
        }
    )


def parse_pairs(
    synthesis_replies: pd.DataFrame,
    coverage_train: pd.DataFrame,
    ready_pairs: pd.DataFrame,
    previous_synthesis_report: dict[str, Any] | None,
    synthesis: SynthesisParameters,
) -> pd.DataFrame:
    """Read the pairs out of the replies, or take the next slice of the ready pairs.

    Returns:
        ``ParsedPairs``; a reply that cannot be read is a row that says why.
    """
    so_far = previous_synthesis_report or BEFORE_FIRST
    iteration = so_far["iteration"] + 1
    if len(ready_pairs):
        first = so_far["asked_so_far"]
        rows = _ready_rows(ready_pairs.iloc[first : first + synthesis.new_pairs(iteration)])
    else:
        by_id = coverage_train.set_index("id")
        rows = [
            {
                "seed_id": reply["seed_id"],
                "category": by_id["category"].at[reply["seed_id"]],
                "system": by_id["system"].at[reply["seed_id"]],
                "seed_prompt": by_id["prompt"].at[reply["seed_id"]],
                **pair,
            }
            for reply in synthesis_replies.to_dict("records")
            for pair in read_pairs(reply["text"], reply["failure"], reply["detail"])
        ]
    ids = [f"i{iteration:03d}-{number:05d}" for number in range(1, len(rows) + 1)]
    return pd.DataFrame(rows).assign(id=ids) if rows else ParsedPairs.empty()


def read_pairs(
    text: str | None, failure: str | None = None, detail: str = ""
) -> list[dict[str, str]]:
    """Read one reply.

    Returns:
        Rows of ``prompt``, ``response`` and ``unreadable`` (the reason, empty for a pair).
    """
    if failure is not None and not pd.isna(failure):
        return [_unreadable(f"request failed: {failure} {detail}".strip())]
    pairs = read_json(str(text), _pairs_of)
    if pairs is None:
        return [_unreadable("no list of pairs in the reply, or a broken one")]
    return [
        {"prompt": pair["prompt"], "response": pair["response"], "unreadable": ""}
        if isinstance(pair, dict) and is_text(pair.get("prompt")) and is_text(pair.get("response"))
        else _unreadable("prompt or response is missing or no text")
        for pair in pairs
    ]


def extend_training_set(
    screened_pairs: pd.DataFrame,
    previous_training_set: pd.DataFrame | None,
    coverage_train: pd.DataFrame,
    iteration: IterationParameters,
) -> pd.DataFrame:
    """Add the kept pairs to what was trained on before: accumulate, never replace.

    Returns:
        ``TrainingSet``; in a loop's first iteration it begins with the coverage set.
    """
    known = previous_training_set
    if known is None:
        known = coverage_train[["id", "category", "system", "prompt", "response"]].assign(
            source="coverage", iteration=iteration.index, seed_id=""
        )
    kept = screened_pairs[screened_pairs["dropped"] == ""].drop(columns="dropped")
    added = kept.assign(source="synthetic", iteration=iteration.index)
    columns = ["id", "source", "iteration", "seed_id", "category", "system", "prompt", "response"]
    training_set = pd.concat([known[columns], added[columns]], ignore_index=True)
    logger.info("training set: %d pairs, %d of them new", len(training_set), len(added))
    return training_set


def report_synthesis(
    screened_pairs: pd.DataFrame,
    synthesis_replies: pd.DataFrame,
    previous_synthesis_report: dict[str, Any] | None,
    synthesis: SynthesisParameters,
) -> dict[str, Any]:
    """Count what was asked for, what came, and what was dropped for which reason.

    The sums so far tell the next iteration where to go on, whatever its parameters are.
    """
    so_far = previous_synthesis_report or BEFORE_FIRST
    iteration = so_far["iteration"] + 1
    asked = synthesis.new_pairs(iteration)
    counts = screened_pairs["dropped"].value_counts()
    return {
        "iteration": iteration,
        "asked": asked,
        "asked_so_far": so_far["asked_so_far"] + asked,
        "requests_so_far": so_far["requests_so_far"] + len(synthesis_replies),
        "kept": int(counts.get("", 0)),
        "dropped": {str(k): int(v) for k, v in counts.sort_index().items() if k},
        "requests": len(synthesis_replies),
        "failed_requests": int(synthesis_replies["failure"].notna().sum()),
        "over_budget": int((synthesis_replies["failure"] == Failure.OVER_BUDGET).sum()),
        "prompt_tokens": int(synthesis_replies["prompt_tokens"].sum()),
        "completion_tokens": int(synthesis_replies["completion_tokens"].sum()),
        "teacher": sorted(synthesis_replies["model"].dropna().unique()),
    }


def _stratified_order(categories: pd.Series, seed: int) -> np.ndarray:
    """Row positions, shuffled, such that every stretch holds the categories about evenly."""
    shuffled = np.random.default_rng(seed).permutation(len(categories))
    turn = categories.iloc[shuffled].groupby(categories.iloc[shuffled]).cumcount()
    return shuffled[np.argsort(turn.to_numpy(), kind="stable")]


def _synthesis_request(synthesis_prompt: str, seed: dict[Hashable, Any]) -> str:
    return fill(
        synthesis_prompt,
        {
            "seed": _shown(seed),
            "pairs": str(seed["pairs"]),
            "request": str(seed["request"]),
        },
    )


def _shown(seed: dict[Hashable, Any]) -> str:
    pair = {"prompt": seed["prompt"], "response": seed["response"]}
    return json.dumps(pair, ensure_ascii=False)


def _ready_rows(ready_pairs: pd.DataFrame) -> list[dict[str, Any]]:
    return [
        {
            "seed_id": "",
            "category": row.get("category") or "",
            "system": row.get("system") or "",
            "seed_prompt": "",
            "prompt": row["prompt"],
            "response": row["response"],
            "unreadable": "",
        }
        for row in ready_pairs.fillna("").to_dict("records")
    ]


def _pairs_of(value: dict[str, Any]) -> list[Any] | None:
    pairs = value.get("pairs")
    return pairs if isinstance(pairs, list) else None


def _unreadable(reason: str) -> dict[str, str]:
    return {"prompt": "", "response": "", "unreadable": reason}
