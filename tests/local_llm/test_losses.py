"""Which batches are read as one sequence, and how much of them."""

from dataclasses import replace

import pytest
import torch
from transformers import AutoModelForCausalLM, GPT2Config, MistralConfig, Qwen3NextConfig

from llamaduo.local_llm.adapter import adapted
from llamaduo.local_llm.base_model import device, load_model
from llamaduo.local_llm.losses import answer_losses, can_be_packed
from llamaduo.local_llm.rows import IGNORED
from llamaduo.local_llm.training import TrainingJob
from tests.local_llm.conftest import changed

pytestmark = pytest.mark.skipif(device().type != "cpu", reason="computed so on a CPU alone")

TINY = {
    **{"vocab_size": 64, "hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 4},
    **{"num_attention_heads": 2, "num_key_value_heads": 1},
}
TASK = [5, 6, 7, 8]
"""What all prompts begin with."""


def batch(*rows: tuple[list[int], list[int]]) -> tuple[dict[str, torch.Tensor], torch.Tensor]:
    """Inputs and labels of prompts and responses, padded on the right."""
    longest = max(len(prompt) + len(response) for prompt, response in rows)
    ids, mask, labels = (torch.full((len(rows), longest), n) for n in (0, 0, IGNORED))
    for n, (prompt, response) in enumerate(rows):
        end = len(prompt) + len(response)
        ids[n, :end] = torch.tensor(prompt + response)
        mask[n, :end] = 1
        labels[n, len(prompt) : end] = torch.tensor(response)
    return {"input_ids": ids, "attention_mask": mask}, labels


ALIKE = [([*TASK, 9], [20, 3]), ([*TASK, 10, 11, 12], [20, 21, 3]), ([*TASK], [22, 3])]


def test_what_all_prompts_begin_with_is_read_once_and_padding_never(job: TrainingJob) -> None:
    model = adapted(load_model(job.base_model), job)
    read: list[int] = []
    model.get_input_embeddings().register_forward_hook(
        lambda _, inputs, __: read.append(inputs[0].numel())
    )

    answer_losses(model, *batch(*ALIKE))

    # The last token that all share is where one of them begins to respond: it stays in each row.
    assert read == [3 + (4 + 7 + 3)]


@pytest.mark.parametrize(
    "rows",
    [ALIKE, ALIKE[:1], [([9], [20]), ([10], [21])], [([9, 8], [20]), ([9, 8], [20, 3])]],
    ids=["alike", "one", "nothing in common", "all in common"],
)
def test_the_losses_of_packed_rows_are_those_of_each_row_alone(
    job: TrainingJob, rows: list[tuple[list[int], list[int]]]
) -> None:
    model = adapted(load_model(job.base_model).float(), job)

    together = answer_losses(model, *batch(*rows))

    alone = []
    for row in rows:
        inputs, labels = batch(row)
        logits = model(**inputs).logits
        losses = torch.nn.functional.cross_entropy(
            logits[0, :-1], labels[0, 1:], ignore_index=IGNORED, reduction="sum"
        )
        alone.append(losses)
    torch.testing.assert_close(together, torch.stack(alone), rtol=1e-5, atol=1e-4)


def test_a_model_with_rotary_positions_and_full_attention_can_be_packed(job: TrainingJob) -> None:
    assert can_be_packed(adapted(load_model(job.base_model), job))


@pytest.mark.parametrize(
    "config",
    [
        GPT2Config(vocab_size=64, n_embd=16, n_layer=1, n_head=2),
        MistralConfig(**TINY, sliding_window=8),
        Qwen3NextConfig(**TINY, num_experts=2, moe_intermediate_size=16, head_dim=8),
    ],
    ids=["learned positions", "sliding window", "linear attention"],
)
def test_other_models_cannot(config: GPT2Config | MistralConfig | Qwen3NextConfig) -> None:
    assert not can_be_packed(AutoModelForCausalLM.from_config(config))


def test_dropout_is_drawn_for_each_row(job: TrainingJob) -> None:
    job = replace(job, parameters=changed(job.parameters, lora_dropout=0.1))

    assert not can_be_packed(adapted(load_model(job.base_model), job))
