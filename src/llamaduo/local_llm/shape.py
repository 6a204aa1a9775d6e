"""What of a base model is known without its weights."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from llamaduo.local_llm.base_model import (
    BaseModelSpec,
    load_generation_config,
    load_tokenizer,
    stop_token_ids,
)

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

BYTES = 4
"""Of a weight of an adapter, which is trained in float32."""


class Shape(NamedTuple):
    """A base model and an adapter on it."""

    parameters: int
    adapter: int
    """Bytes."""
    tokenizer: PreTrainedTokenizerBase


def read_shape(spec: BaseModelSpec, target_modules: str | list[str], rank: int) -> Shape:
    """Read a model's configuration and tokenizer, with the checks of ``load_tokenizer``.

    Args:
        target_modules: Names of layers; any text stands for all linear ones.
        rank: Of the adapter.

    Raises:
        OSError: There is no such model, here or on the hub.
        ValueError: It cannot be trained or asked.
    """
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    tokenizer = load_tokenizer(spec)
    stop_token_ids(load_generation_config(spec), tokenizer)
    config = AutoConfig.from_pretrained(
        spec.name_or_path, revision=spec.revision, trust_remote_code=False
    )
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config, trust_remote_code=False)
    adapter = sum(
        rank * (layer.in_features + layer.out_features)
        for name, layer in model.named_modules()
        if isinstance(layer, torch.nn.Linear)
        and layer is not model.get_output_embeddings()
        and (isinstance(target_modules, str) or name.rpartition(".")[2] in target_modules)
    )
    return Shape(sum(each.numel() for each in model.parameters()), BYTES * adapter, tokenizer)
