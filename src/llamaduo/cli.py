"""The project's commands: ``kedro run`` repeats the whole loop, a part of it runs once."""

import copy
import json
import logging
import os
import re
import shlex
import signal
import sqlite3
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import Any, cast

import click
from kedro.framework.cli.project import run as kedro_run
from kedro.framework.context import KedroContext
from kedro.framework.project import configure_project, pipelines, settings
from kedro.framework.session import KedroSession
from kedro.framework.startup import bootstrap_project
from kedro.io import DatasetError
from kedro.utils import find_kedro_project
from kedro.validation.exceptions import ParameterValidationError
from omegaconf import OmegaConf
from pydantic import ValidationError

from llamaduo.attachment import LoopEndedError
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
BETWEEN_PARAMETERS = re.compile(r",(?![^\[{]*[\]}])")
"""A comma outside of brackets."""
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
    except LoopEndedError:  # no error to whoever has planned more parts of it
        raise
    except ERRORS_WITH_A_SENTENCE as error:
        logger.debug("the error's origin", exc_info=True)
        raise click.ClickException(sentence_of(error)) from error


@click.pass_context
def _run(context: click.Context, /, resume: str | None = None, **options: Any) -> None:
    _configuration(options["conf_source"])
    attach = options["runner_params"].get("attach")
    if options["runner"] is None and (attach or not any(options[name] for name in SLICES)):
        options["runner"] = LOOP_RUNNER
    if attach and (resume or options["pipeline"] or options["pipelines"]):
        raise click.ClickException(
            "attach goes with --namespaces, --nodes and the like, not with --pipelines or --resume"
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
        with _errors_as_sentences(), watching:
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

With --runner-params=attach=LOOP/ITERATION such a part runs inside that iteration of an unfinished
loop, and is committed; attach=new begins a loop with it (docs/scale.md).

Exit code: 0 target reached (or a part has run), 2 ended without reaching it, 1 failed,
130 or 143 interrupted.
"""


def split_params(context: click.Context, option: click.Parameter, value: Any) -> dict[str, Any]:
    """Read ``--params`` as Kedro does, but a comma inside of brackets belongs to its value."""
    if isinstance(value, dict):  # of --config
        return value
    items = [item.strip() for item in BETWEEN_PARAMETERS.split(value or "") if item.strip()]
    if wrong := [item for item in items if not item.partition("=")[0] or "=" not in item]:
        context.fail(f"--params: expected key=value, came {wrong[0]!r}")
    return cast("dict[str, Any]", OmegaConf.to_container(OmegaConf.from_dotlist(items)))


PARAMS = copy.copy(next(option for option in kedro_run.params if option.name == "params"))
PARAMS.callback = split_params
PARAMS.help = (
    "Parameters by their names, such as loop.max_iterations=2,data_synthesis.languages=[en,de]; "
    "all of them stand in src/llamaduo/parameters.py."
)
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


ENV = click.option("--env", "-e", metavar="ENV", help="The environment, as of kedro run.")
JSON = click.option("--json", "as_json", is_flag=True, help="Print JSON, for machines.")


@contextmanager
def _context(env: str | None, parameters: dict[str, Any] | None = None) -> Iterator[KedroContext]:
    """The project as a run would see it; what Kedro logs of its loads stays out of sight."""
    session = KedroSession.create(
        project_path=find_kedro_project(Path.cwd()), env=env, runtime_params=parameters
    )
    logging.disable(logging.WARNING)
    try:
        with _errors_as_sentences(), session:
            yield session.load_context()
    finally:
        logging.disable(logging.NOTSET)


@cli.group(invoke_without_command=True)
@ENV
@JSON
@click.pass_context
def loops(context: click.Context, env: str | None, as_json: bool) -> None:
    """List loops and their iterations: scores, cost, size, and why they ended.

    Costs are those of each iteration itself, sizes those of its versions on the disk.
    """
    if context.invoked_subcommand:
        context.obj = env
        return
    from llamaduo.history import all_loops, history_of
    from llamaduo.history_display import show_loops

    with _context(env) as project:
        found = all_loops(project.catalog, pipelines["__default__"])
        histories = [history_of(loop) for loop in found]
    if as_json:
        click.echo(json.dumps([asdict(each) for each in histories], indent=1, ensure_ascii=False))
    else:
        show_loops(histories, f"kedro run --env={env}" if env else "kedro run")


@loops.command()
@click.argument("one")
@click.argument("other")
@ENV
@JSON
@click.pass_obj
def compare(of_group: str | None, one: str, other: str, env: str | None, as_json: bool) -> None:
    """Compare two iterations, prompt by prompt, and say what differs between them.

    ONE and OTHER are LOOP/ITERATION, or LOOP, which is its best iteration so far; kedro loops lists
    them. Scores compare only where judge, judge prompt, test set, engine and decoding are the same.
    """
    from llamaduo.history import all_loops
    from llamaduo.history import compare as compare_iterations
    from llamaduo.history_display import show_comparison

    with _context(env or of_group) as project:
        found = all_loops(project.catalog, pipelines["__default__"])
        compared = compare_iterations(found, one, other)
    if as_json:
        click.echo(json.dumps(asdict(compared), indent=1, ensure_ascii=False))
    else:
        show_comparison(compared)


@loops.command()
@click.option("--dry-run", is_flag=True, help="Show what would be removed, and change nothing.")
@click.option("--yes", "-y", is_flag=True, help="Do not ask before removing.")
@ENV
@click.pass_obj
def prune(of_group: str | None, dry_run: bool, yes: bool, env: str | None) -> None:
    """Remove all versions of iterations that are neither the best nor the last of their loop.

    A loop that has not ended keeps what its resume reads. An iteration that is under way stays.

    Exit code: 0 done, or nothing to prune; 1 refused, or failed.
    """
    from llamaduo.history import all_loops
    from llamaduo.history_display import show_removals
    from llamaduo.pruning import prunable
    from llamaduo.pruning import prune as prune_iteration

    with _context(env or of_group) as project, ExitStack() as held:
        found = all_loops(project.catalog, pipelines["__default__"])
        if found and not dry_run:
            held.enter_context(found[0].ledger.held("kedro loops prune"))
        removals = [removal for loop in found for removal in prunable(loop)]
        show_removals(removals)
        if dry_run or not removals:
            click.echo("nothing was changed")
            return
        if not yes:
            click.confirm("Remove them?", abort=True)
        for removal in removals:
            prune_iteration(removal)
        click.echo("done")


@click.pass_context
def _doctor(context: click.Context, /, env: str | None, params: dict[str, Any]) -> None:
    from llamaduo.doctor import examine
    from llamaduo.doctor_display import show

    with _context(env, params) as project:
        if show(examine(project, pipelines["__default__"])):
            context.exit(1)


DOCTOR = """Check in seconds what a run would meet: versions, GPU, disk, model, data, endpoints.

Each endpoint is asked one cheap question, as before a run; nothing is generated or trained. The
last lines estimate what a whole loop takes and costs.

Exit code: 0 nothing to mend (there may be warnings), 1 otherwise.
"""
ENV_OPTION = copy.copy(next(option for option in kedro_run.params if option.name == "env"))
cli.add_command(click.Command("doctor", params=[ENV_OPTION, PARAMS], callback=_doctor, help=DOCTOR))
