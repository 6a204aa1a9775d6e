"""Which of the new pairs the judge finds poor; asked only where the parameters want it."""

import json
from collections.abc import Hashable
from typing import Any

import pandas as pd

from llamaduo.parameters import IterationParameters, SynthesisParameters
from llamaduo.schemas import PairJudgeReplies
from llamaduo.service_llm.answers import reply_columns
from llamaduo.service_llm.client import Request
from llamaduo.service_llm.jury import Judge
from llamaduo.service_llm.text import fill, read_json, read_score

SCORE_TOKENS = 10
"""About: one score as JSON."""

SCORE_SCHEMA = {
    "name": "score",
    "strict": True,
    "schema": {
        "type": "object",
        "properties": {"score": {"type": "number"}},
        "required": ["score"],
        "additionalProperties": False,
    },
}


def judge_pairs(
    screened_pairs: pd.DataFrame,
    screened_coverage: pd.DataFrame,
    pair_judge_prompt: str,
    judge: Judge,
    synthesis: SynthesisParameters,
    iteration: IterationParameters,
) -> pd.DataFrame:
    """Let the judge, of a jury its first member, score each pair that passed the checks.

    Returns:
        ``PairJudgeReplies``, one row per such pair, raw; empty where no judging is asked for.

    Raises:
        ServiceLLMError: Every request failed.
    """
    passed = screened_pairs[screened_pairs["dropped"] == ""]
    judging = synthesis.judging
    if judging is None or passed.empty:
        return PairJudgeReplies.empty()
    examples = screened_coverage.set_index("id")[["prompt", "response"]].to_dict("index")
    requests = [
        Request(
            messages=[{"role": "user", "content": _request_text(pair_judge_prompt, case)}],
            max_tokens=judging.max_tokens,
            expected_tokens=SCORE_TOKENS,
            temperature=judging.temperature,
            response_schema=SCORE_SCHEMA,
        )
        for case in (_case(row, examples) for row in passed.to_dict("records"))
    ]
    replies = judge.jury[0].complete_all(requests, "judging new pairs", iteration.account)
    return passed[["id"]].assign(**reply_columns(replies))


def select_pairs(
    screened_pairs: pd.DataFrame, pair_judge_replies: pd.DataFrame, synthesis: SynthesisParameters
) -> pd.DataFrame:
    """Drop what the judge found poor, and all but the best of each request.

    Returns:
        ``SelectedPairs``: every row, with the reason for which it was dropped; new ones are
        ``unjudged`` (the judge gave no score), ``poor`` and ``not_best``.
    """
    scores = {
        reply["id"]: read_pair_score(reply["text"])
        for reply in pair_judge_replies.to_dict("records")
    }
    selected = screened_pairs.assign(
        score=screened_pairs["id"].map(scores).astype(float) if scores else float("nan")
    )
    if synthesis.judging is None:
        return selected
    dropped, score = selected["dropped"].copy(), selected["score"]
    dropped[(dropped == "") & score.isna()] = "unjudged"
    dropped[(dropped == "") & (score < synthesis.judging.min_score)] = "poor"
    left = selected[dropped == ""].groupby("request")["score"]
    wanted = -(-left.transform("size") // synthesis.judging.best_of)
    beaten = left.rank(method="first", ascending=False) > wanted
    dropped[beaten.index[beaten]] = "not_best"
    return selected.assign(dropped=dropped)


def read_pair_score(text: Any) -> float | None:
    """The score (0–100) of one reply, null where there is none."""
    return read_json(text, _score_of) if isinstance(text, str) else None


def _score_of(value: dict[str, Any]) -> float | None:
    return read_score(value.get("score"))


def _case(row: dict[Hashable, Any], examples: dict[Hashable, Any]) -> dict[str, Any]:
    """What the judge is shown of a pair: system message and seed only where it has them."""
    case = {
        "example": examples.get(row["seed_id"]),
        "system": row["system"],
        "prompt": row["prompt"],
        "candidate": row["response"],
    }
    return {name: value for name, value in case.items() if value}


def _request_text(pair_judge_prompt: str, case: dict[str, Any]) -> str:
    return fill(pair_judge_prompt, {"case": json.dumps(case, ensure_ascii=False)})
