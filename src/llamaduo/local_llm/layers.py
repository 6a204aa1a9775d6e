"""Attention and LoRA of a training on a CPU: what transformers and PEFT compute, in fewer passes.

On a small model a pass over the activations takes as long as the multiplication beside it.
"""

from __future__ import annotations

import inspect
import sys
from typing import Any

import torch
from peft import LoraConfig
from peft.tuners import lora
from transformers import AttentionInterface, PreTrainedModel
from transformers.masking_utils import AttentionMaskInterface, eager_mask
from transformers.models.llama.modeling_llama import eager_attention_forward

from llamaduo.local_llm.base_model import BaseModelSpec, device

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
        query: ``(batch, heads, seq, head size)``; ``key`` and ``value`` have fewer heads.
        attention_mask: What is added to the scores, ``(batch, 1, seq, seq)``.
        arguments: What transformers tells each implementation; Llama's has no use for it.

    Returns:
        ``(batch, seq, heads, head size)``, and no weights.
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
    a sink, and keep their own.
    """
    own = getattr(sys.modules[type(model).__module__], eager_attention_forward.__name__, None)
    is_llama_s = own and inspect.getsource(own) == inspect.getsource(eager_attention_forward)
    return FEW_PASSES if is_llama_s else "eager"


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
        """Shapes: ``(..., in)``, ``(out, in)``, ``(out,)``, ``(rank, in)`` and ``(out, rank)``."""
        rows = inputs.flatten(0, -2).to(weight.dtype)
        down, up = lora_a.to(weight.dtype), (lora_b * scaling).to(weight.dtype)
        low = rows @ down.T
        ctx.save_for_backward(rows, weight, down, up, low)
        ctx.scaling, ctx.shape = scaling, inputs.shape
        out: torch.Tensor = torch.nn.functional.linear(rows, weight, bias).addmm_(low, up.T)
        return out.view(*inputs.shape[:-1], -1)

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        """Gradients of the inputs and of both factors."""
        rows, weight, down, up, low = ctx.saved_tensors
        out = gradients[0].flatten(0, -2)
        of_low = out @ up
        of_inputs = None
        if ctx.needs_input_grad[0]:
            of_inputs = (out @ weight).addmm_(of_low, down).view(ctx.shape)
        of_b = (out.T @ low).mul_(ctx.scaling)
        return of_inputs, None, None, of_low.T @ rows, of_b, None


class LowRankLinear(lora.Linear):
    """PEFT's layer, with its product in one piece."""

    def forward(self, x: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
        """PEFT's output; its own where no adapter is on, or one is part of the weights."""
        if self.disable_adapters or self.merged:
            return super().forward(x, *args, **kwargs)
        [active] = self.active_adapters
        base = self.get_base_layer()
        product: torch.Tensor = LowRankProduct.apply(  # type: ignore[no-untyped-call]
            x,
            base.weight,
            base.bias,
            self.lora_A[active].weight,
            self.lora_B[active].weight,
            self.scaling[active],
        )
        return product


def with_low_rank_products(config: LoraConfig, base: BaseModelSpec) -> LoraConfig:
    """The config, so that PEFT takes ``LowRankLinear`` where a CPU trains plain LoRA.

    That is neither with dropout nor with DoRA, nor beside 4-bit weights.
    """
    is_plain = not (config.lora_dropout or config.use_dora or base.load_in_4bit)
    if is_plain and device().type == "cpu":
        config._register_custom_module({torch.nn.Linear: LowRankLinear})
    return config
