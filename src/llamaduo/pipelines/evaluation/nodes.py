"""From an adapter to scores."""

import json
import logging
from collections.abc import Hashable
from pathlib import Path
from typing import Any, cast

import pandas as pd

from llamaduo.local_llm.base_model import BaseModelSpec
from llamaduo.local_llm.chat import to_messages
from llamaduo.local_llm.inference import DecodingSettings, respond
from llamaduo.parameters import EvaluationParameters, IterationParameters
from llamaduo.schemas import Judgements, JudgeReplies, Responses, Scores
from llamaduo.service_llm.answers import reply_columns
from llamaduo.service_llm.client import Request, ServiceLLM
from llamaduo.service_llm.failures import Failure
from llamaduo.service_llm.text import HIGHEST_SCORE, fill, read_json, read_score

logger = logging.getLogger(__name__)

SCORES = ("similarity", "precision")

JUDGEMENT_TOKENS = 20
"""About: two scores as JSON."""

JUDGEMENT_SCHEMA = {
    "name": "judgement",
    "strict": True,
    "schema": {
        "type": "object",
        "properties": {name: {"type": "number"} for name in SCORES},
        "required": list(SCORES),
        "additionalProperties": False,
    },
}


def answer_prompts(
    base_model: BaseModelSpec,
    adapter: Path | None,
    pairs: pd.DataFrame,
    evaluation: EvaluationParameters,
) -> pd.DataFrame:
    """Let the local LLM answer each prompt K times.

    Args:
        adapter: None answers with the untouched base model.
        pairs: ``CoveragePairs``; may be empty.

    Returns:
        ``Responses``, K rows per prompt.
    """
    conversations = [to_messages(row["system"], row["prompt"]) for row in pairs.to_dict("records")]
    return answer_conversations(base_model, adapter, list(pairs["id"]), conversations, evaluation)


def answer_conversations(
    base_model: BaseModelSpec,
    adapter: Path | None,
    ids: list[str],
    conversations: list[list[dict[str, str]]],
    evaluation: EvaluationParameters,
) -> pd.DataFrame:
    """The same for conversations of any length."""
    if not conversations:
        return Responses.empty()
    samples = evaluation.responses_per_prompt
    decoding = DecodingSettings(**evaluation.decoding.model_dump())
    answered = respond(base_model, adapter, conversations, samples, decoding)
    unfinished = sum(not response.finished for responses in answered for response in responses)
    if unfinished:
        logger.warning(
            "%d of %d responses were cut off at decoding.max_new_tokens (%d)",
            unfinished,
            samples * len(conversations),
            decoding.max_new_tokens,
        )
    rows = [
        {
            "id": prompt_id,
            "sample": sample,
            "response": response.text,
            "tokens": response.tokens,
            "finished": response.finished,
        }
        for prompt_id, responses in zip(ids, answered, strict=True)
        for sample, response in enumerate(responses, start=1)
    ]
    return pd.DataFrame(rows)


def ask_judge(
    responses: pd.DataFrame,
    pairs: pd.DataFrame,
    judge_prompt: str,
    judge: ServiceLLM,
    evaluation: EvaluationParameters,
    iteration: IterationParameters,
) -> pd.DataFrame:
    """Let the judge score each response M times against its reference.

    Returns:
        ``JudgeReplies``, M rows per response, raw.

    Raises:
        ServiceLLMError: Every request failed.
    """
    if responses.empty:
        return JudgeReplies.empty()
    references = pairs.set_index("id")[["system", "prompt", "response"]].to_dict("index")
    rows = [
        {**row, "repeat": repeat}
        for row in responses[["id", "sample", "response"]].to_dict("records")
        for repeat in range(1, evaluation.judgements_per_response + 1)
    ]
    requests = [
        Request(
            messages=[
                {
                    "role": "user",
                    "content": _judge_request(judge_prompt, references[row["id"]], row["response"]),
                }
            ],
            max_tokens=evaluation.judge_max_tokens,
            expected_tokens=JUDGEMENT_TOKENS,
            temperature=evaluation.judge_temperature,
            response_schema=JUDGEMENT_SCHEMA,
            repeat=row["repeat"],
        )
        for row in rows
    ]
    replies = judge.complete_all(requests, "judging", iteration.account)
    table = pd.DataFrame(rows).drop(columns="response")
    return table.assign(**reply_columns(replies))


def parse_judgements(judge_replies: pd.DataFrame) -> pd.DataFrame:
    """Read the scores; a reply that cannot be read, or a score off the scale, is null.

    Returns:
        ``Judgements``, one row per reply.
    """
    if judge_replies.empty:
        return Judgements.empty()
    read = [read_judgement(text) for text in judge_replies["text"]]
    judgements = judge_replies[["id", "sample", "repeat", "text", "failure"]].join(
        pd.DataFrame(read, index=judge_replies.index, columns=list(SCORES), dtype=float)
    )
    unread = int(judgements["precision"].isna().sum())
    if unread:
        logger.warning("%d of %d judgements cannot be read", unread, len(judgements))
    return judgements


def read_judgement(text: Any) -> dict[str, float | None]:
    """Both scores (0–100) of one reply, or null for both."""
    found = read_json(text, _scores_of) if isinstance(text, str) else None
    return {name: found[name] if found else None for name in SCORES}


def score_prompts(
    judgements: pd.DataFrame, pairs: pd.DataFrame, evaluation: EvaluationParameters
) -> pd.DataFrame:
    """Average the readable judgements of each prompt.

    Returns:
        ``Scores``, one row per prompt of ``pairs``, in their order.
    """
    if pairs.empty:
        return Scores.empty()
    full = judgements.assign(
        full_marks=(judgements["precision"] == HIGHEST_SCORE)
        .astype(float)
        .where(judgements["precision"].notna()),
        over_budget=judgements["failure"] == Failure.OVER_BUDGET,
    )
    by_prompt = full.groupby("id")[[*SCORES, "full_marks"]]
    expected = evaluation.responses_per_prompt * evaluation.judgements_per_response
    scores = by_prompt.mean().assign(
        judged=by_prompt.count()["precision"],
        over_budget=full.groupby("id")["over_budget"].sum(),
    )
    return (
        pairs[["id", "category"]]
        .merge(scores, on="id", how="left")
        .fillna({"judged": 0, "over_budget": 0})
        .assign(expected=expected)
    )


def _judge_request(judge_prompt: str, pair: dict[Hashable, Any], response: str) -> str:
    case = {"prompt": pair["prompt"], "reference": pair["response"], "response": response}
    if pair["system"]:
        case = {"system": pair["system"], **case}
    return fill(judge_prompt, {"case": json.dumps(case, ensure_ascii=False)})


def _scores_of(value: dict[str, Any]) -> dict[str, float] | None:
    scores = {name: read_score(value.get(name)) for name in SCORES}
    return None if None in scores.values() else cast("dict[str, float]", scores)
