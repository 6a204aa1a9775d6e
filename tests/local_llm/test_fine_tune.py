"""What the training process trains on, and with what."""

import dataclasses
import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from datasets import Dataset
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, GPT2Config, PreTrainedTokenizerBase
from trl import SFTTrainer

from llamaduo.local_llm.adapter import adapted, adapted_modules, save_adapter
from llamaduo.local_llm.base_model import BaseModelSpec, load_model, load_tokenizer
from llamaduo.local_llm.chat import encode_prompt, to_messages
from llamaduo.local_llm.fine_tune import fine_tune, step_budget, training_arguments
from llamaduo.local_llm.rows import IGNORED, encode_rows, short_enough
from llamaduo.local_llm.training import TrainingError, TrainingJob
from llamaduo.parameters import FineTuningParameters
from tests.local_llm.conftest import changed

PAIR = {"system": "Be brief.", "prompt": "How are you?", "response": '{"mood": "fine"}'}


@pytest.fixture
def tokenizer(random_model: BaseModelSpec) -> PreTrainedTokenizerBase:
    return load_tokenizer(random_model)


def test_labels_hold_the_response_and_its_end_and_nothing_of_the_prompt(
    tokenizer: PreTrainedTokenizerBase,
) -> None:
    prompt = encode_prompt(tokenizer, to_messages("Be brief.", "How are you?"))

    [row] = encode_rows(tokenizer, [PAIR], [tokenizer.eos_token_id])

    assert row["input_ids"][: len(prompt)] == prompt
    assert row["labels"][: len(prompt)] == [IGNORED] * len(prompt)
    answer = row["labels"][len(prompt) :]
    assert answer == row["input_ids"][len(prompt) :]
    assert tokenizer.decode(answer) == '{"mood": "fine"}<|im_end|>\n'


def test_rows_equal_those_that_trl_makes_of_prompt_and_completion(
    tokenizer: PreTrainedTokenizerBase, job: TrainingJob, tmp_path: Path
) -> None:
    conversational = {
        "prompt": to_messages("Be brief.", "How are you?"),
        "completion": [{"role": "assistant", "content": '{"mood": "fine"}'}],
    }
    trainer = SFTTrainer(
        model=adapted(load_model(job.base_model), job),
        args=training_arguments(job, 40, has_validation=False),
        train_dataset=Dataset.from_list([conversational]),
        processing_class=tokenizer,
    )

    [row] = encode_rows(tokenizer, [PAIR], [tokenizer.eos_token_id])

    assert trainer.train_dataset is not None
    trained_on = trainer.train_dataset[0]
    assert row["input_ids"] == trained_on["input_ids"]
    assert row["labels"] == trained_on["labels"]


def test_a_response_without_a_stop_token_is_refused(tokenizer: PreTrainedTokenizerBase) -> None:
    with pytest.raises(TrainingError, match=r"none of the model's stop tokens \(<\|endoftext\|>\)"):
        encode_rows(tokenizer, [PAIR], [tokenizer.convert_tokens_to_ids("<|endoftext|>")])


def test_rows_that_are_too_long_are_left_out_and_counted(
    caplog: pytest.LogCaptureFixture,
) -> None:
    rows = [{"input_ids": [1] * length, "labels": [1] * length} for length in (3, 5, 4)]

    assert short_enough(rows, 4) == [rows[0], rows[2]]

    assert caplog.messages == ["1 of 3 pairs are longer than max_length (4 tokens) and left out"]


def test_nothing_to_train_on_is_refused(job: TrainingJob, tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="there are no pairs to train on"):
        fine_tune(job, [], tmp_path / "adapter")


@pytest.mark.parametrize(
    ("rows", "epochs", "steps"),
    [
        (1, 3, 40),  # few pairs are seen more often
        (64, 3, 48),
        (1_000, 3, 750),
        (64_000, 3, 4_000),  # and of many not all
    ],
)
def test_few_pairs_and_many_are_both_given_enough_steps(
    job: TrainingJob, rows: int, epochs: float, steps: int
) -> None:
    parameters = FineTuningParameters(start="base", learning_rate=1e-3, epochs=epochs)

    assert step_budget(dataclasses.replace(job, parameters=parameters), rows, processes=1) == steps


def test_as_many_pairs_on_more_processes_are_as_many_epochs(job: TrainingJob) -> None:
    parameters = changed(job.parameters, gradient_accumulation_steps=2, epochs=3)

    budget = dataclasses.replace(job, parameters=parameters)

    assert step_budget(budget, 320, processes=1) == 2 * step_budget(budget, 320, processes=2) == 60


def test_an_adapter_of_another_rank_is_no_start(job: TrainingJob, tmp_path: Path) -> None:
    save_adapter(adapted(load_model(job.base_model), job), job, tmp_path)
    wider = changed(job.parameters, lora_rank=4)

    with pytest.raises(
        TrainingError, match=r"\(8, 16, 0\.0, .*the parameters have \(4, 16, 0\.0, "
    ):
        adapted(
            load_model(job.base_model),
            dataclasses.replace(job, parameters=wider, start=tmp_path),
        )


@pytest.mark.parametrize(
    "modules",
    ["all-linear", ["q_proj"], ["self_attn.q_proj", "mlp.down_proj"], r".*\.1\..*_proj"],
    ids=["all", "a name", "names with a dot", "a pattern"],
)
def test_the_modules_of_a_start_adapter_are_named_as_peft_names_them(
    job: TrainingJob, modules: str | list[str]
) -> None:
    config = LoraConfig(target_modules=modules, task_type="CAUSAL_LM")
    peft = get_peft_model(load_model(job.base_model), config)

    named = adapted_modules(load_model(job.base_model), modules)

    assert named == set(peft.base_model.targeted_module_names) != set()


def test_the_layers_of_gpt_2_are_linear_too() -> None:
    tiny = GPT2Config(vocab_size=9, n_embd=4, n_layer=1, n_head=1, bos_token_id=1, eos_token_id=2)

    names = adapted_modules(AutoModelForCausalLM.from_config(tiny), "all-linear")

    layers = ("attn.c_attn", "attn.c_proj", "mlp.c_fc", "mlp.c_proj")
    assert names == {f"transformer.h.0.{layer}" for layer in layers}


@pytest.mark.parametrize(
    ("before", "after"), [(["q_proj"], "all-linear"), ("all-linear", ["q_proj", "v_proj"])]
)
def test_an_adapter_of_other_modules_is_no_start(
    job: TrainingJob, tmp_path: Path, before: str | list[str], after: str | list[str]
) -> None:
    first, then = (
        dataclasses.replace(job, parameters=changed(job.parameters, target_modules=modules))
        for modules in (before, after)
    )
    save_adapter(adapted(load_model(job.base_model), first), first, tmp_path)
    same = dataclasses.replace(first, start=tmp_path)
    assert isinstance(adapted(load_model(job.base_model), same), PeftModel)

    with pytest.raises(TrainingError, match="changes other modules than target_modules"):
        adapted(load_model(job.base_model), dataclasses.replace(then, start=tmp_path))


def test_an_adapter_of_another_base_model_is_no_start(job: TrainingJob, tmp_path: Path) -> None:
    other = tmp_path / "other-model"
    shutil.copytree(job.base_model.name_or_path, other)
    save_adapter(adapted(load_model(job.base_model), job), job, tmp_path / "adapter")
    swapped = dataclasses.replace(
        job, base_model=BaseModelSpec(str(other)), start=tmp_path / "adapter"
    )

    with pytest.raises(TrainingError, match="trained for random-2-layer, the base model is other"):
        adapted(load_model(swapped.base_model), swapped)


def test_an_adapter_config_names_its_base_model_without_this_machine(
    job: TrainingJob, tmp_path: Path
) -> None:
    model = adapted(load_model(job.base_model), job)
    assert isinstance(model, PeftModel)

    save_adapter(model, job, tmp_path)

    config = json.loads((tmp_path / "adapter_config.json").read_text())
    assert config["base_model_name_or_path"] == "random-2-layer"
    assert config["target_modules"] == sorted(config["target_modules"])
    assert {file.name for file in tmp_path.iterdir()} == {
        "adapter_config.json",
        "adapter_model.safetensors",
    }


def test_the_methods_of_peft_and_trl_are_passed_on(job: TrainingJob, tmp_path: Path) -> None:
    parameters = changed(
        job.parameters,
        epochs=5,
        use_dora=True,
        use_rslora=True,
        neftune_noise_alpha=5,
        target_modules=["q_proj", "v_proj"],
    )
    job = dataclasses.replace(job, parameters=parameters)

    fine_tune(job, [PAIR], tmp_path / "adapter")

    config = json.loads((tmp_path / "adapter/adapter_config.json").read_text())
    assert (config["use_dora"], config["use_rslora"]) == (True, True)
    assert config["target_modules"] == ["q_proj", "v_proj"]
    assert training_arguments(job, 5, has_validation=False).neftune_noise_alpha == 5
    weights = load_file(tmp_path / "adapter/adapter_model.safetensors")
    assert any("lora_magnitude_vector" in name for name in weights)


def test_one_pair_is_enough_to_train_on(job: TrainingJob, tmp_path: Path) -> None:
    fine_tune(job, [PAIR], tmp_path / "adapter")

    manifest = json.loads((tmp_path / "adapter/manifest.json").read_text())
    assert (manifest["rows"], manifest["steps"], manifest["validation_loss"]) == (1, 40, None)


def test_an_adapter_that_a_trainer_has_gathered_is_handed_over_as_one_that_is_in_memory(
    job: TrainingJob, tmp_path: Path
) -> None:
    model = adapted(load_model(job.base_model), job)
    model.save_pretrained(str(tmp_path / "checkpoint"))

    save_adapter(model, job, tmp_path / "one")
    save_adapter(model, job, tmp_path / "other", checkpoint=tmp_path / "checkpoint")

    for file in (tmp_path / "one").iterdir():
        assert (tmp_path / "other" / file.name).read_bytes() == file.read_bytes()
    assert len(list((tmp_path / "other").iterdir())) == 2


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere a child inherits no peak")
def test_the_peak_memory_of_a_process_is_not_that_of_its_parent() -> None:
    script = "from llamaduo.local_llm.fine_tune import peak_memory_mib as p; print(p()['main'])"
    command = [sys.executable, "-c", script]
    alone = int(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    held = bytearray(2 * 1024 * 2**20)
    held[:: 2**12] = b"x" * (len(held) // 2**12)  # touches each page

    beside = int(subprocess.run(command, check=True, capture_output=True, text=True).stdout)

    assert beside < 1.5 * alone < 2048
