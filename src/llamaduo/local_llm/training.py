"""Fine-tuning in a process of its own, which gives all its memory back and may crash alone."""

from __future__ import annotations

import atexit
import dataclasses
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import pandas as pd

from llamaduo.local_llm.base_model import BaseModelSpec

JOB_FILE = "job.json"
PAIRS_FILE = "pairs.jsonl"
ERROR_FILE = "error.txt"
ADAPTER_FOLDER = "adapter"

_KILL_AFTER_S = 10


class TrainingError(Exception):
    """Training cannot start or go on; the message says why and what to do."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainingSettings:
    """How an adapter is trained; names as in PEFT's ``LoraConfig`` and TRL's ``SFTConfig``."""

    learning_rate: float
    """The highest of the schedule."""
    epochs: float
    batch_size: int
    """Pairs per step and device."""
    gradient_accumulation_steps: int
    warmup: float
    """Share of the steps in which the learning rate rises."""
    max_length: int
    """Tokens of prompt and response together; a longer pair is left out and counted."""
    lora_rank: int
    lora_alpha: int
    lora_dropout: float
    target_modules: str | list[str]
    seed: int


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainingJob:
    """What the training process is told, besides its pairs."""

    base_model: BaseModelSpec
    settings: TrainingSettings
    start: Path | None
    """The adapter to go on from; None begins a fresh one."""
    training_data: dict[str, Any]
    """What the adapter has learned from, for its manifest."""

    def write(self, file: Path) -> None:
        """Write the job as JSON."""
        start = None if self.start is None else str(self.start)
        job = {**dataclasses.asdict(self), "start": start}
        file.write_text(json.dumps(job, indent=2), encoding="utf-8")

    @classmethod
    def read(cls, file: Path) -> TrainingJob:
        """Read what ``write`` has written."""
        job = json.loads(file.read_text(encoding="utf-8"))
        return cls(
            base_model=BaseModelSpec(**job["base_model"]),
            settings=TrainingSettings(**job["settings"]),
            start=None if job["start"] is None else Path(job["start"]),
            training_data=job["training_data"],
        )


def train(
    base_model: BaseModelSpec,
    pairs: pd.DataFrame,
    start: Path | None,
    settings: TrainingSettings,
    training_data: dict[str, Any],
) -> Path:
    """Fine-tune an adapter on pairs; equal input gives equal weights on the same machine.

    Args:
        base_model: What the adapter is trained for; relative paths are relative to the working
            directory.
        pairs: Columns ``prompt``, ``response`` and optionally ``system``; their order is shuffled
            by the seed.
        start: The adapter to go on from; None begins a fresh one.
        training_data: What it has learned from in all, with that of ``start``; the manifest holds
            it as it is.

    Returns:
        The folder ``adapter``, alone in a temporary folder that goes at the latest when this
        process ends, with ``adapter_model.safetensors``, ``adapter_config.json``,
        ``training_log.jsonl`` (one line a step: ``step, epoch, loss, learning_rate, grad_norm,
        seconds, tokens``; seconds and tokens since the start) and ``manifest.json``.

    Raises:
        TrainingError: The process has failed; the message carries its last error.
    """
    folder = Path(tempfile.mkdtemp(prefix="llamaduo-training-"))
    try:
        job = TrainingJob(
            base_model=base_model, settings=settings, start=start, training_data=training_data
        )
        job.write(folder / JOB_FILE)
        _write_pairs(pairs, folder / PAIRS_FILE)
        exit_code = _run_to_its_end(folder)
        if exit_code != 0:
            raise TrainingError(_failure(folder, exit_code))
        (folder / JOB_FILE).unlink()
        (folder / PAIRS_FILE).unlink()
    except BaseException:
        shutil.rmtree(folder)
        raise
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder / ADAPTER_FOLDER


def _write_pairs(pairs: pd.DataFrame, file: Path) -> None:
    columns = ["prompt", "response", *(["system"] if "system" in pairs.columns else [])]
    pairs[columns].fillna("").to_json(file, orient="records", lines=True)


def _run_to_its_end(folder: Path) -> int:
    """The exit code; whatever interrupts the wait ends the process too."""
    with subprocess.Popen(  # noqa: S603  (our own interpreter and module)
        [sys.executable, "-m", "llamaduo.local_llm.sft", str(folder)],
        stdin=subprocess.PIPE,  # never written to: the process ends when this end closes with us
        env=_environment(),
        process_group=0,  # Ctrl-C reaches this process alone, which then decides for both
    ) as process:
        try:
            return process.wait()
        except BaseException:
            _end(process)
            raise


def _end(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(_KILL_AFTER_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _environment() -> dict[str, str]:
    """The environment of the training process; what the user has set stays."""
    defaults = {
        "TOKENIZERS_PARALLELISM": "false",
        "CUDA_VISIBLE_DEVICES": "0",  # one process drives one GPU
    }
    return {**defaults, **os.environ}


def _failure(folder: Path, exit_code: int) -> str:
    if exit_code < 0:
        name = signal.Signals(-exit_code).name
        hint = " (out of memory?)" if name == "SIGKILL" else ""
        return f"the training process was ended by {name}{hint}"
    error_file = folder / ERROR_FILE
    if not error_file.exists():
        return f"the training process ended with exit code {exit_code}; its output is above"
    reason = error_file.read_text(encoding="utf-8")
    return f"{reason} (exit code {exit_code} of the training process)"
