"""The trainer's own loss, and the watch over it."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from datasets import Dataset
from transformers import TrainerControl, TrainerState
from trl import SFTTrainer

from llamaduo.local_llm.base_model import BaseModelSpec, load_model, load_tokenizer
from llamaduo.local_llm.fine_tune import adapted, encode_rows, fine_tune, training_arguments
from llamaduo.local_llm.trainer import IGNORED, AnswerTokenTrainer, TrainingWatch
from llamaduo.local_llm.training import TrainingError, TrainingJob, TrainingSettings
from llamaduo.progress import ProgressDisplay

PAIRS = [
    {"prompt": "Say red", "response": "red red red"},
    {"prompt": "Say a longer word, please, and say why", "response": "elephant, because I like it"},
    {"prompt": "Say nothing", "response": ""},
]


@pytest.fixture
def job(random_model: BaseModelSpec, settings: TrainingSettings) -> TrainingJob:
    return TrainingJob(base_model=random_model, settings=settings, start=None, training_data={})


def test_the_loss_of_answer_tokens_and_its_gradients_are_those_of_trl(
    job: TrainingJob, tmp_path: Path
) -> None:
    ours, our_gradients = _loss_in_float32(AnswerTokenTrainer, job, tmp_path)
    theirs, their_gradients = _loss_in_float32(SFTTrainer, job, tmp_path)

    assert ours == pytest.approx(theirs, abs=1e-3)
    assert our_gradients.keys() == their_gradients.keys()
    for name, gradient in our_gradients.items():
        torch.testing.assert_close(gradient, their_gradients[name], rtol=1e-3, atol=1e-5)
    assert any(gradient.any() for gradient in our_gradients.values())


def test_where_the_end_token_pads_the_end_is_learned_and_padding_is_not(
    job: TrainingJob, tmp_path: Path
) -> None:
    tokenizer = load_tokenizer(job.base_model)
    tokenizer.pad_token = tokenizer.eos_token
    rows = encode_rows(tokenizer, PAIRS, [tokenizer.eos_token_id])
    trainer = AnswerTokenTrainer(
        model=adapted(load_model(job.base_model), job),
        args=training_arguments(replace(job.settings, batch_size=len(rows)), tmp_path),
        train_dataset=Dataset.from_list(rows),
        processing_class=tokenizer,
    )

    [batch] = trainer.get_train_dataloader()

    padding = batch["attention_mask"] == 0
    assert padding.any()
    assert (batch["input_ids"][padding] == tokenizer.eos_token_id).all()
    assert (batch["labels"][padding] == IGNORED).all()
    assert (batch["labels"] == tokenizer.eos_token_id).sum(dim=1).tolist() == [1] * len(rows)


def test_a_loss_that_is_no_number_stops_the_training_at_its_step(
    job: TrainingJob, tmp_path: Path
) -> None:
    too_fast = TrainingSettings(**{**vars(job.settings), "learning_rate": 1e30, "warmup": 0.0})
    job = replace(job, settings=too_fast)

    with pytest.raises(
        TrainingError, match=r"ran away at step \d of 40: loss .*lower learning_rate"
    ):
        fine_tune(job, PAIRS, tmp_path / "adapter")

    assert list((tmp_path / "adapter").iterdir()) == []


@pytest.mark.parametrize(
    ("loss", "gradient"), [(float("nan"), 1.0), (1.0, float("inf")), (14.0, 1.0)]
)
def test_a_loss_far_above_guessing_or_without_a_gradient_is_named(
    job: TrainingJob, tmp_path: Path, loss: float, gradient: float
) -> None:
    arguments = training_arguments(job.settings, tmp_path)
    state = TrainerState(global_step=7, max_steps=9)
    logs = {"loss": loss, "grad_norm": gradient, "epoch": 1.0, "learning_rate": 1e-3}

    with (
        ProgressDisplay("training", quiet=True) as display,
        pytest.raises(TrainingError, match="at step 7 of 9"),
    ):
        TrainingWatch(display, vocabulary=1000).on_log(arguments, state, TrainerControl(), logs)


def _loss_in_float32(
    kind: type[SFTTrainer], job: TrainingJob, folder: Path
) -> tuple[float, dict[str, Any]]:
    tokenizer = load_tokenizer(job.base_model)
    model = adapted(load_model(job.base_model).float(), job)
    rows = encode_rows(tokenizer, PAIRS, [tokenizer.eos_token_id])
    trainer = kind(
        model=model,
        args=training_arguments(job.settings, folder),
        train_dataset=Dataset.from_list(rows),
        processing_class=tokenizer,
    )
    batch = {name: value.to(model.device) for name, value in trainer.data_collator(rows).items()}
    loss = trainer.compute_loss(model, batch)
    loss.backward()
    gradients = {name: p.grad for name, p in model.named_parameters() if p.requires_grad}
    return loss.item(), gradients
