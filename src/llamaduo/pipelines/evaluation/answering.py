"""From an adapter to responses."""

import logging
from pathlib import Path

import pandas as pd

from llamaduo.local_llm.base_model import BaseModelSpec
from llamaduo.local_llm.chat import to_messages
from llamaduo.local_llm.engines import InferenceEngine
from llamaduo.local_llm.inference import DecodingSettings, Response
from llamaduo.parameters import EvaluationParameters
from llamaduo.schemas import Responses

logger = logging.getLogger(__name__)


def answer_prompts(
    inference: InferenceEngine,
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
    return answer_conversations(
        inference, base_model, adapter, list(pairs["id"]), conversations, evaluation
    )


def answer_conversations(
    inference: InferenceEngine,
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
    answered = inference.respond(base_model, adapter, conversations, samples, decoding)
    return response_rows(ids, answered, decoding)


def response_rows(
    ids: list[str], answered: list[list[Response]], decoding: DecodingSettings
) -> pd.DataFrame:
    """The responses to each prompt as ``Responses``; a warning tells of those that were cut off."""
    unfinished = sum(not response.finished for responses in answered for response in responses)
    if unfinished:
        logger.warning(
            "%d of %d responses were cut off at decoding.max_new_tokens (%d)",
            unfinished,
            sum(len(responses) for responses in answered),
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
