"""What the commands share: where the project is, how it is read, and how errors are told."""

import copy
import logging
import os
import re
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import click
from kedro.framework.cli.project import run as kedro_run
from kedro.framework.context import KedroContext
from kedro.framework.project import configure_project, settings
from kedro.framework.session import KedroSession
from kedro.io import DatasetError
from kedro.utils import find_kedro_project
from kedro.validation.exceptions import ParameterValidationError
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from pydantic import ValidationError
from yaml import YAMLError

from llamaduo.attachment import LoopEndedError
from llamaduo.errors import InputError
from llamaduo.ledger import LoopBusyError, UnknownLoopError
from llamaduo.local_llm.engines import InferenceError
from llamaduo.local_llm.release import ReleaseError
from llamaduo.local_llm.training import TrainingError
from llamaduo.service_llm.failures import ServiceLLMError
from llamaduo.service_llm.journal import JournalError
from llamaduo.service_llm.privacy import protect_message

BETWEEN_PARAMETERS = re.compile(r",(?![^\[{]*[\]}])")
"""A comma outside of brackets."""

ERRORS_WITH_A_SENTENCE = (
    DatasetError,
    InferenceError,
    InputError,
    JournalError,
    OSError,
    LoopBusyError,
    ParameterValidationError,
    ReleaseError,
    ServiceLLMError,
    TrainingError,
    UnknownLoopError,
    ValidationError,
    sqlite3.Error,
)

logger = logging.getLogger(__name__)


def configure_package() -> None:
    """Let Kedro know the package where there is no project's pyproject.toml to tell it."""
    # Nor is the .telemetry beside it by which the project says no to Kedro's.
    os.environ.setdefault("DO_NOT_TRACK", "1")
    configure_project("llamaduo")


def configuration_folder(given: str | None = None) -> Path:
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
def errors_as_sentences() -> Iterator[None]:
    """Let a command end with one sentence and exit code 1."""
    try:
        yield
    except LoopEndedError:  # no error to whoever has planned more parts of it
        raise
    except ERRORS_WITH_A_SENTENCE as error:
        logger.debug("the error's origin", exc_info=True)
        raise click.ClickException(sentence_of(error)) from error


def sentence_of(error: Exception) -> str:
    """What a person is told of an error; Kedro, pandas and pydantic quote values in theirs."""
    return protect_message(str(error))


@contextmanager
def project_context(
    env: str | None, parameters: dict[str, Any] | None = None
) -> Iterator[KedroContext]:
    """The project as a run would see it; what Kedro logs of its loads stays out of sight."""
    configuration_folder()
    session = KedroSession.create(
        project_path=find_kedro_project(Path.cwd()), env=env, runtime_params=parameters
    )
    logging.disable(logging.WARNING)
    try:
        with errors_as_sentences(), session:
            yield session.load_context()
    finally:
        logging.disable(logging.NOTSET)


def split_params(context: click.Context, option: click.Parameter, value: Any) -> dict[str, Any]:
    """Read ``--params`` as Kedro does, but a comma inside of brackets belongs to its value."""
    if isinstance(value, dict):  # of --config
        return value
    items = [item.strip() for item in BETWEEN_PARAMETERS.split(value or "") if item.strip()]
    if wrong := [item for item in items if not item.partition("=")[0] or "=" not in item]:
        context.fail(f"--params: expected key=value, came {wrong[0]!r}")
    read = OmegaConf.create()
    for item in items:
        try:
            read.merge_with_dotlist([item])
        except (YAMLError, OmegaConfBaseException):
            context.fail(
                f"--params: the value of {item!r} cannot be read; it is YAML, and where it has "
                "spaces or braces, quote it for the shell: "
                "--params='coverage.columns={prompt: question}'"
            )
    return cast("dict[str, Any]", OmegaConf.to_container(read))


def run_option(name: str) -> click.Parameter:
    """One of ``kedro run``'s own options."""
    return copy.copy(next(option for option in kedro_run.params if option.name == name))


PARAMS = run_option("params")
PARAMS.callback = split_params
PARAMS.help = (
    "Parameters by their names, such as loop.max_iterations=2,data_synthesis.languages=[en,de]; "
    "all of them stand in src/llamaduo/parameters.py."
)
