"""The project's commands: ``kedro run`` repeats the whole loop, a part of it runs once."""

import logging
import os
import shlex
import signal
import sqlite3
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from pathlib import Path
from typing import Any

import click
from kedro.framework.cli.project import run as kedro_run
from kedro.framework.project import configure_project, settings
from kedro.framework.startup import bootstrap_project
from kedro.io import DatasetError
from kedro.utils import find_kedro_project
from kedro.validation.exceptions import ParameterValidationError
from pydantic import ValidationError

from llamaduo.errors import InputError
from llamaduo.interruption import InterruptedRun, SafePoint
from llamaduo.ledger import LoopBusyError, UnknownLoopError
from llamaduo.local_llm.engines import InferenceError
from llamaduo.local_llm.training import TrainingError
from llamaduo.service_llm.failures import ServiceLLMError
from llamaduo.service_llm.journal import JournalError
from llamaduo.service_llm.privacy import protect_message

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

ERRORS_WITH_A_SENTENCE = (
    DatasetError,
    InferenceError,
    InputError,
    JournalError,
    OSError,
    LoopBusyError,
    ParameterValidationError,
    ServiceLLMError,
    TrainingError,
    UnknownLoopError,
    ValidationError,
    sqlite3.Error,
)

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


def configure_package() -> None:
    """Let Kedro know the package where there is no project's pyproject.toml to tell it."""
    # Nor is the .telemetry beside it by which the project says no to Kedro's.
    os.environ.setdefault("DO_NOT_TRACK", "1")
    configure_project("llamaduo")


def _configuration(given: str | None = None) -> Path:
    """The folder of the configuration, which an installed package does not bring."""
    beside = find_kedro_project(Path.cwd()) or Path.cwd()
    folder = Path(given) if given else beside / settings.CONF_SOURCE
    if folder.is_file():
        raise click.ClickException(
            f"{folder} is an archive, and the catalog names files inside of it; unpack it beside "
            f"your data: tar xf {folder}"
        )
    if not folder.is_dir():
        raise click.ClickException(
            f"no configuration in {folder}: run this in a project's folder (with pyproject.toml), "
            "or beside the unpacked archive of kedro package: tar xf conf-llamaduo.tar.gz"
        )
    return folder


@contextmanager
def _errors_as_sentences() -> Iterator[None]:
    try:
        yield
    except ERRORS_WITH_A_SENTENCE as error:
        logger.debug("the error's origin", exc_info=True)
        raise click.ClickException(sentence_of(error)) from error


@click.pass_context
def _run(context: click.Context, /, resume: str | None = None, **options: Any) -> None:
    _configuration(options["conf_source"])
    if options["runner"] is None and not any(options[name] for name in SLICES):
        options["runner"] = LOOP_RUNNER
    if resume:
        if options["runner"] != LOOP_RUNNER:
            raise click.ClickException(
                "--resume goes on with a whole loop; leave out what slices it"
            )
        options["runner_params"] = {**options["runner_params"], "resume": resume}
    if options["runner"] == LOOP_RUNNER:
        # Kedro doubles its own name under python -m.
        path = context.command_path
        command = path if "llamaduo" in path else "kedro run"
        again = resuming_command(command, context.meta[GIVEN])
        options["runner_params"] = {**options["runner_params"], "resuming_command": again}
        if options["only_missing_outputs"]:
            raise click.ClickException("a loop makes what is missing by --resume")
    # The loop's runner has a safe point of its own on top; processes of Kedro's would inherit one.
    runner = options["runner"] or ""
    safe_point = SafePoint(threads="ThreadRunner" in runner, farewell=lambda: None)
    try:
        watching = nullcontext() if "ParallelRunner" in runner else safe_point.watching()
        with _errors_as_sentences(), watching:
            outputs = kedro_run.callback(**options)  # type: ignore[misc]
    except InterruptedRun as interrupt:
        sys.exit(128 + interrupt.signum)
    except KeyboardInterrupt:
        sys.exit(128 + signal.SIGINT)
    verdict = outputs.get("verdict") if options["runner"] == LOOP_RUNNER else None
    if verdict is not None and not verdict.load()["target_reached"]:
        sys.exit(HONEST_MISS)


def sentence_of(error: Exception) -> str:
    """What a person is told of an error; Kedro, pandas and pydantic quote values in theirs."""
    return protect_message(str(error))


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

Exit code: 0 target reached (or a slice has run), 2 ended without reaching it, 1 failed,
130 or 143 interrupted.
"""
OPTIONS = [
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
run = RunCommand("run", params=OPTIONS, callback=_run, help=HELP)
cli.add_command(run)


@cli.command()
@click.option(
    "--matching",
    metavar="TEXT",
    multiple=True,
    required=True,
    help="A name, an address, a number: 3 characters or more. Repeat it for each spelling.",
)
@click.option("--dry-run", is_flag=True, help="Show what would be removed, and change nothing.")
@click.option("--yes", "-y", is_flag=True, help="Do not ask before removing.")
def forget(matching: tuple[str, ...], dry_run: bool, yes: bool) -> None:
    """Remove a person's rows from all that this project keeps.

    Name every address and every name of the person, each form by itself: behind the privacy gate an
    address is gone, and a name may stay.

    Looks for TEXT, in whole words, in the files that the catalogs of all environments name and in
    all below their data roots, whatever the case, white space and escapes are. Rows of tables are
    removed, with what was made from them, in the journal only the texts, and reports made from
    such rows whole. Adapters that were trained on them are listed, not removed.

    Exit code: 0 done, or nothing found; 1 refused, or failed.
    """
    from llamaduo.forgetting.display import show
    from llamaduo.forgetting.findings import find
    from llamaduo.forgetting.places import places_of
    from llamaduo.forgetting.wanted import Wanted

    with _errors_as_sentences(), ExitStack() as held:
        wanted = Wanted(matching)
        places = places_of(_configuration().parent)
        for ledger in () if dry_run else places.ledgers:
            held.enter_context(ledger.held("llamaduo forget"))
        found = find(places, wanted)
        show(found, places.remote)
        if dry_run:
            click.echo("nothing was changed")
            return
        if not (found.is_empty or yes):
            click.confirm("Remove them?", abort=True)
        found.remove()
        click.echo("done")
