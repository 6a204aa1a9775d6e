"""Training on 4-bit weights: what bitsandbytes and PEFT would get wrong without a word."""

import shutil
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file
from torch.nn.utils.rnn import pad_sequence

from llamaduo.local_llm.base_model import BaseModelSpec, device, load_model, load_tokenizer
from llamaduo.local_llm.fine_tune import fine_tune
from llamaduo.local_llm.inference import load_merged
from llamaduo.local_llm.rows import IGNORED, encode_rows
from llamaduo.local_llm.training import TrainingJob
from tests.local_llm.conftest import changed

Batch = dict[str, torch.Tensor]


@pytest.fixture
def in_4_bit(random_model: BaseModelSpec) -> BaseModelSpec:
    return replace(random_model, load_in_4bit=True)


@pytest.fixture
def batch(in_4_bit: BaseModelSpec, pairs: pd.DataFrame) -> Batch:
    tokenizer = load_tokenizer(in_4_bit)
    rows = encode_rows(tokenizer, pairs.head(4).to_dict("records"), [tokenizer.eos_token_id])
    ids, labels = (
        pad_sequence([torch.tensor(row[name]) for row in rows], True, padding).to(device())
        for name, padding in (("input_ids", tokenizer.pad_token_id), ("labels", IGNORED))
    )
    return {"input_ids": ids, "labels": labels}


def with_adapter(base_model: BaseModelSpec) -> PeftModel:
    torch.manual_seed(1)
    fresh = LoraConfig(r=8, lora_alpha=16, target_modules="all-linear", task_type="CAUSAL_LM")
    return get_peft_model(load_model(base_model), fresh)


def trained(model: PeftModel, batch: Batch, steps: int, evaluate: bool) -> list[float]:
    """The loss of each step, with or without an evaluation before it."""
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=0.02)
    losses = []
    for _ in range(steps):
        if evaluate:
            model.eval()
            with torch.no_grad():
                model(**batch)
        model.train()
        loss = model(**batch).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    return losses


def response_logits(model: torch.nn.Module, batch: Batch) -> torch.Tensor:
    """Shape (response tokens, vocabulary)."""
    model.eval()
    with torch.no_grad():
        logits = model(batch["input_ids"]).logits[:, :-1]
    return logits[batch["labels"][:, 1:] != IGNORED].float()


def test_an_evaluation_in_between_changes_nothing_in_a_training(
    in_4_bit: BaseModelSpec, batch: Batch
) -> None:
    undisturbed = trained(with_adapter(in_4_bit), batch, steps=4, evaluate=False)

    losses = trained(with_adapter(in_4_bit), batch, steps=4, evaluate=True)

    assert losses == pytest.approx(undisturbed, rel=1e-3)
    assert losses[-1] < 0.7 * losses[0]


def test_merged_into_weights_that_are_not_in_4_bit_the_adapter_answers_as_it_was_trained(
    in_4_bit: BaseModelSpec, batch: Batch, tmp_path: Path
) -> None:
    model = with_adapter(in_4_bit)
    untrained = response_logits(model, batch)
    trained(model, batch, steps=25, evaluate=True)
    model.save_pretrained(str(tmp_path), save_embedding_layers=False)

    unmerged = response_logits(model, batch)
    merged = response_logits(load_merged(in_4_bit, tmp_path), batch)

    learned = batch["labels"][batch["labels"] != IGNORED]
    assert unmerged.argmax(-1).tolist() == merged.argmax(-1).tolist() == learned.tolist()
    assert (merged - unmerged).abs().mean() < 0.15 * (untrained - unmerged).abs().mean()


def test_an_adapter_on_4_bit_weights_is_trained_in_float32_and_resumes_to_the_same_weights(
    in_4_bit: BaseModelSpec, job: TrainingJob, pairs: pd.DataFrame, tmp_path: Path
) -> None:
    # TRL would cast it to bfloat16, in which a step of this size changes nothing.
    parameters = changed(job.parameters, learning_rate=5e-6, epochs=12, evaluations=3)
    job = replace(job, base_model=in_4_bit, parameters=parameters)
    rows = pairs.head(4).to_dict("records")
    fine_tune(job, rows, tmp_path / "undisturbed")
    shutil.rmtree(job.checkpoints / "checkpoint-12")

    fine_tune(job, rows, tmp_path / "resumed")

    undisturbed, resumed = (
        load_file(tmp_path / name / "adapter_model.safetensors")
        for name in ("undisturbed", "resumed")
    )
    assert all(weight.equal(resumed[name]) for name, weight in undisturbed.items())
    assert {weight.dtype for weight in undisturbed.values()} == {torch.float32}
    fresh = load_file(job.checkpoints / "checkpoint-4/adapter_model.safetensors")
    started = [name for name in fresh if "lora_A" in name]
    assert all((undisturbed[name] != fresh[name]).float().mean() > 0.9 for name in started)


def test_an_adapter_on_4_bit_weights_is_gone_on_from_as_it_is(
    in_4_bit: BaseModelSpec, job: TrainingJob, pairs: pd.DataFrame, tmp_path: Path
) -> None:
    # bfloat16 would round its weights by up to a 256th.
    job = replace(job, base_model=in_4_bit, parameters=changed(job.parameters, epochs=1))
    rows = pairs.head(4).to_dict("records")
    fine_tune(job, rows, tmp_path / "before")
    still = changed(job.parameters, learning_rate=1e-12)
    job = replace(job, start=tmp_path / "before", parameters=still, checkpoints=tmp_path / "others")

    fine_tune(job, rows, tmp_path / "after")

    before, after = (
        load_file(tmp_path / name / "adapter_model.safetensors") for name in ("before", "after")
    )
    for name, weight in before.items():
        torch.testing.assert_close(after[name], weight, rtol=1e-6, atol=1e-9)
