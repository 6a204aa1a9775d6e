"""The loss of a batch on a CPU: value and gradients are TRL's, with less to compute for them."""

from __future__ import annotations

from typing import Any

import torch
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer

from llamaduo.local_llm.rows import IGNORED

MOST_PACKED = 512
"""Tokens that are read as one sequence; in a longer one attention would cost what is saved."""


def answer_losses(
    model: Any, inputs: dict[str, torch.Tensor], labels: torch.Tensor
) -> torch.Tensor:
    """Sum of each row's cross-entropies, from logits where a label is predicted and nowhere else.

    Without a GPU kernel TRL puts every token of the prompts through the language model's head too,
    which takes a small model as long as all its layers.

    Args:
        model: A causal language model with its adapter.
        inputs: ``input_ids`` and ``attention_mask``, ``(batch, seq)``, padded on the right.
        labels: ``(batch, seq)``.

    Returns:
        ``(batch,)``.
    """
    targets = torch.nn.functional.pad(labels[:, 1:], (0, 1), value=IGNORED)
    shared = shared_tokens(inputs, targets)
    tokens = int(inputs["attention_mask"].sum()) - (len(labels) - 1) * shared
    if tokens <= MOST_PACKED and can_be_packed(model):
        return _packed_losses(model, inputs, targets, shared)
    answered = (targets != IGNORED).any(dim=0).nonzero().squeeze(1)  # (positions,)
    logits = model(
        input_ids=inputs["input_ids"],
        attention_mask=inputs["attention_mask"],
        use_cache=False,
        logits_to_keep=answered,
    ).logits  # (batch, positions, vocabulary)
    losses = _cross_entropy(logits.flatten(0, 1), targets[:, answered].flatten())
    return losses.view(len(labels), -1).sum(dim=1)


def shared_tokens(inputs: dict[str, torch.Tensor], targets: torch.Tensor) -> int:
    """How many tokens all rows begin with, up to the first from which something is predicted.

    The pairs of a task have its instruction in common, and the chat template around it.
    """
    ids = inputs["input_ids"]
    equal = ((ids == ids[0]) & (inputs["attention_mask"] == 1)).all(dim=0)
    unlabelled = (targets == IGNORED).all(dim=0)
    return int((equal & unlabelled).cumprod(dim=0).sum())


def can_be_packed(model: Any) -> bool:
    """Whether a token is computed from its position and from what it may see, and nothing else.

    So it is with rotary positions and full attention in each layer, where nothing is drawn at
    random: neither dropout nor the noise of NEFTune, which depends on a sequence's length.
    """
    layers = DynamicCache(config=model.config).layers
    modules = dict(model.named_modules())
    return (
        all(type(layer) is DynamicLayer for layer in layers)
        and any(name.endswith("rotary_emb") for name in modules)
        and not any(isinstance(each, torch.nn.Dropout) and each.p for each in modules.values())
        and getattr(model.get_input_embeddings(), "neftune_noise_alpha", None) is None
    )


def _packed_losses(
    model: Any, inputs: dict[str, torch.Tensor], targets: torch.Tensor, shared: int
) -> torch.Tensor:
    """Read the batch as one sequence without padding: what all rows begin with, then each rest."""
    is_read = inputs["attention_mask"].bool()
    is_read[1:, :shared] = False
    row, position = is_read.nonzero(as_tuple=True)  # (tokens,) each
    common = position < shared
    sees = (common | (row == row[:, None])) & (position <= position[:, None])
    mask = torch.zeros(sees.shape, dtype=model.dtype, device=sees.device)
    mask.masked_fill_(~sees, torch.finfo(model.dtype).min)
    answered = (targets[is_read] != IGNORED).nonzero().squeeze(1)
    logits = model(
        input_ids=inputs["input_ids"][is_read][None],
        attention_mask=mask[None, None],
        position_ids=position[None],
        use_cache=False,
        logits_to_keep=answered,
    ).logits[0]  # (answered, vocabulary)
    losses = _cross_entropy(logits, targets[is_read][answered])
    return losses.new_zeros(len(targets)).index_add(0, row[answered], losses)


def _cross_entropy(logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    return torch.nn.functional.cross_entropy(
        logits.float(), targets, ignore_index=IGNORED, reduction="none"
    )
