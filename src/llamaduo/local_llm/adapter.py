"""An adapter: made or gone on from, and written with what it was made of."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
from pathlib import Path
from typing import Any, cast

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import PreTrainedModel, TrainerState, set_seed
from transformers.integrations import is_deepspeed_zero3_enabled
from transformers.pytorch_utils import Conv1D

from llamaduo.local_llm.base_model import compute_dtype, device
from llamaduo.local_llm.layers import ADAPTED_LAYERS
from llamaduo.local_llm.training import WEIGHTS_FILE, TrainingError, TrainingJob, versions

CONFIG_FILE = "adapter_config.json"


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
        fresh._register_custom_module(ADAPTED_LAYERS)
        return get_peft_model(model, fresh, autocast_adapter_dtype=in_float32)
    modules = adapted_modules(model, settings.target_modules)
    config = cast(LoraConfig, LoraConfig.from_pretrained(str(job.start)))
    config._register_custom_module(ADAPTED_LAYERS)
    continued = PeftModel.from_pretrained(
        model,
        str(job.start),
        is_trainable=True,
        config=config,
        autocast_adapter_dtype=in_float32,
    )
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
    if modules != set(cast("list[str]", continued.base_model.targeted_module_names)):
        raise TrainingError(
            "the adapter to go on from changes other modules than target_modules "
            f"({settings.target_modules}) of the parameters says; use the same, or start from the "
            "base model"
        )
    # At each save PEFT looks there for the base model, and on the hub where it finds none.
    config.base_model_name_or_path = job.base_model.name_or_path
    return continued


def adapted_modules(model: PreTrainedModel, target_modules: str | list[str]) -> set[str]:
    """Names of the modules that a fresh adapter of the base model would change."""
    named = dict(model.named_modules())
    if target_modules == "all-linear":
        head = model.get_output_embeddings()
        linear = (torch.nn.Linear, Conv1D)
        return {n for n, m in named.items() if isinstance(m, linear) and m is not head}
    if isinstance(target_modules, str):
        return {name for name in named if re.fullmatch(target_modules, name)}
    return {n for n in named if any(n == t or n.endswith(f".{t}") for t in target_modules)}


def written_by(state: TrainerState, checkpoints: Path) -> Path:
    """The checkpoint of the adapter that a training has come to."""
    # Not best_model_checkpoint, a path from before the project's folder was moved.
    return checkpoints / f"checkpoint-{state.best_global_step or state.global_step}"


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


def describe(job: TrainingJob, model: PeftModel, folder: Path) -> dict[str, Any]:
    """What the adapter in a folder was made from and with, and the hash of its weights."""
    weights = (folder / WEIGHTS_FILE).read_bytes()
    return {
        "base_model": {
            "name_or_path": job.base_model.portable_name,
            "revision": job.base_model.revision,
            "load_in_4bit": job.base_model.load_in_4bit,
            "vocabulary": model.get_input_embeddings().num_embeddings,
        },
        "training_data": job.training_data,
        "method": job.method,
        "settings": job.settings,
        "processes": job.processes,
        "started_from_adapter": job.start is not None,
        "dtype": str(compute_dtype()).removeprefix("torch."),
        "device": device().type,
        "versions": versions(),
        "sha256": hashlib.sha256(weights).hexdigest(),
    }
