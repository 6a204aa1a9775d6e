"""What a CPU computes in fewer passes is what transformers and PEFT compute."""

from dataclasses import replace

import pytest
import torch
from peft import LoraConfig, get_peft_model
from peft.tuners.lora import Linear
from transformers import (
    AutoModelForCausalLM,
    Gemma2Config,
    GPT2Config,
    LlamaConfig,
    MistralConfig,
    PreTrainedConfig,
    Qwen3Config,
)

from llamaduo.local_llm.adapter import adapted, save_adapter
from llamaduo.local_llm.base_model import BaseModelSpec, device, load_model
from llamaduo.local_llm.layers import FEW_PASSES, LowRankLinear, LowRankProduct, eager_attention
from llamaduo.local_llm.training import TrainingJob
from tests.local_llm.conftest import changed

pytestmark = pytest.mark.skipif(device().type != "cpu", reason="computed so on a CPU alone")

TINY = {
    **{"vocab_size": 64, "hidden_size": 32, "intermediate_size": 16, "num_hidden_layers": 2},
    **{"num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 8},
}
PADDED = {
    "input_ids": torch.tensor([[5, 6, 7, 8, 9], [10, 11, 12, 0, 0]]),
    "attention_mask": torch.tensor([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0]]),
}
SAME = {
    torch.float32: {"rtol": 1e-5, "atol": 1e-5},
    torch.bfloat16: {"rtol": 3e-2, "atol": 1e-1},
}


@pytest.mark.parametrize(
    "config",
    [LlamaConfig(**TINY), MistralConfig(**TINY, sliding_window=3), Qwen3Config(**TINY)],
    ids=["Llama", "sliding window", "Qwen"],
)
def test_attention_has_the_values_and_gradients_of_eager_attention(
    config: PreTrainedConfig,
) -> None:
    torch.manual_seed(1)
    model = AutoModelForCausalLM.from_config(config)
    assert eager_attention(model) == FEW_PASSES
    read = PADDED["attention_mask"].bool()
    found = []
    for implementation in ("eager", FEW_PASSES):
        model.set_attn_implementation(implementation)
        model.zero_grad()
        logits = model(**PADDED).logits[read]
        logits.logsumexp(dim=-1).sum().backward()
        found.append([logits, *(each.grad for each in model.parameters())])

    for ours, theirs in zip(*found, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    "config",
    [Gemma2Config(**TINY), GPT2Config(vocab_size=64, n_embd=16, n_layer=1, n_head=2)],
    ids=["capped scores", "scales of its own"],
)
def test_a_model_with_other_attention_keeps_its_own(config: PreTrainedConfig) -> None:
    assert eager_attention(AutoModelForCausalLM.from_config(config)) == "eager"


@pytest.mark.parametrize("bias", [False, True])
def test_the_gradients_of_a_low_rank_product_are_those_of_its_differences(bias: bool) -> None:
    torch.manual_seed(1)
    shapes = [(2, 3, 4), (5, 4), (2, 4), (5, 2)]
    inputs, weight, down, up = (torch.randn(each, dtype=torch.float64) for each in shapes)
    learned = [each.requires_grad_() for each in (inputs, down, up)]
    added = torch.randn(5, dtype=torch.float64) if bias else None

    assert torch.autograd.gradcheck(
        lambda x, a, b: LowRankProduct.apply(x, weight, added, a, b, 0.5), learned
    )


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_an_adapted_layer_gives_what_peft_s_gives(dtype: torch.dtype) -> None:
    torch.manual_seed(1)
    config = LoraConfig(r=4, lora_alpha=12, target_modules=["0"], init_lora_weights=False)
    base = torch.nn.Sequential(torch.nn.Linear(32, 16)).to(dtype)
    theirs = get_peft_model(base, config).base_model.model[0]
    config._register_custom_module({torch.nn.Linear: LowRankLinear})
    ours = get_peft_model(torch.nn.Sequential(theirs.base_layer), config).base_model.model[0]
    assert (type(ours), type(theirs)) == (LowRankLinear, Linear)
    ours.load_state_dict(theirs.state_dict())
    inputs, out = torch.randn(2, 5, 32, dtype=dtype), torch.randn(2, 5, 16, dtype=dtype)

    found = []
    for layer in (ours, theirs):
        read = inputs.clone().requires_grad_()
        with torch.autocast("cpu", torch.bfloat16, enabled=dtype is torch.bfloat16):
            given = layer(read)
        given.backward(out)
        found.append(
            [given, read.grad, layer.lora_A.default.weight.grad, layer.lora_B.default.weight.grad]
        )

    for one, other in zip(*found, strict=True):
        assert one.dtype == other.dtype
        torch.testing.assert_close(one, other, **SAME[dtype])


def test_a_layer_whose_adapter_is_off_is_the_base_model_s(job: TrainingJob) -> None:
    base = load_model(job.base_model).float()
    before = base(**PADDED).logits
    model = adapted(base, job)
    with torch.no_grad():
        for name, each in model.named_parameters():
            if "lora_B" in name:
                each.fill_(0.1)

    on = model(**PADDED).logits
    with model.disable_adapter():
        off = model(**PADDED).logits

    assert not torch.allclose(on, before)
    torch.testing.assert_close(off, before)


def test_each_adapted_layer_of_a_training_is_in_one_piece(job: TrainingJob) -> None:
    fresh = adapted(load_model(job.base_model), job)
    save_adapter(fresh, job, job.checkpoints.parent / "start")
    continued = adapted(
        load_model(job.base_model), replace(job, start=job.checkpoints.parent / "start")
    )

    for model in (fresh, continued):
        layers = [type(each) for each in model.modules() if isinstance(each, Linear)]
        assert layers == [LowRankLinear] * 14  # of two layers of the model, seven each


@pytest.mark.parametrize(
    "other", [{"use_dora": True}, {"lora_dropout": 0.1}], ids=["DoRA", "dropout"]
)
def test_other_kinds_of_lora_are_left_to_peft(job: TrainingJob, other: dict[str, object]) -> None:
    job = replace(job, parameters=changed(job.parameters, **other))

    model = adapted(load_model(job.base_model), job)

    assert not any(isinstance(each, LowRankLinear) for each in model.modules())


def test_4_bit_weights_are_left_to_peft(job: TrainingJob, random_model: BaseModelSpec) -> None:
    spec = replace(random_model, load_in_4bit=True)

    model = adapted(load_model(spec), replace(job, base_model=spec))

    assert not any(isinstance(each, LowRankLinear) for each in model.modules())
