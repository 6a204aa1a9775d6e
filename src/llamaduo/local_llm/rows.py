"""Pairs as the trainer sees them: tokens, of which some are learned."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import pandas as pd

from llamaduo.local_llm.base_model import BaseModelSpec, load_tokenizer
from llamaduo.local_llm.chat import encode_pair, to_messages
from llamaduo.local_llm.training import TrainingError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

logger = logging.getLogger(__name__)

IGNORED = -100
"""The label of a token that is not trained on (PyTorch's ``ignore_index``)."""
SHOWN = 3
"""Rows in a preview."""

Row = dict[str, list[int]]
"""``input_ids`` and ``labels`` of a pair, equally long."""


def encode_row(tokenizer: PreTrainedTokenizerBase, pair: dict[Any, Any]) -> Row:
    """Tokens of ``prompt``, ``response`` and optionally ``system``; labels leave out the prompt."""
    messages = to_messages(pair.get("system"), pair["prompt"])
    prompt_ids, response_ids = encode_pair(tokenizer, messages, pair["response"])
    labels = [IGNORED] * len(prompt_ids) + response_ids
    return {"input_ids": prompt_ids + response_ids, "labels": labels}


def encode_rows(
    tokenizer: PreTrainedTokenizerBase, pairs: list[dict[str, Any]], stop_tokens: list[int]
) -> list[dict[str, Any]]:
    """The row of each pair, with ``id`` and ``validation``.

    Raises:
        TrainingError: A response does not end with a stop token, so that the model would never
            learn to stop.
    """
    rows = []
    for number, pair in enumerate(pairs, start=1):
        row = encode_row(tokenizer, pair)
        _end_of(row["labels"], tokenizer, stop_tokens)
        rows.append({**row, **_name_and_role(pair, number)})
    return rows


def encode_preferences(
    tokenizer: PreTrainedTokenizerBase, pairs: list[dict[str, Any]], stop_tokens: list[int]
) -> list[dict[str, Any]]:
    """The row of each preference pair, with ``id`` and ``validation``.

    Both responses go as far as a model draws them: to the stop token, or to where one was cut off.

    Args:
        pairs: ``PreferencePairs``.

    Returns:
        ``prompt_ids``, ``chosen_ids`` and ``rejected_ids``; ``input_ids``, the prompt with the
        longer of both, by which a row is measured and known again.

    Raises:
        TrainingError: See ``encode_rows``.
    """
    rows = []
    for number, pair in enumerate(pairs, start=1):
        messages = to_messages(pair["system"], pair["prompt"])
        prompt_ids, chosen_ids = encode_pair(tokenizer, messages, pair["chosen"])
        _, rejected_ids = encode_pair(tokenizer, messages, pair["rejected"])
        chosen_ids = chosen_ids[: _end_of(chosen_ids, tokenizer, stop_tokens) + 1]
        drawn = _end_of(rejected_ids, tokenizer, stop_tokens) + pair["rejected_finished"]
        rejected_ids = rejected_ids[:drawn]
        row = {
            "input_ids": prompt_ids + max(chosen_ids, rejected_ids, key=len),
            "prompt_ids": prompt_ids,
            "chosen_ids": chosen_ids,
            "rejected_ids": rejected_ids,
        }
        rows.append({**row, **_name_and_role(pair, number)})
    return rows


def _end_of(tokens: list[int], tokenizer: PreTrainedTokenizerBase, stop_tokens: list[int]) -> int:
    """Where the first stop token is."""
    end = next((place for place, token in enumerate(tokens) if token in stop_tokens), None)
    if end is None:
        names = ", ".join(str(tokenizer.convert_ids_to_tokens(token)) for token in stop_tokens)
        raise TrainingError(
            f"the chat template of {tokenizer.name_or_path} ends a response with none of the "
            f"model's stop tokens ({names}), so that it would never learn to stop; put the "
            "template's end of turn into eos_token_id of its generation_config.json"
        )
    return end


def _name_and_role(pair: dict[str, Any], number: int) -> dict[str, Any]:
    return {"id": pair.get("id", f"pair {number}"), "validation": pair.get("validation", False)}


def short_enough(rows: list[dict[str, Any]], max_length: int) -> list[dict[str, Any]]:
    """The rows of at most ``max_length`` tokens; how many are left out is said.

    Raises:
        TrainingError: None is left.
    """
    kept = [row for row in rows if len(row["input_ids"]) <= max_length]
    if rows and not kept:
        raise TrainingError(
            f"all {len(rows)} pairs are longer than max_length ({max_length} tokens); raise it"
        )
    if len(kept) < len(rows):
        logger.warning(
            "%d of %d pairs are longer than max_length (%d tokens) and left out",
            len(rows) - len(kept),
            len(rows),
            max_length,
        )
    return kept


def describe_rows(
    base_model: BaseModelSpec, pairs: pd.DataFrame, max_length: int
) -> dict[str, Any]:
    """Measure pairs as they will be trained on.

    Args:
        pairs: Columns ``prompt``, ``response`` and optionally ``system``.
        max_length: The most tokens of prompt and response together, chat template included.

    Returns:
        ``rows``; ``too_long``, those over ``max_length`` or the model's own window; of the others
        ``tokens_of_pairs`` (``min``, ``median``, ``p95``, ``max``; None where there are none),
        ``learned_share`` of their tokens, and a ``preview``: ``masked`` and ``learned`` text.
    """
    tokenizer = load_tokenizer(base_model)
    window = min(max_length, tokenizer.model_max_length)
    rows = [encode_row(tokenizer, pair) for pair in pairs.to_dict("records")]
    kept = [row for row in rows if len(row["input_ids"]) <= window]
    lengths = np.array([len(row["input_ids"]) for row in kept])
    learned = sum(label != IGNORED for row in kept for label in row["labels"])
    points = {"min": 0, "median": 50, "p95": 95, "max": 100}
    return {
        "rows": len(rows),
        "too_long": len(rows) - len(kept),
        "tokens_of_pairs": {
            name: int(np.percentile(lengths, point)) if kept else None
            for name, point in points.items()
        },
        "learned_share": learned / int(lengths.sum()) if kept else None,
        "preview": [preview(tokenizer, row) for row in kept[:SHOWN]],
    }


def preview(tokenizer: PreTrainedTokenizerBase, row: Row) -> dict[str, str]:
    """What of a row is only read and what is learned, special tokens included."""
    border = next(i for i, label in enumerate(row["labels"]) if label != IGNORED)
    return {
        "masked": cast(str, tokenizer.decode(row["input_ids"][:border])),
        "learned": cast(str, tokenizer.decode(row["input_ids"][border:])),
    }
