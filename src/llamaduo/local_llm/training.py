"""Fine-tuning in a process of its own, which gives all its memory back and may crash alone."""

from __future__ import annotations

import atexit
import dataclasses
import hashlib
import importlib.metadata
import json
import logging
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any, Literal

import pandas as pd

from llamaduo.local_llm.accelerate_config import AccelerateConfig
from llamaduo.local_llm.base_model import BaseModelSpec, compute_dtype, device
from llamaduo.local_llm.checkpoints import (
    FINISHED,
    drop_incomplete,
    latest_checkpoint,
    open_checkpoints,
    step_of,
)
from llamaduo.parameters import FineTuningParameters, PreferenceParameters, for_iteration

logger = logging.getLogger(__name__)

JOB_FILE = "job.json"
PAIRS_FILE = "pairs.jsonl"
ERROR_FILE = "error.txt"
TRACE_FILE = "trace.txt"
ADAPTER_FOLDER = "adapter"
LOG_FILE = "training_log.jsonl"
WEIGHTS_FILE = "adapter_model.safetensors"
COLUMNS = [
    *("id", "system", "prompt", "response", "validation"),
    *("chosen", "rejected", "rejected_finished"),
]
"""Of a pair, as far as it has them: what the training process is told."""

Method = Literal["sft", "dpo"]
"""``sft`` learns responses, ``dpo`` to prefer one response over another (Rafailov et al. 2023)."""

INDECISIVE = ("preference", "start", "replay_share", "validation_share", "max_too_long")
"""Parameters that decide nothing, or by the pairs alone."""
_KILL_AFTER_S = 10


class TrainingError(Exception):
    """Training cannot start or go on; the message says why and what to do."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainingJob:
    """What the training process is told, besides its pairs."""

    base_model: BaseModelSpec
    parameters: FineTuningParameters
    iteration: int
    """Chooses among the parameters that differ by iteration."""
    start: Path | None
    """The adapter to go on from; None begins a fresh one."""
    checkpoints: Path
    """The folder of this training's checkpoints."""
    training_data: dict[str, Any]
    """What the adapter has learned from, for its manifest."""
    processes: int = 1
    """That train together, each on its own part of a batch."""
    method: Method = "sft"

    @property
    def learning_rate(self) -> float:
        """The highest of this training."""
        return for_iteration(self._schedule.learning_rate, self.iteration)

    @property
    def epochs(self) -> float:
        """The passes over the pairs that this training asks for."""
        return for_iteration(self._schedule.epochs, self.iteration)

    @property
    def _schedule(self) -> FineTuningParameters | PreferenceParameters:
        return self.parameters.preference if self.method == "dpo" else self.parameters

    @property
    def settings(self) -> dict[str, Any]:
        """The parameters with the values of this iteration."""
        resolved = {"learning_rate": self.learning_rate, "epochs": self.epochs}
        return {**self.parameters.model_dump(mode="json"), **resolved}

    def write(self, file: Path) -> None:
        """Write the job as JSON."""
        job = {
            "base_model": dataclasses.asdict(self.base_model),
            "parameters": self.parameters.model_dump(mode="json"),
            "iteration": self.iteration,
            "start": None if self.start is None else str(self.start),
            "checkpoints": str(self.checkpoints),
            "training_data": self.training_data,
            "processes": self.processes,
            "method": self.method,
        }
        file.write_text(json.dumps(job, indent=2), encoding="utf-8")

    @classmethod
    def read(cls, file: Path) -> TrainingJob:
        """Read what ``write`` has written."""
        job = json.loads(file.read_text(encoding="utf-8"))
        return cls(
            base_model=BaseModelSpec(**job["base_model"]),
            parameters=FineTuningParameters.model_validate(job["parameters"]),
            iteration=job["iteration"],
            start=None if job["start"] is None else Path(job["start"]),
            checkpoints=Path(job["checkpoints"]),
            training_data=job["training_data"],
            processes=job["processes"],
            method=job["method"],
        )


def train(
    base_model: BaseModelSpec,
    pairs: pd.DataFrame,
    start: Path | None,
    checkpoints: Path,
    parameters: FineTuningParameters,
    iteration: int,
    training_data: dict[str, Any],
    method: Method = "sft",
) -> Path:
    """Fine-tune an adapter on pairs; equal input gives equal weights on the same machine.

    What was interrupted goes on from its last whole checkpoint, to the same weights.

    Args:
        base_model: What the adapter is trained for; relative paths are relative to the working
            directory.
        pairs: Columns ``prompt``, ``response`` and optionally ``id``, ``system`` and
            ``validation`` (True for what is never trained on); for DPO ``PreferencePairs``. Their
            order is shuffled by the seed.
        start: The adapter to go on from, for DPO also the reference policy; None begins a fresh
            one.
        checkpoints: The folder in which each training keeps its checkpoints in one of its own.
        training_data: What it has learned from in all, with that of ``start``; the manifest holds
            it as it is.

    Returns:
        The folder ``adapter``, alone in a temporary folder that goes at the latest when this
        process ends, with ``adapter_model.safetensors``, ``adapter_config.json``,
        ``training_log.jsonl`` (``TrainingLog``, a line a step) and ``manifest.json``.

    Raises:
        TrainingError: The process has failed; the message carries its last error.
    """
    config_file = parameters.accelerate_config
    config = None if config_file is None else AccelerateConfig.read(config_file)
    folder = Path(tempfile.mkdtemp(prefix="llamaduo-training-"))
    try:
        _write_pairs(pairs, folder / PAIRS_FILE)
        job = TrainingJob(
            base_model=base_model,
            parameters=parameters,
            iteration=iteration,
            start=start,
            checkpoints=checkpoints,
            training_data=training_data,
            processes=config.num_processes if config else 1,
            method=method,
        )
        own = open_checkpoints(checkpoints, _digest(job, folder / PAIRS_FILE))
        drop_incomplete(own)
        if checkpoint := latest_checkpoint(own):
            logger.info("training goes on from step %d", step_of(checkpoint))
        job = dataclasses.replace(job, checkpoints=own.absolute())
        job.write(folder / JOB_FILE)
        exit_code = _run_to_its_end(folder, config)
        if exit_code != 0:
            raise TrainingError(_failure(folder, exit_code, job))
        (own / FINISHED).touch()
        (folder / JOB_FILE).unlink()
        (folder / PAIRS_FILE).unlink()
    except BaseException:
        # A process that has outlived its launcher removes it as well.
        shutil.rmtree(folder, ignore_errors=True)
        raise
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder / ADAPTER_FOLDER


def _digest(job: TrainingJob, pairs: Path) -> str:
    """Of all that decides which weights come out, but the machine.

    Of a model folder's files their names, sizes and times count.
    """
    start = job.start and hashlib.sha256((job.start / WEIGHTS_FILE).read_bytes()).hexdigest()
    config = job.parameters.accelerate_config
    launched = config and config.read_text(encoding="utf-8")
    model = [
        (file.name, file.stat().st_size, file.stat().st_mtime_ns)
        for file in sorted(Path(job.base_model.name_or_path).glob("*"))
    ]
    preference = job.parameters.preference.beta if job.method == "dpo" else None
    settings = {name: value for name, value in job.settings.items() if name not in INDECISIVE}
    decisive = [
        dataclasses.asdict(job.base_model),
        model,
        settings,
        job.method,
        preference,
        start,
        launched,
        versions(),
        str(compute_dtype()),
        device().type,
    ]
    content = json.dumps(decisive, sort_keys=True).encode() + pairs.read_bytes()
    return hashlib.sha256(content).hexdigest()[:16]


def versions() -> dict[str, str]:
    """Of the packages that train."""
    packages = ("torch", "transformers", "trl", "peft")
    return {package: importlib.metadata.version(package) for package in packages}


def _write_pairs(pairs: pd.DataFrame, file: Path) -> None:
    pairs[pairs.columns.intersection(COLUMNS)].fillna("").to_json(
        file, orient="records", lines=True
    )


def _run_to_its_end(folder: Path, config: AccelerateConfig | None) -> int:
    """The exit code; whatever interrupts the wait ends the process too."""
    module = "sft" if config is None else "launcher"
    with subprocess.Popen(  # noqa: S603  (our own interpreter and module)
        [sys.executable, "-m", f"llamaduo.local_llm.{module}", str(folder)],
        stdin=subprocess.PIPE,  # never written to: the process ends when this end closes with us
        env=_environment(config),
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


def _environment(config: AccelerateConfig | None) -> dict[str, str]:
    """The environment of the training processes; what the user has set stays."""
    # TRL would tell Hugging Face of each training: its method, the model's kind, the GPU.
    defaults = {"TOKENIZERS_PARALLELISM": "false", "HF_HUB_DISABLE_TELEMETRY": "1"}
    if config is None:
        defaults["CUDA_VISIBLE_DEVICES"] = "0"  # one process drives one GPU
        return {**defaults, **os.environ}
    cores = os.cpu_count() or 1
    defaults["OMP_NUM_THREADS"] = str(max(1, cores // config.num_processes))
    hidden = {"CUDA_VISIBLE_DEVICES": ""} if config.on_cpu else {}
    return {**defaults, **os.environ, **hidden}


def ended_by_signal(process: str, number: int, checkpoints: Path) -> str:
    """Say how a process ended, and where another run goes on."""
    name = signal.Signals(number).name
    hint = " (out of memory?)" if name == "SIGKILL" else ""
    checkpoint = latest_checkpoint(checkpoints)
    place = f"after step {step_of(checkpoint)}" if checkpoint else "at the first step"
    return f"{process} was ended by {name}{hint}; run again, and it goes on {place}"


def _failure(folder: Path, exit_code: int, job: TrainingJob) -> str:
    if exit_code < 0:
        return ended_by_signal("the training process", -exit_code, job.checkpoints)
    error_file = folder / ERROR_FILE
    if not error_file.exists():
        return f"the training process ended with exit code {exit_code}; its output is above"
    if (folder / TRACE_FILE).exists():
        sys.stderr.write((folder / TRACE_FILE).read_text(encoding="utf-8"))
    reason = error_file.read_text(encoding="utf-8")
    if job.processes > 1:
        return reason
    return f"{reason} (exit code {exit_code} of the training process)"
