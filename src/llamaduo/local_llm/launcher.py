"""Several training processes: ``python -m llamaduo.local_llm.launcher FOLDER``."""

from __future__ import annotations

import logging
import signal
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

from accelerate.commands.launch import launch_command, launch_command_parser
from torch.distributed import run as torchrun
from torch.distributed.elastic.multiprocessing import SignalException
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError

from llamaduo.local_llm.accelerate_config import AccelerateConfig
from llamaduo.local_llm.sft import end_with_the_parent, leave_the_first_error
from llamaduo.local_llm.training import (
    ERROR_FILE,
    JOB_FILE,
    TRACE_FILE,
    TrainingJob,
    ended_by_signal,
)

TRAINING = "llamaduo.local_llm.sft"
ECHOES = {signal.SIGTERM, signal.SIGABRT}
"""How a process may end because another has failed."""


def main(folder: Path) -> None:
    """Run as many training processes as the folder's job asks for; leave one error if they fail."""
    threading.Thread(target=end_with_the_parent, args=[folder], daemon=True).start()
    leave_the_first_error(folder)
    logging.disable()  # the launchers tell of each process that they end
    job = TrainingJob.read(folder / JOB_FILE)
    try:
        # torchrun leaves a folder behind.
        with tempfile.TemporaryDirectory(dir=folder) as tempfile.tempdir:
            launch(job, folder)
    except SignalException as error:  # its processes have ended
        signal.signal(error.sigval, signal.SIG_DFL)
        signal.raise_signal(error.sigval)
    except ChildFailedError as error:
        leave_one_error(job, folder, {n: each.exitcode for n, each in error.failures.items()})
    except subprocess.CalledProcessError as error:
        leave_one_error(job, folder, {0: error.returncode})


def launch(job: TrainingJob, folder: Path) -> None:
    """Run the processes to their end."""
    file = job.parameters.accelerate_config
    assert file is not None  # noqa: S101  (the parameters see to it)
    if AccelerateConfig.read(file).on_cpu:
        # accelerate launch would run one process on a CPU, whatever num_processes says.
        here = ["--standalone", "--local-addr=127.0.0.1", f"--nproc-per-node={job.processes}"]
        torchrun.run(torchrun.parse_args([*here, "--module", TRAINING, str(folder)]))
    else:
        command = ["--config_file", str(file), "--module", TRAINING, str(folder)]
        launch_command(launch_command_parser().parse_args(command))


def leave_one_error(job: TrainingJob, folder: Path, exit_codes: dict[int, int]) -> None:
    """End, with the cause in the error file: what a process leaves there is often its echo.

    Args:
        exit_codes: Of the processes that did not end well, by rank; negative is a signal.
    """
    error_file = folder / ERROR_FILE
    signals = {rank: -code for rank, code in exit_codes.items() if code < 0}
    killed = [rank for rank, number in signals.items() if number not in ECHOES]
    if signals and not (killed or error_file.exists()):
        killed = list(signals)
    if killed:
        name = f"rank {killed[0]} of the {job.processes} training processes"
        reason = ended_by_signal(name, signals[killed[0]], job.checkpoints)
        error_file.write_text(reason, encoding="utf-8")
        (folder / TRACE_FILE).unlink(missing_ok=True)
    sys.exit(1)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
