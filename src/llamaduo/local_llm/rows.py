"""Pairs as the trainer sees them: tokens, of which some are learned."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

import numpy as np
import pandas as pd

from llamaduo.local_llm.base_model import BaseModelSpec, load_tokenizer
from llamaduo.local_llm.chat import encode_pair, to_messages

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

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
