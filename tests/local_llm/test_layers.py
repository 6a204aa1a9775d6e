"""What a CPU computes in fewer passes is what transformers and PEFT compute."""

from dataclasses import replace
from itertools import combinations
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from peft import LoraConfig, get_peft_model
from peft.tuners.lora import Linear
from transformers import (
    AttentionInterface,
    AutoModelForCausalLM,
    DeepseekV32Config,
    Gemma2Config,
    GPT2Config,
    LlamaConfig,
    MistralConfig,
    PreTrainedConfig,
    Qwen3Config,
)

from llamaduo.local_llm.adapter import adapted, save_adapter
from llamaduo.local_llm.base_model import BaseModelSpec, device, load_model
from llamaduo.local_llm.fine_tune import fine_tune
from llamaduo.local_llm.layers import (
    ADAPTED_LAYERS,
    FEW_PASSES,
    LowRankLinear,
    LowRankProduct,
    attention,
    eager_attention,
)
from llamaduo.local_llm.training import TrainingJob
from tests.local_llm.conftest import changed

pytestmark = pytest.mark.skipif(device().type != "cpu", reason="computed so on a CPU alone")

TINY = {
    **{"vocab_size": 64, "hidden_size": 32, "intermediate_size": 16, "num_hidden_layers": 2},
    **{"num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 8},
}
PADDED = {
    "input_ids": torch.tensor([[5, 6, 7, 8, 9, 10], [11, 12, 0, 0, 0, 0]]),
    "attention_mask": torch.tensor([[1, 1, 1, 1, 1, 1], [1, 1, 0, 0, 0, 0]]),
}
"""So far that a short window sees padding alone."""
SAME = {
    torch.float32: {"rtol": 1e-5, "atol": 1e-5},
    torch.bfloat16: {"rtol": 3e-2, "atol": 1e-1},
}


def in_bfloat16(dtype: torch.dtype) -> torch.autocast:
    """As a training is where a CPU multiplies in bfloat16."""
    return torch.autocast("cpu", torch.bfloat16, enabled=dtype is torch.bfloat16)


@pytest.mark.parametrize(
    "config",
    [
        LlamaConfig(**TINY),
        LlamaConfig(**TINY, attention_dropout=0.5),
        MistralConfig(**TINY, sliding_window=2),
        Qwen3Config(**TINY),
    ],
    ids=["Llama", "dropout", "sliding window", "Qwen"],
)
@pytest.mark.parametrize("dtype", SAME)
def test_attention_has_the_values_and_gradients_of_eager_attention(
    config: PreTrainedConfig, dtype: torch.dtype
) -> None:
    torch.manual_seed(1)
    model = AutoModelForCausalLM.from_config(config, dtype=dtype)
    assert eager_attention(model) == FEW_PASSES
    read = PADDED["attention_mask"].bool()
    found = []
    for implementation in ("eager", FEW_PASSES):
        model.set_attn_implementation(implementation)
        model.zero_grad()
        torch.manual_seed(2)
        with in_bfloat16(dtype):
            logits = model(**PADDED).logits[read]
        logits.logsumexp(dim=-1).sum().backward()
        found.append([logits, *(each.grad for each in model.parameters())])

    for ours, theirs in zip(*found, strict=True):
        torch.testing.assert_close(ours, theirs, **SAME[dtype])


@pytest.mark.parametrize(
    "config",
    [
        Gemma2Config(**TINY),
        GPT2Config(vocab_size=64, n_embd=16, n_layer=1, n_head=2),
        DeepseekV32Config(**TINY, n_routed_experts=2, moe_intermediate_size=8),
    ],
    ids=["capped scores", "scales of its own", "an indexer of its own"],
)
def test_a_model_with_other_attention_keeps_its_own(config: PreTrainedConfig) -> None:
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config)
    assert eager_attention(model) == "eager"


@pytest.mark.parametrize("bias", [False, True])
def test_the_gradients_of_a_low_rank_product_are_those_of_its_differences(bias: bool) -> None:
    torch.manual_seed(1)
    shapes = [(6, 4), (5, 4), (2, 4), (5, 2)]
    inputs, weight, down, up = (torch.randn(each, dtype=torch.float64) for each in shapes)
    learned = [each.requires_grad_() for each in (inputs, down, up)]
    added = torch.randn(5, dtype=torch.float64) if bias else None

    assert torch.autograd.gradcheck(
        lambda x, a, b: LowRankProduct.apply(x, weight, added, a, b, 0.5), learned
    )


def two_layers(dtype: torch.dtype, **settings: Any) -> tuple[LowRankLinear, Linear]:
    """An adapted layer of ours, and PEFT's with equal weights."""
    torch.manual_seed(1)
    config = LoraConfig(
        r=4, lora_alpha=12, target_modules=["0"], init_lora_weights=False, **settings
    )
    base = torch.nn.Sequential(torch.nn.Linear(32, 16)).to(dtype)
    theirs = get_peft_model(base, config).base_model.model[0]
    config._register_custom_module(ADAPTED_LAYERS)
    ours = get_peft_model(torch.nn.Sequential(theirs.base_layer), config).base_model.model[0]
    assert (type(ours), type(theirs)) == (LowRankLinear, Linear)
    ours.load_state_dict(theirs.state_dict())
    return ours, theirs


@pytest.mark.parametrize(
    "settings",
    [{}, {"use_rslora": True}, {"use_dora": True}, {"lora_dropout": 0.5}, {"lora_bias": True}],
    ids=["plain", "rsLoRA", "DoRA", "dropout", "bias"],
)
@pytest.mark.parametrize("dtype", SAME)
def test_an_adapted_layer_gives_what_peft_s_gives(
    dtype: torch.dtype, settings: dict[str, Any]
) -> None:
    inputs, out = torch.randn(2, 5, 32, dtype=dtype), torch.randn(2, 5, 16, dtype=dtype)
    found = []
    for layer in two_layers(dtype, **settings):
        read = inputs.clone().requires_grad_()
        torch.manual_seed(2)
        with in_bfloat16(dtype):
            given = layer(read)
        given.backward(out)
        learned = [each.grad for name, each in layer.named_parameters() if "lora" in name]
        found.append([given, read.grad, *learned])

    for ours, theirs in zip(*found, strict=True):
        assert ours.dtype == theirs.dtype
        torch.testing.assert_close(ours, theirs, **SAME[dtype])


def test_the_adapter_that_is_on_is_the_one_that_counts() -> None:
    inputs = torch.randn(3, 32)
    found = []
    for layer in two_layers(torch.float32):
        torch.manual_seed(2)
        other = LoraConfig(r=2, lora_alpha=1, init_lora_weights=False)
        layer.update_layer("other", r=2, lora_alpha=1, config=other)
        first = layer(inputs)
        layer.set_adapter(["other"])
        second = layer(inputs)
        layer.merge()
        merged = layer(inputs)
        layer.unmerge()
        layer.enable_adapters(False)
        found.append([first, second, merged, layer(inputs)])

    for ours, theirs in zip(*found, strict=True):
        torch.testing.assert_close(ours, theirs)
    first, second, merged, off = found[0]
    torch.testing.assert_close(merged, second)
    for one, another in combinations([first, second, off], 2):
        assert not torch.allclose(one, another)


def test_what_an_adapted_layer_gives_may_be_changed_in_place() -> None:
    inputs = torch.randn(2, 5, 32)
    found = []
    for layer in two_layers(torch.float32):
        layer(inputs).clamp_(-1, 1).sum().backward()
        found.append(layer.lora_B.default.weight.grad)

    torch.testing.assert_close(*found)


def test_an_adapted_layer_reads_no_rows() -> None:
    ours, _ = two_layers(torch.float32)

    assert ours(torch.empty(0, 32)).shape == (0, 16)


def test_a_training_of_short_rows_takes_this_attention(
    job: TrainingJob, pairs: pd.DataFrame, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[torch.Size] = []

    def noted(module: Any, query: torch.Tensor, *others: Any, **arguments: Any) -> Any:
        read.append(query.shape)
        return attention(module, query, *others, **arguments)

    monkeypatch.setitem(AttentionInterface._global_mapping, FEW_PASSES, noted)
    one_step = replace(job, parameters=changed(job.parameters, max_steps=1, min_steps=1))

    fine_tune(one_step, pairs.to_dict("records"), tmp_path / "adapter")

    assert [shape[0] for shape in read] == [1, 1]  # the packed batch, in two layers


def test_each_adapted_layer_of_a_training_is_ours(job: TrainingJob) -> None:
    fresh = adapted(load_model(job.base_model), job)
    save_adapter(fresh, job, job.checkpoints.parent / "start")
    continued = adapted(
        load_model(job.base_model), replace(job, start=job.checkpoints.parent / "start")
    )

    for model in (fresh, continued):
        layers = [type(each) for each in model.modules() if isinstance(each, Linear)]
        assert layers == [LowRankLinear] * 14  # of two layers of the model, seven each


def test_4_bit_weights_are_left_to_peft(job: TrainingJob, random_model: BaseModelSpec) -> None:
    spec = replace(random_model, load_in_4bit=True)

    model = adapted(load_model(spec), replace(job, base_model=spec))

    assert not any(isinstance(each, LowRankLinear) for each in model.modules())
