"""Training to prefer one response over another."""

import dataclasses
import json
import math
import shutil
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from datasets import Dataset
from safetensors.torch import load_file
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from llamaduo.local_llm.adapter import adapted
from llamaduo.local_llm.base_model import BaseModelSpec, load_model, load_tokenizer
from llamaduo.local_llm.chat import encode_prompt, to_messages
from llamaduo.local_llm.fine_tune import fine_tune, training_arguments
from llamaduo.local_llm.layers import LowRankLinear, eager_attention
from llamaduo.local_llm.rows import encode_preferences
from llamaduo.local_llm.trainer import AnswerTokenPreferenceTrainer, PreferenceTrainer
from llamaduo.local_llm.training import TrainingError, TrainingJob, train
from llamaduo.parameters import FineTuningParameters
from llamaduo.schemas import TrainingLog
from tests.local_llm.conftest import WORDS, changed
from tests.local_llm.test_checkpoints import WEIGHTS
from tests.local_llm.test_launcher import TWO

REWARDS = ["reward_margin", "reward_accuracy", "kl"]


@pytest.fixture(scope="session")
def preferred(pairs: pd.DataFrame) -> pd.DataFrame:
    """What the adapter has learned is rejected, and the next word chosen."""
    return pd.DataFrame(
        {
            "id": [f"p{n}" for n in range(8)],
            "system": pairs["system"],
            "prompt": pairs["prompt"],
            "chosen": [f'{{"answer":"{word}"}}' for word in [*WORDS[1:], WORDS[0]]],
            "rejected": pairs["response"],
            "rejected_finished": True,
            "validation": [True, True, *[False] * 6],
        }
    )


@pytest.fixture(scope="session")
def preferring(parameters: FineTuningParameters) -> FineTuningParameters:
    """Ten steps, with a checkpoint after every fifth."""
    preference = {"enabled": True, "learning_rate": 2e-3, "epochs": 10}
    return changed(parameters, preference=preference, evaluations=2)


@pytest.fixture
def dpo(job: TrainingJob, adapter: Path, preferring: FineTuningParameters) -> TrainingJob:
    return dataclasses.replace(job, parameters=preferring, start=adapter, method="dpo")


@pytest.fixture(scope="module")
def learned(
    random_model: BaseModelSpec,
    adapter: Path,
    preferring: FineTuningParameters,
    preferred: pd.DataFrame,
    tmp_path_factory: pytest.TempPathFactory,
) -> tuple[TrainingJob, Path]:
    """A training to its end, and its adapter."""
    folder = tmp_path_factory.mktemp("learned")
    job = TrainingJob(
        base_model=random_model,
        parameters=preferring,
        iteration=1,
        start=adapter,
        checkpoints=folder / "checkpoints",
        training_data={},
        method="dpo",
    )
    fine_tune(job, preferred.to_dict("records"), folder / "adapter")
    return job, folder / "adapter"


@pytest.fixture
def tokenizer(random_model: BaseModelSpec) -> PreTrainedTokenizerBase:
    return load_tokenizer(random_model)


def test_both_responses_follow_the_prompt_as_inference_sees_it_and_end_where_they_were_drawn(
    tokenizer: PreTrainedTokenizerBase, preferred: pd.DataFrame
) -> None:
    finished = preferred.head(1).to_dict("records")
    cut_off = preferred.head(1).assign(rejected_finished=False).to_dict("records")
    prompt = encode_prompt(tokenizer, to_messages("", str(preferred["prompt"].iloc[0])))

    [row] = encode_preferences(tokenizer, finished, [tokenizer.eos_token_id])
    [unfinished] = encode_preferences(tokenizer, cut_off, [tokenizer.eos_token_id])

    assert row["prompt_ids"] == unfinished["prompt_ids"] == prompt
    assert tokenizer.decode(row["chosen_ids"]) == '{"answer":"blue"}<|im_end|>'
    assert tokenizer.decode(row["rejected_ids"]) == '{"answer":"red red"}<|im_end|>'
    assert tokenizer.decode(unfinished["rejected_ids"]) == '{"answer":"red red"}'
    assert row["input_ids"] == prompt + row["rejected_ids"]
    assert (row["id"], row["validation"]) == ("p0", True)


def test_a_chosen_response_without_a_stop_token_is_refused(
    tokenizer: PreTrainedTokenizerBase, preferred: pd.DataFrame
) -> None:
    other = tokenizer.convert_tokens_to_ids("<|endoftext|>")

    with pytest.raises(TrainingError, match="none of the model's stop tokens"):
        encode_preferences(tokenizer, preferred.to_dict("records"), [other])


@pytest.mark.parametrize("kind", [PreferenceTrainer, AnswerTokenPreferenceTrainer])
def test_the_reference_policy_is_the_adapter_that_the_training_starts_from(
    kind: type[PreferenceTrainer], dpo: TrainingJob, preferred: pd.DataFrame
) -> None:
    trainer = _trainer(kind, dpo, preferred, load_model(dpo.base_model))

    loss = trainer.evaluate()["eval_loss"]

    assert loss == pytest.approx(math.log(2), abs=1e-6)
    assert trainer.state.log_history[-1]["eval_rewards/margins"] == 0
    assert trainer.state.log_history[-1]["eval_rewards/rejected"] == 0


def test_the_loss_of_answer_tokens_its_rewards_and_gradients_are_those_of_trl(
    dpo: TrainingJob, preferred: pd.DataFrame, monkeypatch: pytest.MonkeyPatch
) -> None:
    ours, our_rewards, our_gradients = _one_step(AnswerTokenPreferenceTrainer, dpo, preferred)
    monkeypatch.delattr(LowRankLinear, "forward")  # the rest is PEFT's
    theirs, their_rewards, their_gradients = _one_step(PreferenceTrainer, dpo, preferred)

    assert ours == pytest.approx(theirs, abs=1e-4)
    assert abs(ours - math.log(2)) > 0.02
    for name, reward in our_rewards.items():
        assert reward == pytest.approx(their_rewards[name], abs=1e-3), name
    assert our_gradients.keys() == their_gradients.keys()
    for name, gradient in our_gradients.items():
        torch.testing.assert_close(gradient, their_gradients[name], rtol=1e-3, atol=1e-4)


def test_the_chosen_response_is_preferred_after_the_training(
    learned: tuple[TrainingJob, Path],
) -> None:
    _, folder = learned
    log = pd.read_json(folder / "training_log.jsonl", lines=True)
    manifest = json.loads((folder / "manifest.json").read_text())

    TrainingLog.validate(log.assign(tokens_per_s=1.0))
    first, last = log[["loss", *REWARDS]].iloc[0], log[["loss", *REWARDS]].iloc[-1]
    assert first["loss"] == pytest.approx(math.log(2), abs=1e-6)
    assert first[["reward_margin", "kl"]].tolist() == [0, 0]
    assert last["reward_accuracy"] == 1
    assert last["reward_margin"] > 0.5
    assert last["kl"] > 0
    assert (manifest["method"], manifest["rows"], manifest["rows_validation"]) == ("dpo", 6, 2)
    assert manifest["settings"]["learning_rate"] == 2e-3
    assert manifest["validation_loss"] == pytest.approx(log["validation_loss"].min())
    assert manifest["reward_margin"] > 0
    assert manifest["tokens"] > 2 * 10 * 6 * 20
    assert {file.name for file in folder.iterdir()} == {
        *("adapter_config.json", WEIGHTS, "manifest.json", "training_log.jsonl"),
    }


def test_the_adapter_is_that_of_the_best_look_and_its_rewards_are_told(
    dpo: TrainingJob, preferred: pd.DataFrame, tmp_path: Path
) -> None:
    swapped = preferred.rename(columns={"chosen": "rejected", "rejected": "chosen"})
    contrary = pd.concat([swapped.head(2), preferred.tail(6)])  # what is learned is wrong there

    fine_tune(dpo, contrary.to_dict("records"), tmp_path / "adapter")

    manifest = json.loads((tmp_path / "adapter/manifest.json").read_text())
    log = pd.read_json(tmp_path / "adapter/training_log.jsonl", lines=True).set_index("step")
    assert manifest["best_step"] == log["validation_loss"].dropna().idxmin()
    assert manifest["reward_margin"] < 0 < log.at[manifest["best_step"], "reward_margin"]
    best = load_file(dpo.checkpoints / f"checkpoint-{manifest['best_step']}" / WEIGHTS)
    saved = load_file(tmp_path / "adapter" / WEIGHTS)
    assert saved.keys() == best.keys()
    assert all(saved[name].equal(best[name]) for name in saved)


def test_an_interrupted_preference_training_goes_on_to_the_weights_of_one_that_was_not(
    learned: tuple[TrainingJob, Path], preferred: pd.DataFrame, tmp_path: Path
) -> None:
    job, undisturbed = learned
    last = job.checkpoints / "checkpoint-10"
    weights = [(last / WEIGHTS).read_bytes(), (undisturbed / WEIGHTS).read_bytes()]
    shutil.rmtree(last)

    fine_tune(job, preferred.to_dict("records"), tmp_path / "resumed")

    resumed = [(last / WEIGHTS).read_bytes(), (tmp_path / "resumed" / WEIGHTS).read_bytes()]
    assert resumed == weights
    logs = [
        pd.read_json(folder / "training_log.jsonl", lines=True).drop(columns="seconds")
        for folder in (undisturbed, tmp_path / "resumed")
    ]
    pd.testing.assert_frame_equal(*logs)


def test_preferences_that_run_away_stop_the_training_and_are_named(
    dpo: TrainingJob, preferred: pd.DataFrame, tmp_path: Path
) -> None:
    preference = {"enabled": True, "learning_rate": 1e30}
    too_fast = changed(dpo.parameters, preference=preference, warmup=0.0, batch_size=1)
    job = dataclasses.replace(dpo, parameters=too_fast)
    pairs = preferred.assign(validation=False).to_dict("records")

    with pytest.raises(
        TrainingError, match=r"ran away at step \d of 8, in the batch of p\d: .*lower learning_rate"
    ):
        fine_tune(job, pairs, tmp_path / "adapter")


def _one_step(
    kind: type[PreferenceTrainer], job: TrainingJob, preferred: pd.DataFrame
) -> tuple[float, dict[str, float], dict[str, Any]]:
    """Loss, rewards and gradients in float32, with an adapter that has left its start."""
    base = load_model(job.base_model).float()
    base.set_attn_implementation("sdpa" if kind is PreferenceTrainer else eager_attention(base))
    trainer = _trainer(kind, job, preferred, base)
    trained = {n: p for n, p in trainer.model.named_parameters() if ".default." in n}
    for name, parameter in trained.items():
        parameter.data *= 0.5 if "lora_B" in name else 1
    trainer.model.train()
    batch = trainer.data_collator(list(trainer.train_dataset))
    loss = trainer.compute_loss(trainer.model, batch)
    loss.backward()
    rewards = {n: v[0] for n, v in trainer._metrics["train"].items() if "rewards" in n}
    return loss.item(), rewards, {name: each.grad for name, each in trained.items()}


def _trainer(
    kind: type[PreferenceTrainer], job: TrainingJob, preferred: pd.DataFrame, base: PreTrainedModel
) -> Any:
    tokenizer = load_tokenizer(job.base_model)
    rows = encode_preferences(tokenizer, preferred.to_dict("records"), [tokenizer.eos_token_id])
    return kind(
        model=adapted(base, job),
        args=training_arguments(job, 1, has_validation=True),
        train_dataset=Dataset.from_list(rows),
        eval_dataset=Dataset.from_list(rows),
        processing_class=tokenizer,
    )


@pytest.mark.soak
def test_two_processes_prefer_what_one_does_with_the_same_batch(
    dpo: TrainingJob,
    preferring: FineTuningParameters,
    preferred: pd.DataFrame,
    tmp_path: Path,
) -> None:
    both = {"launcher": "accelerate", "accelerate_config": TWO, "batch_size": 3}
    arms = {"one": changed(preferring, batch_size=6), "two": changed(preferring, **both)}

    adapters = [
        train(dpo.base_model, preferred, dpo.start, tmp_path / name, arm, 1, {}, method="dpo")
        for name, arm in arms.items()
    ]

    one, two = [pd.read_json(each / "training_log.jsonl", lines=True) for each in adapters]
    assert len(one) == len(two) == 10
    # One process reads its batch as one sequence, two do not: bfloat16 rounds otherwise, and by
    # more where log probabilities have gone far. In float32 the two are equal (above).
    tolerance = {"loss": 1e-2} | dict.fromkeys(("validation_loss", *REWARDS), 3e-2)
    for name, apart in tolerance.items():
        expected = pytest.approx(one[name].tolist(), abs=apart, rel=apart, nan_ok=True)
        assert two[name].tolist() == expected, name
    assert two["loss"].iloc[-1] < two["loss"].iloc[0] - 0.1
