"""LoRA on pairs with TRL, by SFT or DPO; runs in the training process."""

from __future__ import annotations

import json
import logging
import math
import resource
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from accelerate import PartialState
from accelerate.utils import gather_object
from datasets import Dataset
from peft import PeftModel
from peft.helpers import disable_input_dtype_casting
from transformers import (
    EarlyStoppingCallback,
    PrinterCallback,
    TrainerState,
)
from trl import DPOConfig, SFTConfig

from llamaduo.local_llm.adapter import adapted, describe, save_adapter, written_by
from llamaduo.local_llm.base_model import (
    compute_dtype,
    device,
    is_shared,
    load_generation_config,
    load_model,
    load_tokenizer,
    stop_token_ids,
)
from llamaduo.local_llm.checkpoints import latest_checkpoint
from llamaduo.local_llm.energy import EnergyMeter
from llamaduo.local_llm.layers import eager_attention
from llamaduo.local_llm.rows import encode_preferences, encode_rows, short_enough
from llamaduo.local_llm.trainer import TrainingWatch, Watched, spent, trainer_class
from llamaduo.local_llm.training import LOG_FILE, TrainingError, TrainingJob
from llamaduo.local_llm.training_log import outcome, write_log
from llamaduo.progress import ProgressDisplay

logger = logging.getLogger(__name__)

MOST_KEPT = 3
"""Checkpoints: the best, the last, and the one that is being written."""
EAGER_UP_TO = 4 * 256**2
"""Scores of a head for a batch, up to which a CPU is faster with eager attention.

PyTorch's fused kernel for CPUs goes back slowly; the eager one keeps all scores in memory.
"""


def fine_tune(job: TrainingJob, pairs: list[dict[str, Any]], adapter_folder: Path) -> None:
    """Train an adapter and write it, its log and its manifest into a new folder.

    Args:
        pairs: ``prompt``, ``response`` and optionally ``id``, ``system`` and ``validation``; for
            DPO ``PreferencePairs``.

    Raises:
        TrainingError: Nothing to train on, an adapter that does not fit the settings, or a loss
            that runs away.
    """
    started = time.perf_counter()
    tokenizer = load_tokenizer(job.base_model)
    generation = load_generation_config(job.base_model)
    encode = encode_preferences if job.method == "dpo" else encode_rows
    rows = encode(tokenizer, pairs, stop_token_ids(generation, tokenizer))
    kept = short_enough(rows, min(job.parameters.max_length, tokenizer.model_max_length))
    validation = [row for row in kept if row["validation"]]
    training = [row for row in kept if not row["validation"]]
    if not training:
        raise TrainingError("there are no pairs to train on")
    steps = step_budget(job, len(training), job.processes)
    # Before the model: they connect the processes, which may share its weights, and give each its
    # GPU.
    arguments = training_arguments(job, steps, has_validation=bool(validation))
    meter = EnergyMeter()
    base = load_model(job.base_model)
    longest = max(len(row["input_ids"]) for row in kept)
    if device().type == "cpu" and job.parameters.batch_size * longest**2 <= EAGER_UP_TO:
        base.set_attn_implementation(eager_attention(base))
    model = adapted(base, job)
    with weights_kept(model):
        trainer = trainer_class(job.method)(
            model=model,
            args=arguments,
            train_dataset=Dataset.from_list(training),
            eval_dataset=Dataset.from_list(validation) if validation else None,
            processing_class=tokenizer,
            callbacks=[EarlyStoppingCallback(job.parameters.patience)] if validation else None,
        )
    trainer.remove_callback(PrinterCallback)  # would print a dict a step
    first = PartialState().is_main_process
    with ProgressDisplay("training", quiet=not first) as display:
        trainer.add_callback(TrainingWatch(display, len(tokenizer), trainer, meter))
        # Autocast computes in bfloat16 anyway: PEFT would take each input to float32 and back
        # before. DoRA's norms do rest on that float32.
        with disable_input_dtype_casting(model, active=not job.parameters.use_dora):
            before = run(trainer, model, latest_checkpoint(job.checkpoints))
    used = resources(meter)
    PartialState().destroy_process_group()  # its threads would abort a process that ends
    if first:
        counts = {
            "rows": len(training),
            "rows_validation": len(validation),
            "rows_too_long": len(rows) - len(kept),
        }
        taken = {
            "seconds": round(time.perf_counter() - started + before["seconds"], 1),
            "energy_wh": round(used["energy_wh"] + job.processes * before["energy_wh"], 3),
            "peak_memory_mib": used["peak_memory_mib"],
        }
        write_adapter(adapter_folder, job, model, trainer.state, counts | taken)


def write_adapter(
    folder: Path,
    job: TrainingJob,
    model: PeftModel,
    state: TrainerState,
    facts: dict[str, Any],
) -> None:
    """Write weights, log and manifest; the manifest holds the facts as they are."""
    save_adapter(model, job, folder, written_by(state, job.checkpoints) if is_shared() else None)
    write_log(state, job.parameters.preference.beta, folder / LOG_FILE)
    manifest = describe(job, model, folder) | outcome(state, job.parameters.preference.beta) | facts
    (folder / "manifest.json").write_text(json.dumps(manifest, indent=2), encoding="utf-8")


@contextmanager
def weights_kept(model: PeftModel) -> Iterator[None]:
    """The adapter's weights stay, which TRL's trainers cast to bfloat16 beside 4-bit weights.

    There small steps would be lost, and some of what a start adapter has learned.
    """
    if is_shared():
        yield
        return
    weights = [(each, each.data) for each in model.parameters() if each.requires_grad]
    yield
    for parameter, data in weights:
        parameter.data = data


def run(trainer: Watched, model: PeftModel, checkpoint: Path | None) -> dict[str, float]:
    """Train from the beginning or from a checkpoint; a training that had ended stays as it was.

    Returns:
        What the processes before have ``spent``.
    """
    if checkpoint is None:
        trainer.train()
        return spent(TrainerState())
    state = TrainerState.load_from_json(str(checkpoint / "trainer_state.json"))
    if not has_ended(state):
        trainer.train(resume_from_checkpoint=str(checkpoint))
        return spent(state)
    # Resumed, the trainer would take another step before it looks whether there is one to take.
    trainer.state = state
    if not is_shared():
        model.load_adapter(str(written_by(state, checkpoint.parent)), "default")
    return spent(state)


def has_ended(state: TrainerState) -> bool:
    """Whether all steps were taken, or patience was at its end."""
    callbacks: Any = state.stateful_callbacks
    stopper = callbacks.get("EarlyStoppingCallback")
    if state.global_step >= state.max_steps or stopper is None:
        return state.global_step >= state.max_steps
    looks: int = stopper["attributes"]["early_stopping_patience_counter"]
    patience: int = stopper["args"]["early_stopping_patience"]
    return looks >= patience


def step_budget(job: TrainingJob, rows: int, processes: int) -> int:
    """Steps of a training: its epochs, between the least and the most that are allowed."""
    return job.parameters.steps(rows, job.epochs, processes)


def training_arguments(
    job: TrainingJob, steps: int, *, has_validation: bool
) -> SFTConfig | DPOConfig:
    """TRL's arguments; what is not a parameter is the choice of this project."""
    on_gpu = torch.cuda.is_available()
    parameters = job.parameters
    between_looks = math.ceil(steps / parameters.evaluations)
    shared: dict[str, Any] = dict(
        output_dir=str(job.checkpoints),
        learning_rate=job.learning_rate,
        max_steps=steps,
        per_device_train_batch_size=parameters.batch_size,
        per_device_eval_batch_size=parameters.batch_size,
        gradient_accumulation_steps=parameters.gradient_accumulation_steps,
        warmup_steps=parameters.warmup,  # below 1 it is a share of all steps
        lr_scheduler_type="cosine",
        seed=parameters.seed,
        data_seed=parameters.seed,
        bf16=compute_dtype() is torch.bfloat16,
        use_cpu=not on_gpu,
        dataloader_pin_memory=on_gpu,
        ddp_backend="gloo" if job.processes > 1 and not on_gpu else None,
        ddp_find_unused_parameters=False,  # an adapter's are all used
        # Trades time for memory, which is scarce on a GPU only.
        activation_checkpointing=on_gpu,
        gradient_checkpointing=None,  # the old name, on in TRL
        max_length=None,  # longer rows are left out before, never cut
        eval_strategy="steps" if has_validation else "no",
        eval_steps=between_looks,
        prediction_loss_only=True,
        save_strategy="steps",
        save_steps=between_looks,
        save_total_limit=MOST_KEPT,
        load_best_model_at_end=has_validation,
        metric_for_best_model="loss" if has_validation else None,
        restore_callback_states_from_checkpoint=True,
        report_to="none",
        disable_tqdm=True,
        logging_steps=1,
        logging_nan_inf_filter=False,
        include_num_input_tokens_seen="non_padding",
    )
    if job.method == "dpo":
        return DPOConfig(**shared, beta=parameters.preference.beta)
    return SFTConfig(**shared, neftune_noise_alpha=parameters.neftune_noise_alpha)


def resources(meter: EnergyMeter) -> dict[str, Any]:
    """What all processes have used: ``energy_wh``, and ``peak_memory_mib`` as in the manifest.

    That is the sum of their main memories, and the most that one of them has held on its GPU.
    """
    here = {"energy_wh": meter.watt_hours(), **peak_memory_mib()}
    each: list[dict[str, Any]] = gather_object([here])
    return {
        "energy_wh": sum(process["energy_wh"] for process in each),
        "peak_memory_mib": {
            "main": sum(process["main"] for process in each),
            "gpu": max(process["gpu"] for process in each),
        },
    }


def peak_memory_mib() -> dict[str, int]:
    """The most main and GPU memory that this process has held."""
    gpu = torch.cuda.max_memory_allocated() // 2**20 if torch.cuda.is_available() else 0
    if sys.platform == "linux":
        # ru_maxrss begins with what the parent held when it forked.
        status = Path("/proc/self/status").read_text(encoding="ascii")
        return {"main": int(status.split("VmHWM:")[1].split()[0]) // 2**10, "gpu": gpu}
    return {"main": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 2**20, "gpu": gpu}
