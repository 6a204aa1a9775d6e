"""The project's commands: ``kedro run`` repeats the whole loop, a part of it runs once."""

import logging
import shlex
import signal
import sys
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import click
from kedro.framework.cli.project import run as kedro_run
from kedro.framework.startup import bootstrap_project
from kedro.utils import find_kedro_project

from llamaduo.attachment import LoopEndedError
from llamaduo.commands.doctor import doctor
from llamaduo.commands.forget import forget
from llamaduo.commands.loops import loops
from llamaduo.commands.serve import serve
from llamaduo.commands.start import (
    PARAMS,
    configuration_folder,
    configure_package,
    errors_as_sentences,
    sentence_of,
)
from llamaduo.interruption import InterruptedRun, SafePoint

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
GIVEN = "llamaduo.given"
"""Where the context keeps the words of the command line."""
HONEST_MISS = 2
"""Exit code of a loop that ended without reaching its target."""

logger = logging.getLogger(__name__)


@click.group(name="llamaduo")
def cli() -> None:
    """Commands of this project, run in its folder; `kedro` has them too.

    Where the package is installed without its project: beside the conf that `kedro package` packs.
    """
    project = find_kedro_project(Path.cwd())
    if project is None:
        configure_package()
        return
    try:
        bootstrap_project(project)
    except RuntimeError as error:
        raise click.ClickException(sentence_of(error)) from error


@click.pass_context
def _run(context: click.Context, /, resume: str | None = None, **options: Any) -> None:
    configuration_folder(options["conf_source"])
    attach = options["runner_params"].get("attach")
    if options["runner"] is None and (attach or not any(options[name] for name in SLICES)):
        options["runner"] = LOOP_RUNNER
    whole = resume or options["pipeline"] or options["pipelines"]
    if attach and (whole or options["runner"] != LOOP_RUNNER):
        raise click.ClickException(
            "attach goes with --namespaces, --nodes and the like, not with --pipelines, --resume "
            "or another --runner"
        )
    if resume:
        if options["runner"] != LOOP_RUNNER:
            raise click.ClickException(
                "--resume goes on with a whole loop; leave out what slices it"
            )
        options["runner_params"] = {**options["runner_params"], "resume": resume}
    if options["runner"] == LOOP_RUNNER:
        given = context.meta[GIVEN]
        # Kedro doubles its own name under python -m.
        path = context.command_path
        command = path if "llamaduo" in path else "kedro run"
        whole = shlex.join([*command.split(), *given])
        again = whole if attach else resuming_command(command, given)
        options["runner_params"] = {**options["runner_params"], "resuming_command": again}
        if options["only_missing_outputs"]:
            raise click.ClickException("a loop makes what is missing by --resume")
    # The loop's runner has a safe point of its own on top; processes of Kedro's would inherit one.
    runner = options["runner"] or ""
    safe_point = SafePoint(threads="ThreadRunner" in runner, farewell=lambda: None)
    try:
        watching = nullcontext() if "ParallelRunner" in runner else safe_point.watching()
        with errors_as_sentences(), watching:
            outputs = kedro_run.callback(**options)  # type: ignore[misc]
    except LoopEndedError as ended:
        logger.info("%s", ended)
        sys.exit(0 if ended.target_reached else HONEST_MISS)
    except InterruptedRun as interrupt:
        sys.exit(128 + interrupt.signum)
    except KeyboardInterrupt:
        sys.exit(128 + signal.SIGINT)
    verdict = outputs.get("verdict") if options["runner"] == LOOP_RUNNER else None
    if verdict is not None and not verdict.load()["target_reached"]:
        sys.exit(HONEST_MISS)


def resuming_command(command: str, given: list[str]) -> str:
    """The command that goes on with a loop, but for the loop's name: all that was given counts."""
    kept = [
        word
        for before, word in zip(["", *given], given, strict=False)
        if not word.startswith("--resume") and (before != "--resume" or word.startswith("-"))
    ]
    return f"{command} {shlex.join([*kept, '--resume'])}"


class BadUsage(click.UsageError):
    """A usage error that exits with 1."""

    exit_code = 1


class RunCommand(click.Command):
    """``run``, whose exit code 2 is an honest miss and never a usage error."""

    def make_context(
        self, info_name: str | None, args: list[str], *arguments: Any, **extra: Any
    ) -> click.Context:
        """Parse, and keep what was given; a usage error exits with 1."""
        given = list(args)
        try:
            context = super().make_context(info_name, args, *arguments, **extra)
        except click.UsageError as error:
            raise BadUsage(error.message, error.ctx) from error
        context.meta[GIVEN] = given
        return context


HELP = """Repeat data_synthesis, fine_tuning and evaluation until the target is reached.

With an option that slices the pipeline, or with a runner, run once with Kedro's own runner; what
is read then comes from the last complete iteration.

With --runner-params=attach=LOOP/ITERATION such a part runs inside that iteration of an unfinished
loop, and is committed; attach=new begins a loop with it (docs/scale.md).

Exit code: 0 target reached (or a part has run), 2 ended without reaching it, 1 failed,
130 or 143 interrupted.
"""


OPTIONS = [
    *(PARAMS if option.name == "params" else option for option in kedro_run.params),
    click.Option(
        ["--resume"],
        is_flag=False,
        flag_value="latest",
        default=None,
        metavar="[LOOP]",
        help="Go on with an unfinished loop: the one named, or the latest.",
    ),
]
run = RunCommand("run", params=OPTIONS, callback=_run, help=HELP)
for command in (run, loops, doctor, forget, serve):
    cli.add_command(command)
