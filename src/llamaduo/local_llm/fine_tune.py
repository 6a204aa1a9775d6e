"""LoRA on prompt-response pairs with TRL; runs in the training process."""

from __future__ import annotations

import dataclasses
import hashlib
import importlib.metadata
import json
import logging
import resource
import sys
import time
from pathlib import Path
from typing import Any, cast

import torch
from datasets import Dataset
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import (
    PreTrainedModel,
    PreTrainedTokenizerBase,
    PrinterCallback,
    set_seed,
)
from trl import SFTConfig

from llamaduo.local_llm.base_model import (
    compute_dtype,
    device,
    load_model,
    load_tokenizer,
    stop_token_ids,
)
from llamaduo.local_llm.chat import encode_pair, to_messages
from llamaduo.local_llm.trainer import IGNORED, TrainingWatch, trainer_class
from llamaduo.local_llm.training import TrainingError, TrainingJob, TrainingSettings
from llamaduo.progress import ProgressDisplay

logger = logging.getLogger(__name__)

Row = dict[str, list[int]]
"""``input_ids`` and ``labels`` of a pair, equally long."""


def fine_tune(job: TrainingJob, pairs: list[dict[str, str]], adapter_folder: Path) -> None:
    """Train an adapter and write it, its log and its manifest into a new folder.

    Args:
        pairs: ``prompt``, ``response`` and optionally ``system``.

    Raises:
        TrainingError: Nothing to train on, an adapter that does not fit the settings, or a loss
            that runs away.
    """
    started = time.perf_counter()
    arguments = training_arguments(job.settings, adapter_folder)
    tokenizer = load_tokenizer(job.base_model)
    base = load_model(job.base_model)
    rows = encode_rows(tokenizer, pairs, stop_token_ids(base, tokenizer))
    kept = short_enough(rows, job.settings.max_length)
    model = adapted(base, job)
    trainer = trainer_class()(
        model=model,
        args=arguments,
        train_dataset=Dataset.from_list(kept),
        processing_class=tokenizer,
    )
    trainer.remove_callback(PrinterCallback)  # would print a dict a step
    with ProgressDisplay("training") as display:
        watch = TrainingWatch(display, vocabulary=len(tokenizer))
        trainer.add_callback(watch)
        trainer.train()

    save_adapter(model, job, adapter_folder)
    log = "".join(json.dumps(step) + "\n" for step in watch.log)
    (adapter_folder / "training_log.jsonl").write_text(log, encoding="utf-8")
    manifest = {
        **describe(job, adapter_folder),
        "rows": len(kept),
        "rows_too_long": len(rows) - len(kept),
        "steps": trainer.state.global_step,
        "seconds": round(time.perf_counter() - started, 1),
        "peak_memory_mib": peak_memory_mib(),
    }
    (adapter_folder / "manifest.json").write_text(json.dumps(manifest, indent=2), encoding="utf-8")


def encode_rows(
    tokenizer: PreTrainedTokenizerBase, pairs: list[dict[str, str]], stop_tokens: list[int]
) -> list[Row]:
    """Tokens of each pair; the labels leave out the prompt.

    Raises:
        TrainingError: A response does not end with a stop token, so that the model would never
            learn to stop.
    """
    rows = []
    for pair in pairs:
        messages = to_messages(pair.get("system"), pair["prompt"])
        prompt_ids, response_ids = encode_pair(tokenizer, messages, pair["response"])
        if not set(stop_tokens) & set(response_ids):
            names = ", ".join(str(tokenizer.convert_ids_to_tokens(token)) for token in stop_tokens)
            raise TrainingError(
                f"the chat template of {tokenizer.name_or_path} ends a response with none of the "
                f"model's stop tokens ({names}), so that it would never learn to stop; put the "
                "template's end of turn into eos_token_id of its generation_config.json"
            )
        labels = [IGNORED] * len(prompt_ids) + response_ids
        rows.append({"input_ids": prompt_ids + response_ids, "labels": labels})
    return rows


def short_enough(rows: list[Row], max_length: int) -> list[Row]:
    """The rows of at most ``max_length`` tokens; how many are left out is said.

    Raises:
        TrainingError: None is left.
    """
    kept = [row for row in rows if len(row["input_ids"]) <= max_length]
    if not rows:
        raise TrainingError("there are no pairs to train on")
    if not kept:
        raise TrainingError(
            f"all {len(rows)} pairs are longer than max_length ({max_length} tokens); raise it"
        )
    if len(kept) < len(rows):
        logger.warning(
            "%d of %d pairs are longer than max_length (%d tokens) and left out",
            len(rows) - len(kept),
            len(rows),
            max_length,
        )
    return kept


def training_arguments(settings: TrainingSettings, folder: Path) -> SFTConfig:
    """TRL's arguments; what is not a setting is the choice of this project."""
    on_gpu = torch.cuda.is_available()
    return SFTConfig(
        output_dir=str(folder),
        learning_rate=settings.learning_rate,
        num_train_epochs=settings.epochs,
        per_device_train_batch_size=settings.batch_size,
        gradient_accumulation_steps=settings.gradient_accumulation_steps,
        warmup_steps=settings.warmup,  # below 1 it is a share of all steps
        lr_scheduler_type="cosine",
        seed=settings.seed,
        data_seed=settings.seed,
        bf16=compute_dtype() is torch.bfloat16,
        use_cpu=not on_gpu,
        dataloader_pin_memory=on_gpu,
        # Trades time for memory, which is scarce on a GPU only.
        activation_checkpointing=on_gpu,
        gradient_checkpointing=None,  # type: ignore[arg-type]  # the old name, on in TRL
        max_length=None,  # longer rows are left out before, never cut
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
        logging_steps=1,
        logging_nan_inf_filter=False,
        include_num_input_tokens_seen="non_padding",
    )


def adapted(model: PreTrainedModel, job: TrainingJob) -> PeftModel:
    """The base model with the start adapter, or with a fresh one drawn from the seed."""
    settings = job.settings
    if job.start is None:
        set_seed(settings.seed)
        fresh = LoraConfig(
            r=settings.lora_rank,
            lora_alpha=settings.lora_alpha,
            lora_dropout=settings.lora_dropout,
            target_modules=settings.target_modules,
            task_type="CAUSAL_LM",
        )
        return get_peft_model(model, fresh)
    continued = PeftModel.from_pretrained(model, str(job.start), is_trainable=True)
    config = cast(LoraConfig, continued.peft_config["default"])
    trained_for, base = config.base_model_name_or_path, job.base_model.portable_name
    if trained_for != base:
        raise TrainingError(
            f"the adapter to go on from was trained for {trained_for}, the base model is {base}; "
            "use the same, or start from the base model"
        )
    found = (config.r, config.lora_alpha, config.lora_dropout)
    wanted = (settings.lora_rank, settings.lora_alpha, settings.lora_dropout)
    if found != wanted:
        raise TrainingError(
            f"the adapter to go on from has lora_rank, lora_alpha and lora_dropout {found}, the "
            f"settings have {wanted}; use the same, or start from the base model"
        )
    return continued


def save_adapter(model: PeftModel, job: TrainingJob, folder: Path) -> None:
    """Write the weights and a config that reads the same wherever and whenever it is written."""
    model.save_pretrained(str(folder), save_embedding_layers=False)
    (folder / "README.md").unlink()  # PEFT's empty model card, with this machine's paths
    file = folder / "adapter_config.json"
    config = json.loads(file.read_text(encoding="utf-8"))
    config["base_model_name_or_path"] = job.base_model.portable_name
    if isinstance(config["target_modules"], list):
        config["target_modules"].sort()  # PEFT keeps a set
    file.write_text(json.dumps(config, indent=2, sort_keys=True), encoding="utf-8")


def describe(job: TrainingJob, folder: Path) -> dict[str, Any]:
    """What the adapter in a folder was made from and with, and the hash of its weights."""
    weights = (folder / "adapter_model.safetensors").read_bytes()
    return {
        "base_model": {
            "name_or_path": job.base_model.portable_name,
            "revision": job.base_model.revision,
            "load_in_4bit": job.base_model.load_in_4bit,
        },
        "training_data": job.training_data,
        "settings": dataclasses.asdict(job.settings),
        "started_from_adapter": job.start is not None,
        "dtype": str(compute_dtype()).removeprefix("torch."),
        "device": device().type,
        "versions": {
            package: importlib.metadata.version(package)
            for package in ("torch", "transformers", "trl", "peft")
        },
        "sha256": hashlib.sha256(weights).hexdigest(),
    }


def peak_memory_mib() -> dict[str, int]:
    """The most main and GPU memory that this process has held."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    main = peak // 2**20 if sys.platform == "darwin" else peak // 2**10  # bytes there, KiB here
    gpu = torch.cuda.max_memory_allocated() // 2**20 if torch.cuda.is_available() else 0
    return {"main": main, "gpu": gpu}
