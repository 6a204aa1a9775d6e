"""The project's commands: ``kedro run`` repeats the whole loop, a part of it runs once."""

import copy
import sys
from typing import Any

import click
from kedro.framework.cli.project import run as kedro_run
from kedro.io import DatasetError
from kedro.validation.exceptions import ParameterValidationError

from llamaduo.hooks import InputError
from llamaduo.interruption import InterruptedLoop
from llamaduo.ledger import LoopBusyError, UnknownLoopError
from llamaduo.local_llm.training import TrainingError
from llamaduo.service_llm.client import ServiceLLMError

LOOP_RUNNER = "llamaduo.runner.LoopRunner"
SLICES = (
    "pipeline",
    "pipelines",
    "tags",
    "node_names",
    "from_nodes",
    "to_nodes",
    "from_inputs",
    "to_outputs",
    "namespaces",
)
HONEST_MISS = 2
"""Exit code of a loop that ended without reaching its target."""

ERRORS_WITH_A_SENTENCE = (
    DatasetError,
    InputError,
    LoopBusyError,
    ParameterValidationError,
    ServiceLLMError,
    TrainingError,
    UnknownLoopError,
)


@click.group(name="llamaduo")
def cli() -> None:
    """Commands of this project."""


def _run(resume: str | None = None, **options: Any) -> None:
    if options["runner"] is None and not any(options[name] for name in SLICES):
        options["runner"] = LOOP_RUNNER
    if resume:
        if options["runner"] != LOOP_RUNNER:
            raise click.UsageError("--resume goes on with a whole loop; leave out what slices it")
        options["runner_params"] = {**options["runner_params"], "resume": resume}
    try:
        outputs = kedro_run.callback(**options)  # type: ignore[misc]
    except InterruptedLoop as interrupt:
        sys.exit(128 + interrupt.signum)
    except ERRORS_WITH_A_SENTENCE as error:
        raise click.ClickException(str(error)) from error
    verdict = outputs.get("verdict") if options["runner"] == LOOP_RUNNER else None
    if verdict is not None and not verdict.load()["target_reached"]:
        sys.exit(HONEST_MISS)


run = copy.copy(kedro_run)
run.help = """Repeat data_synthesis, fine_tuning and evaluation until the target is reached.

With an option that slices the pipeline, or with a runner, run once with Kedro's own runner; what
is read then comes from the last complete iteration.

Exit code: 0 target reached (or a slice has run), 2 ended without reaching it, 1 failed,
130 or 143 interrupted.
"""
run.params = [
    *kedro_run.params,
    click.Option(
        ["--resume"],
        is_flag=False,
        flag_value="latest",
        default=None,
        metavar="[LOOP]",
        help="Go on with an unfinished loop: the one named, or the latest.",
    ),
]
run.callback = _run
cli.add_command(run)
