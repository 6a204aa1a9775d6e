"""The training process: ``python -m llamaduo.local_llm.sft FOLDER``, started by ``training``."""

from __future__ import annotations

import json
import logging
import os
import shutil
import sys
import threading
import traceback
import warnings
from contextlib import suppress
from pathlib import Path
from types import TracebackType

from llamaduo.local_llm.base_model import silence_known_noise
from llamaduo.local_llm.training import (
    ADAPTER_FOLDER,
    ERROR_FILE,
    JOB_FILE,
    PAIRS_FILE,
    TRACE_FILE,
    TrainingError,
    TrainingJob,
)


def main(folder: Path) -> None:
    """Train what the folder's job asks for, and leave the adapter in it."""
    threading.Thread(target=end_with_the_parent, args=[folder], daemon=True).start()
    leave_the_first_error(folder)
    job = TrainingJob.read(folder / JOB_FILE)
    _require_processes(job)
    silence_known_noise()
    if _rank() > 0:  # the first process speaks for all
        logging.disable()
        warnings.simplefilter("ignore")

    # Only now, so that the thread and the hook above watch over these seconds too.
    from llamaduo.local_llm.fine_tune import fine_tune

    with (folder / PAIRS_FILE).open(encoding="utf-8") as lines:
        pairs = [json.loads(line) for line in lines]
    fine_tune(job, pairs, folder / ADAPTER_FOLDER)


def end_with_the_parent(folder: Path) -> None:
    """End at the end of standard input, which the parent holds open for as long as it lives."""
    # Not sys.stdin: at a normal end the interpreter would wait for the lock that its read holds.
    os.read(0, 1)
    # Nobody is left to remove it, and the main thread may be writing there meanwhile.
    for _ in range(10):
        shutil.rmtree(folder, ignore_errors=True)
    os._exit(1)


def _rank() -> int:
    """Of this process among those of the training, from 0."""
    return int(os.environ.get("RANK", "0"))


def _require_processes(job: TrainingJob) -> None:
    """A launcher that runs fewer processes than it was asked for does not say so."""
    running = int(os.environ.get("WORLD_SIZE", "1"))
    if running != job.processes:
        raise TrainingError(
            f"asked for {job.processes} training processes, {running} run; see distributed_type "
            "and num_processes in fine_tuning.accelerate_config, and WORLD_SIZE in the environment"
        )


def leave_the_first_error(folder: Path) -> None:
    """Write down with what this process ends, unless another has failed before it."""

    def write(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        foreseen = issubclass(kind, TrainingError)
        # Where the parent is interrupted it removes the folder.
        with suppress(FileExistsError, FileNotFoundError):
            with (folder / ERROR_FILE).open("x", encoding="utf-8") as file:
                file.write(str(error) if foreseen else f"{kind.__name__}: {error}")
            if not foreseen:
                lines = traceback.format_exception(kind, error, trace)
                (folder / TRACE_FILE).write_text("".join(lines), encoding="utf-8")
        os._exit(1)  # other threads may wait for processes that have ended

    sys.excepthook = write


if __name__ == "__main__":
    main(Path(sys.argv[1]))
    sys.stderr.flush()
    # All is written. While the interpreter ends, gloo's threads sometimes abort the process.
    os._exit(0)
