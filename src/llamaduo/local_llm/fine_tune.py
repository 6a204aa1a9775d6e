"""LoRA on pairs with TRL, by SFT or DPO; runs in the training process."""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import logging
import math
import resource
import shutil
import sys
import time
from pathlib import Path
from typing import Any, cast

import torch
from accelerate import PartialState
from accelerate.utils import gather_object
from datasets import Dataset
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import (
    EarlyStoppingCallback,
    PreTrainedModel,
    PrinterCallback,
    TrainerState,
    set_seed,
)
from transformers.integrations import is_deepspeed_zero3_enabled
from trl import DPOConfig, SFTConfig

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
from llamaduo.local_llm.rows import encode_preferences, encode_rows, short_enough
from llamaduo.local_llm.trainer import TrainingWatch, Watched, trainer_class
from llamaduo.local_llm.training import LOG_FILE, WEIGHTS_FILE, TrainingError, TrainingJob
from llamaduo.progress import ProgressDisplay

logger = logging.getLogger(__name__)

CONFIG_FILE = "adapter_config.json"
MOST_KEPT = 2
"""Checkpoints besides the best one: the last, and the one that is being written."""


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
    kept = short_enough(rows, job.parameters.max_length)
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
    model = adapted(base, job)
    trainer = trainer_class(job.method)(
        model=model,
        args=arguments,
        train_dataset=Dataset.from_list(training),
        eval_dataset=Dataset.from_list(validation) if validation else None,
        processing_class=tokenizer,
    )
    trainer.remove_callback(PrinterCallback)  # would print a dict a step
    if validation:
        trainer.add_callback(EarlyStoppingCallback(job.parameters.patience))
    first = PartialState().is_main_process
    with ProgressDisplay("training", quiet=not first) as display:
        trainer.add_callback(TrainingWatch(display, len(tokenizer), trainer))
        run(trainer, model, latest_checkpoint(job.checkpoints))
    used = resources(meter)
    PartialState().destroy_process_group()  # its threads would abort a process that ends
    if first:
        gathered = written_by(trainer.state, job) if is_shared() else None
        save_adapter(model, job, adapter_folder, gathered)
        beta = job.parameters.preference.beta
        write_log(trainer.state, beta, adapter_folder / LOG_FILE)
        manifest = {
            **describe(job, adapter_folder),
            "vocabulary": base.config.get_text_config().vocab_size,
            "rows": len(training),
            "rows_validation": len(validation),
            "rows_too_long": len(rows) - len(kept),
            "steps": trainer.state.global_step,
            "best_step": trainer.state.best_global_step or trainer.state.global_step,
            "validation_loss": trainer.state.best_metric,
            **final_rewards(trainer.state, beta),
            "tokens": trainer.state.num_input_tokens_seen,
            "seconds": round(time.perf_counter() - started, 1),
            "processes": job.processes,
            **used,
        }
        (adapter_folder / "manifest.json").write_text(
            json.dumps(manifest, indent=2), encoding="utf-8"
        )


def run(trainer: Watched, model: PeftModel, checkpoint: Path | None) -> None:
    """Train from the beginning or from a checkpoint; a training that had ended stays as it was."""
    if checkpoint is None:
        trainer.train()
        return
    state = TrainerState.load_from_json(str(checkpoint / "trainer_state.json"))
    if not has_ended(state):
        trainer.train(resume_from_checkpoint=str(checkpoint))
        return
    # Resumed, the trainer would take another step before it looks whether there is one to take.
    trainer.state = state
    if not is_shared():
        model.load_adapter(state.best_model_checkpoint or str(checkpoint), "default")


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
    parameters = job.parameters
    per_step = parameters.batch_size * parameters.gradient_accumulation_steps * processes
    steps = round(job.epochs * math.ceil(rows / per_step))
    return min(max(steps, parameters.min_steps), parameters.max_steps)


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


def write_log(state: TrainerState, beta: float, file: Path) -> None:
    """The log as JSON lines, one a step: ``TrainingLog``."""
    steps: dict[float, dict[str, Any]] = {}
    for entry in state.log_history:
        if "loss" in entry:
            steps[entry["step"]] = {
                "step": entry["step"],
                "epoch": round(entry["epoch"], 4),
                "loss": entry["loss"],
                "validation_loss": None,
                "learning_rate": entry["learning_rate"],
                "grad_norm": entry["grad_norm"],
                "seconds": entry["seconds"],
                "tokens": entry["num_input_tokens_seen"],
                **rewards(entry, beta),
            }
        elif "eval_loss" in entry:
            steps[entry["step"]]["validation_loss"] = entry["eval_loss"]
    lines = "".join(json.dumps(step) + "\n" for step in steps.values())
    file.write_text(lines, encoding="utf-8")


def rewards(entry: dict[str, Any], beta: float, prefix: str = "") -> dict[str, float | None]:
    """Of an entry of TRL's log what DPO adds to it: ``TrainingLog``; null for SFT.

    A reward is beta times the log ratio of the adapter and the one that it started from. The one
    that it started from has drawn the rejected responses, so that their mean log ratio, turned
    round, estimates KL(start ‖ now).
    """
    rejected = entry.get(f"{prefix}rewards/rejected")
    return {
        "reward_margin": entry.get(f"{prefix}rewards/margins"),
        "reward_accuracy": entry.get(f"{prefix}rewards/accuracies"),
        "kl": None if rejected is None else 0.0 - rejected / beta,  # no minus zero
    }


def final_rewards(state: TrainerState, beta: float) -> dict[str, float | None]:
    """``rewards`` of the adapter that is kept: on the validation pairs, else in the last step."""
    best = [
        entry
        for entry in state.log_history
        if "eval_loss" in entry and entry["step"] == state.best_global_step
    ]
    if best:
        return rewards(best[-1], beta, "eval_")
    return rewards([entry for entry in state.log_history if "loss" in entry][-1], beta)


def adapted(model: PreTrainedModel, job: TrainingJob) -> PeftModel:
    """The base model with the start adapter, or with a fresh one drawn from the seed."""
    settings = job.parameters
    # Beside bfloat16 weights ZeRO-3 cannot gather them
    # (https://github.com/deepspeedai/DeepSpeed/issues/8072).
    in_float32 = job.base_model.load_in_4bit or not is_deepspeed_zero3_enabled()
    if job.start is None:
        set_seed(settings.seed)
        fresh = LoraConfig(
            r=settings.lora_rank,
            lora_alpha=settings.lora_alpha,
            lora_dropout=settings.lora_dropout,
            target_modules=settings.target_modules,
            use_rslora=settings.use_rslora,
            use_dora=settings.use_dora,
            task_type="CAUSAL_LM",
        )
        return get_peft_model(model, fresh, autocast_adapter_dtype=in_float32)
    continued = PeftModel.from_pretrained(
        model, str(job.start), is_trainable=True, autocast_adapter_dtype=in_float32
    )
    config = cast(LoraConfig, continued.peft_config["default"])
    trained_for, base = config.base_model_name_or_path, job.base_model.portable_name
    if trained_for != base:
        raise TrainingError(
            f"the adapter to go on from was trained for {trained_for}, the base model is {base}; "
            "use the same, or start from the base model"
        )
    names = ("lora_rank", "lora_alpha", "lora_dropout", "use_rslora", "use_dora")
    found = (config.r, *(getattr(config, name) for name in names[1:]))
    wanted = tuple(getattr(settings, name) for name in names)
    if found != wanted:
        raise TrainingError(
            f"the adapter to go on from has {', '.join(names)} {found}, the parameters have "
            f"{wanted}; use the same, or start from the base model"
        )
    # At each save PEFT looks there for the base model, and on the hub where it finds none.
    config.base_model_name_or_path = job.base_model.name_or_path
    return continued


def written_by(state: TrainerState, job: TrainingJob) -> Path:
    """The checkpoint of the adapter that a training has come to."""
    last = job.checkpoints / f"checkpoint-{state.global_step}"
    return Path(state.best_model_checkpoint or last)


def save_adapter(
    model: PeftModel, job: TrainingJob, folder: Path, checkpoint: Path | None = None
) -> None:
    """Write the weights and a config that reads the same wherever and whenever it is written.

    Args:
        checkpoint: Where the trainer has gathered the weights of which this process has a part.
    """
    if checkpoint is None:
        # Only this one: beside it DPO keeps the one that it started from.
        model.save_pretrained(
            str(folder), selected_adapters=["default"], save_embedding_layers=False
        )
        (folder / "README.md").unlink()  # PEFT's empty model card, with this machine's paths
    else:
        folder.mkdir()
        for name in (WEIGHTS_FILE, CONFIG_FILE):
            shutil.copyfile(checkpoint / name, folder / name)
    file = folder / CONFIG_FILE
    config = json.loads(file.read_text(encoding="utf-8"))
    config["base_model_name_or_path"] = job.base_model.portable_name
    if isinstance(config["target_modules"], list):
        config["target_modules"].sort()  # PEFT keeps a set
    file.write_text(json.dumps(config, indent=2, sort_keys=True), encoding="utf-8")


def describe(job: TrainingJob, folder: Path) -> dict[str, Any]:
    """What the adapter in a folder was made from and with, and the hash of its weights."""
    weights = (folder / WEIGHTS_FILE).read_bytes()
    return {
        "base_model": {
            "name_or_path": job.base_model.portable_name,
            "revision": job.base_model.revision,
            "load_in_4bit": job.base_model.load_in_4bit,
        },
        "training_data": job.training_data,
        "method": job.method,
        "settings": job.settings,
        "started_from_adapter": job.start is not None,
        "dtype": str(compute_dtype()).removeprefix("torch."),
        "device": device().type,
        "versions": {
            package: importlib.metadata.version(package)
            for package in ("torch", "transformers", "trl", "peft")
        },
        "sha256": hashlib.sha256(weights).hexdigest(),
    }


def resources(meter: EnergyMeter) -> dict[str, Any]:
    """What all processes have used: ``energy_wh``, and ``peak_memory_mib`` as in the manifest.

    That is the sum of their main memories, and the most that one of them has held on its GPU.
    """
    here = {"energy_wh": meter.watt_hours(), **peak_memory_mib()}
    each: list[dict[str, Any]] = gather_object([here])
    return {
        "energy_wh": round(sum(process["energy_wh"] for process in each), 3),
        "peak_memory_mib": {
            "main": sum(process["main"] for process in each),
            "gpu": max(process["gpu"] for process in each),
        },
    }


def peak_memory_mib() -> dict[str, int]:
    """The most main and GPU memory that this process has held."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    main = peak // 2**20 if sys.platform == "darwin" else peak // 2**10  # bytes there, KiB here
    gpu = torch.cuda.max_memory_allocated() // 2**20 if torch.cuda.is_available() else 0
    return {"main": main, "gpu": gpu}
