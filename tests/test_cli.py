import shutil
import tomllib
from pathlib import Path

import pytest
from click.testing import CliRunner
from kedro.framework.startup import bootstrap_project
from kedro.utils import load_obj
from kedro.validation.exceptions import DataValidationError

from llamaduo.cli import cli, resuming_command
from llamaduo.commands.start import sentence_of
from llamaduo.errors import InputError


@pytest.mark.parametrize(
    ("given", "command"),
    [
        ([], "kedro run --resume"),
        (
            ["--env=openai", "--params=loop.max_iterations=2"],
            "kedro run --env=openai --params=loop.max_iterations=2 --resume",
        ),
        (["--resume", "--env", "test"], "kedro run --env test --resume"),
        (["--env", "test", "--resume", "loop"], "kedro run --env test --resume"),
        (["--resume=loop", "--params", "a=two words"], "kedro run --params 'a=two words' --resume"),
    ],
)
def test_the_command_that_goes_on_repeats_what_was_given(given, command):
    assert resuming_command("kedro run", given) == command


def test_a_value_that_the_shell_has_cut_is_named_with_the_way_to_quote_it():
    cut = ["--params=coverage.columns={category:", "topic}"]

    result = CliRunner().invoke(cli.commands["run"], cut)

    assert result.exit_code == 1
    assert "the value of 'coverage.columns={category:' cannot be read; it is YAML" in (
        " ".join(result.output.split())
    )


def test_the_console_script_has_the_commands_that_kedro_finds():
    project = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text("utf-8"))

    script = load_obj(project["project"]["scripts"]["llamaduo"].replace(":", "."))

    assert script is cli
    assert set(cli.commands) == {"run", "forget", "serve", "loops", "doctor"}


@pytest.mark.parametrize("command", ["forget --matching somebody", "loops", "doctor"])
def test_a_command_outside_of_a_project_says_so(command, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    result = CliRunner().invoke(cli, command.split())

    assert result.exit_code == 1
    assert "pyproject.toml" in result.output


def test_somebody_is_forgotten_from_any_folder_of_the_project(tmp_path, monkeypatch):
    repository = Path(__file__).parents[1]
    bootstrap_project(repository)
    shutil.copytree(repository / "conf", tmp_path / "conf")
    shutil.copy(repository / "pyproject.toml", tmp_path)
    (tmp_path / "notes").mkdir()
    monkeypatch.chdir(tmp_path / "notes")

    result = CliRunner().invoke(cli.commands["forget"], ["--matching", "somebody", "--dry-run"])

    assert "nothing was changed" in result.output
    assert sorted(path.name for path in tmp_path.iterdir()) == ["conf", "notes", "pyproject.toml"]


@pytest.mark.parametrize("kind", [DataValidationError, InputError, OSError, ValueError])
def test_an_error_is_said_without_personal_details(kind):
    error = kind("human_scores: could not convert string to float: 'anna@firma.de'")

    assert sentence_of(error).startswith("human_scores: could not convert string to float: '")
    assert "firma" not in sentence_of(error)
