"""Step time beside plain TRL, what a training costs besides its steps, and its memory.

Run it alone: beside other work the step times mean nothing.
"""

import json
import multiprocessing
import shutil
import statistics
import time
from concurrent.futures import ProcessPoolExecutor

import pandas as pd
import psutil
import pytest
from datasets import Dataset
from peft import LoraConfig, get_peft_model
from peft.helpers import disable_input_dtype_casting
from rich.console import Console
from rich.table import Table
from transformers import PrinterCallback, TrainerCallback, set_seed
from trl import SFTTrainer

from llamaduo.local_llm.adapter import adapted
from llamaduo.local_llm.base_model import BaseModelSpec, load_model, load_tokenizer, stop_token_ids
from llamaduo.local_llm.chat import to_messages
from llamaduo.local_llm.fine_tune import training_arguments
from llamaduo.local_llm.inference import DecodingSettings, respond
from llamaduo.local_llm.layers import eager_attention
from llamaduo.local_llm.rows import encode_rows
from llamaduo.local_llm.trainer import AnswerTokenTrainer
from llamaduo.local_llm.training import TrainingJob, train
from llamaduo.parameters import FineTuningParameters

BASE_MODEL = BaseModelSpec("data/06_models/smollm2-135m-instruct")
PARAMETERS = FineTuningParameters(
    start="base", learning_rate=1e-3, epochs=1, min_steps=1, validation_share=0
)
DECODING = DecodingSettings(temperature=0.7, top_p=1.0, max_new_tokens=64, batch_size=30, seed=1)
ROUNDS, STEPS, WARM_UP = 3, 12, 2
FASTER = 2.0
SAME_LOSS = {"float32": 1e-3, "bfloat16": 1e-2}
BESIDES_S = 15
ITERATIONS, GROWTH = 5, 1.1

pytestmark = pytest.mark.timeout(3600)


@pytest.fixture(scope="module")
def pairs():
    return pd.read_json("data/01_raw/coverage_train.jsonl", lines=True)


class Stopwatch(TrainerCallback):
    """Seconds of each step."""

    def __init__(self):
        self.seconds, self.losses = [], []

    def on_step_begin(self, args, state, control, **kwargs):
        self._began = time.perf_counter()

    def on_step_end(self, args, state, control, **kwargs):
        self.seconds.append(time.perf_counter() - self._began)

    def on_log(self, args, state, control, logs=None, **kwargs):
        if "loss" in logs:
            self.losses.append(logs["loss"])


def as_peft_makes_it(base):
    """The adapter that ours starts from, in PEFT's layers."""
    set_seed(PARAMETERS.seed)
    config = LoraConfig(
        r=PARAMETERS.lora_rank,
        lora_alpha=PARAMETERS.lora_alpha,
        target_modules=PARAMETERS.target_modules,
        task_type="CAUSAL_LM",
    )
    return get_peft_model(base, config)


def run(kind, pairs, folder, dtype, steps, attention=None):
    """Train with one of the trainers on equal rows, from equal weights.

    Returns:
        Seconds and loss of each step.
    """
    job = TrainingJob(
        base_model=BASE_MODEL,
        parameters=PARAMETERS,
        iteration=1,
        start=None,
        checkpoints=folder,
        training_data={},
    )
    base, tokenizer = load_model(BASE_MODEL), load_tokenizer(BASE_MODEL)
    base.set_attn_implementation(attention or eager_attention(base))
    arguments = training_arguments(job, steps, has_validation=False)
    arguments.save_strategy = "no"
    if dtype == "float32":
        base, arguments.bf16, arguments.mixed_precision = base.float(), False, "no"
    rows = encode_rows(
        tokenizer, pairs.to_dict("records"), stop_token_ids(base.generation_config, tokenizer)
    )
    stopwatch = Stopwatch()
    trainer = kind(
        model=adapted(base, job) if kind is AnswerTokenTrainer else as_peft_makes_it(base),
        args=arguments,
        train_dataset=Dataset.from_list(rows),
        processing_class=tokenizer,
        callbacks=[stopwatch],
    )
    trainer.remove_callback(PrinterCallback)
    with disable_input_dtype_casting(trainer.model, active=kind is AnswerTokenTrainer):
        trainer.train()
    return stopwatch.seconds, stopwatch.losses


def test_a_step_is_faster_than_plain_trl_s_with_the_same_loss(pairs, tmp_path):
    arms = {
        "ours": (AnswerTokenTrainer, None),
        "TRL": (SFTTrainer, "sdpa"),
        "TRL, eager attention": (SFTTrainer, "eager"),
    }
    seconds = {name: [] for name in arms}
    losses = {}
    # As in a loop each training has a process to itself; what another has left of the memory would
    # slow it down.
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=spawn, max_tasks_per_child=1) as processes:
        for _ in range(ROUNDS):
            for name, (kind, attention) in arms.items():
                done = processes.submit(run, kind, pairs, tmp_path, "bfloat16", STEPS, attention)
                took, losses["bfloat16", name] = done.result()
                seconds[name].append(statistics.median(took[WARM_UP:]))
        for name, (kind, attention) in arms.items():
            done = processes.submit(run, kind, pairs, tmp_path, "float32", STEPS, attention)
            _, losses["float32", name] = done.result()

    table = Table("", *[f"round {n + 1}" for n in range(ROUNDS)], title="seconds a step (median)")
    for name, took in seconds.items():
        table.add_row(name, *[f"{each:.2f}" for each in took])
    ratios = {
        name: [theirs / ours for theirs, ours in zip(took, seconds["ours"], strict=True)]
        for name, took in seconds.items()
    }
    for name in list(arms)[1:]:
        table.add_row(f"{name} by ours", *[f"{ratio:.2f}" for ratio in ratios[name]])
    Console().print(table)
    for dtype, most in SAME_LOSS.items():
        apart = [
            abs(a - b)
            for a, b in zip(
                losses[dtype, "ours"], losses[dtype, "TRL, eager attention"], strict=True
            )
        ]
        print(f"{dtype}: losses {statistics.mean(apart):.1e} apart, at most {max(apart):.1e}")
        # Rounded to bfloat16 the two go apart a little more with each step.
        assert statistics.mean(apart) <= most
    for name in list(arms)[1:]:
        assert statistics.median(ratios[name]) >= FASTER, name


def test_what_a_training_takes_besides_its_steps_stays_small(pairs, tmp_path):
    # As many as the demo's last iteration trains on.
    many = pd.concat([pairs] * 15, ignore_index=True)
    few_steps = PARAMETERS.model_copy(update={"max_steps": 5, "min_steps": 5})

    began = time.perf_counter()
    adapter = train(BASE_MODEL, many, None, tmp_path, few_steps, 1, {})
    in_all = time.perf_counter() - began

    log = pd.read_json(adapter / "training_log.jsonl", lines=True)
    besides = in_all - log["seconds"].iloc[-1]
    print(f"\n{len(many)} pairs: {besides:.1f} s besides the steps")
    assert besides <= BESIDES_S


def test_memory_stays_flat_over_five_iterations(pairs, tmp_path):
    conversations = [to_messages(None, prompt) for prompt in pairs["prompt"].head(30)]
    few_steps = PARAMETERS.model_copy(update={"max_steps": 8, "min_steps": 8, "start": "previous"})
    previous, ours, training = None, [], []
    for iteration in range(1, ITERATIONS + 1):
        adapter = train(BASE_MODEL, pairs, previous, tmp_path / "c", few_steps, iteration, {})
        previous = shutil.copytree(adapter, tmp_path / f"adapter-{iteration}")
        respond(BASE_MODEL, previous, conversations, 1, DECODING)
        manifest = json.loads((previous / "manifest.json").read_text())
        training.append(manifest["peak_memory_mib"]["main"])
        ours.append(psutil.Process().memory_info().rss // 2**20)

    print(f"\nMiB: training process at its peak {training}, this process afterwards {ours}")
    assert max(training) <= GROWTH * training[0]
    # The first iteration has loaded the libraries.
    assert max(ours[1:]) <= GROWTH * ours[1]
