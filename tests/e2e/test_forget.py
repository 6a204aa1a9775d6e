"""A person who is planted in the user's pairs, and forgotten in the midst of a loop."""

import json
import os
import sys

import pytest
from click.testing import CliRunner

from llamaduo.cli import cli
from llamaduo.ledger import Ledger
from llamaduo.service_llm.journal import Journal
from tests.e2e.test_resume import install_kill_point, run_and_kill

PERSON = "Jürgen\nMüller-Lüdenscheidt (juergen@luedenscheidt.example)"
WANTED = ("--matching", "@luedenscheidt.example")
"""The privacy gate replaces it, so that what runs make holds the name alone."""
TRACE = b"denscheidt"
"""Of name and address; no escape, case or normal form hides it."""


@pytest.fixture
def forget(monkeypatch):
    """Runs the command in a project's folder."""
    monkeypatch.setattr(sys, "path", [*sys.path])  # Kedro puts the project's code there
    monkeypatch.setenv("PYTHONPATH", os.environ.get("PYTHONPATH", ""))
    monkeypatch.setenv("COLUMNS", "200")

    def run(project, *arguments, code=0, **options):
        monkeypatch.chdir(project.folder)
        result = CliRunner().invoke(cli, ["forget", *arguments], **options)
        assert result.exit_code == code, result.output
        return result.output

    return run


def plant(project, split, rows):
    path = project.folder / f"data/01_raw/coverage_{split}.jsonl"
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
    for number in rows:
        row = json.loads(lines[number])
        row["prompt"] += f"\nRegards, {PERSON}"
        lines[number] = json.dumps(row) + "\n"
    path.write_text("".join(lines), encoding="utf-8")


def traces(project):
    """The files that hold something of the person."""
    files = (path for path in (project.folder / "data").rglob("*") if path.is_file())
    return {
        path.relative_to(project.folder / "data").parts[-1]
        for path in files
        if TRACE in path.read_bytes().lower()
    }


def test_a_person_is_forgotten_in_the_midst_of_a_loop_which_then_goes_on(
    project, forget, monkeypatch
):
    install_kill_point(project)
    plant(project, "train", range(0, 60, 2))
    plant(project, "test", [0, 20])
    run_and_kill(project, "node:fine_tune@2", monkeypatch)
    (loop,) = project.loops()
    journal = Journal(project.data / "journal.sqlite")
    spent = journal.spent(loop)
    held = traces(project)
    assert held >= {"coverage_train.jsonl", "coverage_test.jsonl", "training_set.jsonl"}
    assert held >= {"seeds.jsonl", "evaluation_report.html"}
    assert journal.count(lambda text: TRACE.decode() in text)

    assert "nothing was changed" in forget(project, *WANTED, "--dry-run")
    assert "Aborted" in forget(project, *WANTED, input="n\n", code=1)
    assert traces(project) == held
    shown = forget(project, *WANTED, "--yes")

    assert traces(project) == set()
    assert f"06_models/adapter/{loop}-i001/adapter" in shown
    assert TRACE.decode() not in shown.lower()
    assert journal.spent(loop) == spent
    assert "nothing to remove" in forget(project, *WANTED)
    project.kedro("run", "--env=test", "--resume", code=2)
    assert project.json("08_reporting/verdict.json", f"{loop}-i002")["stop"]
    assert traces(project) == set()


def test_nobody_is_forgotten_while_a_loop_runs(project, forget):
    with Ledger(project.data / "ledger").held("loop 2026"):
        shown = forget(project, *WANTED, "--yes", code=1)

    assert "loop 2026 is running on this data" in shown


def test_a_search_that_would_match_everybody_is_refused(project, forget):
    assert "too short" in forget(project, "--matching", "Jo", code=1)
