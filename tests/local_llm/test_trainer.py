"""The trainer's own loss, and the watch over it."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from datasets import Dataset
from transformers import PreTrainedModel, TrainerControl, TrainerState
from trl import SFTTrainer

from llamaduo.local_llm.adapter import adapted
from llamaduo.local_llm.base_model import load_model, load_tokenizer
from llamaduo.local_llm.energy import EnergyMeter
from llamaduo.local_llm.fine_tune import fine_tune, training_arguments
from llamaduo.local_llm.layers import LowRankLinear, eager_attention
from llamaduo.local_llm.rows import IGNORED, encode_rows
from llamaduo.local_llm.trainer import AnswerTokenTrainer, TrainingWatch, WatchedTrainer
from llamaduo.local_llm.training import TrainingError, TrainingJob
from llamaduo.progress import ProgressDisplay
from tests.local_llm.conftest import changed

PAIRS = [
    {"id": "red", "prompt": "Say red", "response": "red red red"},
    {"id": "elephant", "prompt": "Say a longer word, please", "response": "elephant, or why not"},
    {"id": "nothing", "prompt": "Say nothing", "response": ""},
]
LONG = {"id": "long", "prompt": "Say green" + " and green" * 300, "response": "green"}


@pytest.mark.parametrize("pairs", [PAIRS, [*PAIRS, LONG]], ids=["packed", "padded"])
def test_the_loss_of_answer_tokens_and_its_gradients_are_those_of_trl(
    job: TrainingJob, pairs: list[dict[str, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    ours, our_gradients = _loss_in_float32(AnswerTokenTrainer, job, pairs)
    monkeypatch.delattr(LowRankLinear, "forward")  # the rest is PEFT's
    theirs, their_gradients = _loss_in_float32(SFTTrainer, job, pairs)

    assert ours == pytest.approx(theirs, abs=1e-3)
    assert our_gradients.keys() == their_gradients.keys()
    for name, gradient in our_gradients.items():
        torch.testing.assert_close(gradient, their_gradients[name], rtol=1e-3, atol=1e-5)
    assert any(gradient.any() for gradient in our_gradients.values())


def test_where_the_end_token_pads_the_end_is_learned_and_padding_is_not(job: TrainingJob) -> None:
    trainer = _trainer(AnswerTokenTrainer, job, load_model(job.base_model))
    tokenizer = trainer.processing_class
    assert tokenizer.pad_token == tokenizer.eos_token

    [batch] = trainer.get_train_dataloader()

    padding = batch["attention_mask"] == 0
    assert padding.any()
    assert (batch["input_ids"][padding] == tokenizer.eos_token_id).all()
    assert (batch["labels"][padding] == IGNORED).all()
    assert (batch["labels"] == tokenizer.eos_token_id).sum(dim=1).tolist() == [1] * len(PAIRS)


def test_a_loss_that_is_no_number_stops_the_training_and_names_step_and_pairs(
    job: TrainingJob, tmp_path: Path
) -> None:
    too_fast = changed(job.parameters, learning_rate=1e30, warmup=0.0, batch_size=1)
    job = replace(job, parameters=too_fast)

    with pytest.raises(
        TrainingError,
        match=r"ran away at step \d of 120, in the batch of \w+: loss .*lower learning_rate",
    ):
        fine_tune(job, PAIRS, tmp_path / "adapter")

    assert not (tmp_path / "adapter").exists()


@pytest.mark.parametrize(
    ("loss", "gradient"), [(float("nan"), 1.0), (1.0, float("inf")), (25.0, 1.0)]
)
def test_a_loss_far_above_guessing_or_without_a_gradient_is_named(
    job: TrainingJob, loss: float, gradient: float
) -> None:
    trainer = _trainer(WatchedTrainer, job, load_model(job.base_model))
    trainer.train()
    logs = {"loss": loss, "grad_norm": gradient, "epoch": 1.0, "learning_rate": 1e-3}
    state = TrainerState(global_step=7, max_steps=9, log_history=[logs])

    with (
        ProgressDisplay("training", quiet=True) as display,
        pytest.raises(
            TrainingError, match=r"at step 7 of 9, in the batch of red, elephant, nothing: "
        ),
    ):
        _watch(display, trainer).on_log(trainer.args, state, TrainerControl(), logs)


def test_a_validation_loss_that_is_no_number_stops_the_training_too(job: TrainingJob) -> None:
    trainer = _trainer(WatchedTrainer, job, load_model(job.base_model))
    logs = {"eval_loss": float("nan")}
    state = TrainerState(global_step=7, max_steps=9, log_history=[logs])

    with (
        ProgressDisplay("training", quiet=True) as display,
        pytest.raises(TrainingError, match=r"at step 7 of 9, on the validation pairs: loss nan"),
    ):
        _watch(display, trainer).on_log(trainer.args, state, TrainerControl(), logs)


def _watch(display: ProgressDisplay, trainer: WatchedTrainer) -> TrainingWatch:
    return TrainingWatch(display, 49152, trainer, EnergyMeter())


def _trainer(
    kind: type[SFTTrainer],
    job: TrainingJob,
    base: PreTrainedModel,
    pairs: list[dict[str, str]] = PAIRS,
) -> Any:
    tokenizer = load_tokenizer(job.base_model)
    return kind(
        model=adapted(base, job),
        args=training_arguments(job, 1, has_validation=False),
        train_dataset=Dataset.from_list(encode_rows(tokenizer, pairs, [tokenizer.eos_token_id])),
        processing_class=tokenizer,
    )


def _loss_in_float32(
    kind: type[SFTTrainer], job: TrainingJob, pairs: list[dict[str, str]]
) -> tuple[float, dict[str, Any]]:
    base = load_model(job.base_model).float()
    base.set_attn_implementation("sdpa" if kind is SFTTrainer else eager_attention(base))
    trainer = _trainer(kind, job, base, pairs)
    rows = [dict(row) for row in trainer.train_dataset]
    model = trainer.model
    batch = {name: value.to(model.device) for name, value in trainer.data_collator(rows).items()}
    loss = trainer.compute_loss(model, batch)
    loss.backward()
    gradients = {name: p.grad for name, p in model.named_parameters() if p.requires_grad}
    return loss.item(), gradients
