"""Attention and LoRA of a training on a CPU: what transformers and PEFT compute, in fewer passes.

On a small model a pass over the activations takes as long as the multiplication beside it.
"""

from __future__ import annotations

import inspect
import sys
from typing import Any

import torch
from peft.tuners import lora
from transformers import AttentionInterface, PreTrainedModel
from transformers.masking_utils import AttentionMaskInterface, eager_mask
from transformers.models.llama.modeling_llama import eager_attention_forward

FEW_PASSES = "few_passes"
"""Name of ``attention`` among transformers' implementations."""


def attention(
    module: Any,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor,
    scaling: float,
    dropout: float = 0.0,
    **arguments: Any,
) -> tuple[torch.Tensor, None]:
    """Llama's eager attention; scale and mask go into the product, and the softmax rounds once.

    Args:
        query: ``(batch, heads, seq, size)``.
        key: ``(batch, heads / groups, seq, size)``.
        value: ``(batch, heads / groups, seq, size of a value)``.
        attention_mask: What is added to the scores, ``(batch, 1, seq, seq)``, of query's dtype.
        arguments: What transformers tells each implementation; Llama's has no use for it.

    Returns:
        ``(batch, seq, heads, size of a value)``, and no weights.
    """
    batch, heads, seq, _ = query.shape
    key, value = (
        each.repeat_interleave(module.num_key_value_groups, dim=1).flatten(0, 1)
        for each in (key, value)
    )
    mask = attention_mask.expand(batch, heads, -1, -1).flatten(0, 1)
    scores = torch.baddbmm(mask, query.flatten(0, 1), key.mT, alpha=scaling)
    # Autocast would have the softmax read and write float32; it computes in it anyway.
    with torch.autocast("cpu", enabled=False):
        weights = torch.softmax(scores, dim=-1)
    weights = torch.nn.functional.dropout(weights, dropout, module.training)
    read = torch.bmm(weights, value).view(batch, heads, seq, -1)
    return read.transpose(1, 2).contiguous(), None


AttentionInterface.register(FEW_PASSES, attention)
AttentionMaskInterface.register(FEW_PASSES, eager_mask)


def eager_attention(model: PreTrainedModel) -> str:
    """The eager implementation to take: ``attention`` for a model that has Llama's to the letter.

    transformers copies that function from model to model. Others add to it, a cap on the scores or
    a sink, or do more where an implementation has that name; they keep their own.
    """
    module = sys.modules[type(model).__module__]
    own = getattr(module, eager_attention_forward.__name__, None)
    is_llama_s = own and inspect.getsource(own) == inspect.getsource(eager_attention_forward)
    acts_by_name = '"eager"' in inspect.getsource(module)
    return FEW_PASSES if is_llama_s and not acts_by_name else "eager"


class LowRankProduct(torch.autograd.Function):
    """A linear layer with plain LoRA, ``x W' + b + scaling x A' B'``; W and b are frozen.

    Autograd alone would scale and add over the whole width of the layer, and again on the way back.
    """

    @staticmethod
    def forward(
        ctx: Any,
        inputs: torch.Tensor,
        weight: torch.Tensor,
        bias: torch.Tensor | None,
        lora_a: torch.Tensor,
        lora_b: torch.Tensor,
        scaling: float,
    ) -> torch.Tensor:
        """Shapes: ``(n, in)``, ``(out, in)``, ``(out,)``, ``(rank, in)`` and ``(out, rank)``."""
        down, up = lora_a.to(weight.dtype), (lora_b * scaling).to(weight.dtype)
        low = inputs @ down.T
        ctx.save_for_backward(inputs, weight, down, up, low)
        ctx.scaling = scaling
        return torch.nn.functional.linear(inputs, weight, bias).addmm_(low, up.T)

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        """Gradients of the inputs and of both factors."""
        inputs, weight, down, up, low = ctx.saved_tensors
        [of_out] = gradients
        of_low = of_out @ up
        of_inputs = None
        if ctx.needs_input_grad[0]:
            of_inputs = (of_out @ weight).addmm_(of_low, down)
        of_b = (of_out.T @ low).mul_(ctx.scaling)
        return of_inputs, None, None, of_low.T @ inputs, of_b, None


class LowRankLinear(lora.Linear):
    """PEFT's layer, with its product in one piece where the adapter is plain LoRA."""

    def forward(self, x: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
        """PEFT's output: of a layer ``(..., in)`` to ``(..., out)``."""
        [active] = self.active_adapters
        is_plain = not (
            self.disable_adapters
            or self.merged
            or active in self.lora_variant
            or self.lora_bias[active]
            or isinstance(self.lora_dropout[active], torch.nn.Dropout)
        )
        if not is_plain:
            return super().forward(x, *args, **kwargs)
        base: Any = self.get_base_layer()
        product: torch.Tensor = LowRankProduct.apply(  # type: ignore[no-untyped-call]
            x.flatten(0, -2).to(base.weight.dtype),
            base.weight,
            base.bias,
            self.lora_A[active].weight,
            self.lora_B[active].weight,
            self.scaling[active],
        )
        return product.view(*x.shape[:-1], product.shape[-1])


def adapted_layer(target: torch.nn.Module, adapter: str, **settings: Any) -> LowRankLinear | None:
    """What PEFT is to make of a layer: None leaves it those on a GPU, and those of other types.

    Quantised layers are such, though most of their types are made from ``torch.nn.Linear``.
    """
    is_ours = type(target) is torch.nn.Linear and target.weight.device.type == "cpu"
    return LowRankLinear(target, adapter, **settings) if is_ours else None


ADAPTED_LAYERS: dict[Any, Any] = {torch.nn.Linear: adapted_layer}
"""For ``LoraConfig._register_custom_module``: whom PEFT asks first for a linear layer."""
