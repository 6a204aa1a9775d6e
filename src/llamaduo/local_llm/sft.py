"""The training process: ``python -m llamaduo.local_llm.sft FOLDER``, started by ``training``."""

from __future__ import annotations

import json
import os
import shutil
import sys
import threading
from pathlib import Path
from types import TracebackType

from llamaduo.local_llm.base_model import silence_known_noise
from llamaduo.local_llm.training import (
    ADAPTER_FOLDER,
    ERROR_FILE,
    JOB_FILE,
    PAIRS_FILE,
    TrainingError,
    TrainingJob,
)


def main(folder: Path) -> None:
    """Train what the folder's job asks for, and leave the adapter in it."""
    threading.Thread(target=_end_with_the_parent, args=[folder], daemon=True).start()
    _leave_the_last_error(folder / ERROR_FILE)
    silence_known_noise()

    # Only now, so that the thread and the hook above watch over these seconds too.
    from llamaduo.local_llm.fine_tune import fine_tune

    job = TrainingJob.read(folder / JOB_FILE)
    with (folder / PAIRS_FILE).open(encoding="utf-8") as lines:
        pairs = [json.loads(line) for line in lines]
    fine_tune(job, pairs, folder / ADAPTER_FOLDER)


def _end_with_the_parent(folder: Path) -> None:
    """End at the end of standard input, which the parent holds open for as long as it lives."""
    # Not sys.stdin: at a normal end the interpreter would wait for the lock that its read holds.
    os.read(0, 1)
    shutil.rmtree(folder, ignore_errors=True)  # nobody is left to remove it
    os._exit(1)


def _leave_the_last_error(file: Path) -> None:
    def write(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        if issubclass(kind, TrainingError):
            file.write_text(str(error), encoding="utf-8")
            return
        file.write_text(f"{kind.__name__}: {error}", encoding="utf-8")
        sys.__excepthook__(kind, error, trace)

    sys.excepthook = write


if __name__ == "__main__":
    main(Path(sys.argv[1]))
