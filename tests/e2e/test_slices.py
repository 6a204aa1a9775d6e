import json
import os
import re
import shutil
import sys
from pathlib import Path

import pytest
from kedro.framework.session import KedroSession
from kedro.framework.startup import bootstrap_project

from llamaduo.errors import InputError
from tests.e2e.conftest import REPOSITORY
from tests.fakes.openai_server import FakeOpenAI, Fault, is_preflight


def new_version(project, path, loop):
    (version,) = [name for name in project.versions(path) if not name.startswith(loop)]
    return version


def test_evaluation_alone_repeats_the_last_complete_iteration(after_a_loop):
    project = after_a_loop
    (loop,) = project.loops()
    ledger_before = sorted(path.name for path in (project.data / "ledger").rglob("*.json"))
    workflow = project.folder / ".viz/kedro_pipeline_events.json"
    workflow_before = workflow.read_bytes()

    output = project.kedro("run", "--env=test", "--pipelines=evaluation")

    version = new_version(project, "07_model_output/responses.jsonl", loop)
    path = "07_model_output/responses.jsonl"
    assert project.load(path, version) == project.load(path, f"{loop}-i002")
    assert project.json("08_reporting/verdict.json", version)["iteration"] == 2
    assert project.versions("06_models/adapter") == [f"{loop}-i001", f"{loop}-i002"]
    assert sorted(path.name for path in (project.data / "ledger").rglob("*.json")) == ledger_before
    assert workflow.read_bytes() == workflow_before
    assert "Workflow" not in output


def test_a_slice_reads_what_is_committed_and_not_what_another_slice_left(after_a_loop):
    project = after_a_loop
    (loop,) = project.loops()
    project.kedro(
        "run",
        "--env=test",
        "--pipelines=data_synthesis",
        "--params=data_synthesis.pairs_per_iteration=8",
    )
    small = new_version(project, "05_model_input/training_set.jsonl", loop)

    project.kedro("run", "--env=test", "--from-nodes=evaluation.assess_scores")

    version = new_version(project, "08_reporting/iteration_history.json", loop)
    (_, entry) = project.json("08_reporting/iteration_history.json", version)
    committed = project.load("05_model_input/training_set.jsonl", f"{loop}-i002")
    assert small != version
    assert entry["training_pairs"] == len(committed.splitlines())


def test_the_same_journal_gives_the_same_training_set_byte_for_byte(after_a_loop):
    project, path = after_a_loop, "05_model_input/training_set.jsonl"
    (loop,) = project.loops()

    project.kedro("run", "--env=test", "--pipelines=data_synthesis")

    again = new_version(project, path, loop)
    assert project.load(path, again) == project.load(path, f"{loop}-i002")


def test_a_version_that_the_user_names_is_the_one_that_is_read(after_a_loop):
    project = after_a_loop
    (loop,) = project.loops()

    project.kedro(
        "run",
        "--env=test",
        "--nodes=data_synthesis.report_synthesis",
        f"--load-versions=balanced_pairs:{loop}-i001,synthesis_replies:{loop}-i001",
    )

    version = new_version(project, "08_reporting/synthesis_report.json", loop)
    assert project.json("08_reporting/synthesis_report.json", version)["kept"] == 0


def test_at_names_the_iteration_that_a_slice_reads(after_a_loop):
    project = after_a_loop
    (loop,) = project.loops()

    project.kedro("run", "--env=test", "--from-nodes=evaluation.assess_scores", "--params=at=1")

    version = new_version(project, "08_reporting/verdict.json", loop)
    history = project.json("08_reporting/iteration_history.json", version)
    assert [entry["assessment"]["iteration"] for entry in history] == [1]
    assert project.json("08_reporting/verdict.json", version)["iteration"] == 1


def test_baselines_come_into_a_report_that_was_made_before(after_a_loop):
    project = after_a_loop

    more_than_it_gives = "--params=evaluation.target_precision=99.9"
    shown = project.kedro("run", "--env=test", "--pipelines=baselines", more_than_it_gives)
    command = re.search(r"^into a report made before: kedro (.*)$", shown, re.MULTILINE)[1]
    made = project.kedro(*command.split())

    assert re.search(r"service LLM itself\W+\d+\.\d ± \d", shown)
    assert "The service LLM itself has a precision of" in shown
    report = Path(re.search(r"^report: file://(.*)$", made, re.MULTILINE)[1])
    assert "service LLM itself" in report.read_text("utf-8")


def test_a_notebook_reads_the_iteration_that_at_names(finished):
    project, _ = finished
    (loop,) = project.loops()

    def catalog(at):
        with KedroSession.create(project.folder, env="test", runtime_params={"at": at}) as session:
            return session.load_context().catalog

    def shown(at):
        there = catalog(at)
        history = there.load("iteration_history")
        return len(history), there.load("previous_iteration_history")

    bootstrap_project(REPOSITORY)
    best = json.loads(project.load("08_reporting/verdict.json", f"{loop}-i002"))["best_iteration"]
    assert shown(1) == shown(f"{loop}/1") == (1, None)
    assert shown("best") == shown(best)
    assert shown(2)[0] == len(shown(2)[1]) + 1 == 2
    with pytest.raises(InputError, match=rf"^at=3 .* complete are {loop}/1, {loop}/2\."):
        catalog(3)


@pytest.mark.parametrize(
    ("arguments", "shown"),
    [
        ("catalog describe-datasets", "- training_set"),
        ("catalog list-patterns", "{default}"),
        ("catalog resolve-patterns", "training_set.jsonl"),
        ("registry list", "- __default__"),
        ("registry describe evaluation", "- evaluation.reach_verdict"),
        ("ipython --env=test -c catalog.load('verdict')['reason']", "'max_iterations'"),
        ("run --help", "--resume"),
    ],
)
def test_kedro_commands_work(finished, monkeypatch, tmp_path, arguments, shown):
    project, _ = finished
    # As in an activated environment: Kedro looks there for ipython.
    monkeypatch.setenv("PATH", str(Path(sys.executable).parent), prepend=os.pathsep)
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path))

    output = project.kedro(*arguments.split())

    assert shown in output
    assert not {"Traceback", "WARNING", "Warning"} & set(re.findall(r"\w+", output))


def test_resume_goes_with_the_whole_loop_only(finished):
    project, _ = finished

    output = project.kedro("run", "--env=test", "--resume", "--pipelines=evaluation", code=1)

    assert "--resume goes on with a whole loop" in output


@pytest.mark.parametrize(
    ("option", "reason"),
    [
        ("--load-versions=training_set:some-i001", "training_set, which the loop makes anew"),
        ("--only-missing-outputs", "makes what is missing by --resume"),
        ("--params=at=1", "at is for looking and for a part of the loop"),
    ],
)
def test_what_a_whole_loop_cannot_obey_is_refused(finished, option, reason):
    project, _ = finished

    output = project.kedro("run", "--env=test", option, code=1)

    assert reason in output


def test_a_slice_passes_over_what_a_killed_loop_left_half_made(after_a_loop):
    project = after_a_loop
    path = "05_model_input/training_set.jsonl"
    whole = project.versions(path)
    half = project.data / path / "9999-loop-i001/training_set.jsonl"
    half.parent.mkdir()
    half.write_text('{"id": "tr')
    opened = project.data / "ledger/9999-loop/opened.json"
    opened.parent.mkdir(parents=True)
    opened.write_text("{}")

    project.kedro("run", "--env=test", "--pipelines=fine_tuning")

    assert project.versions(path) == [*whole, "9999-loop-i001"]
    assert len(project.versions("06_models/adapter")) == 3


def test_a_usage_error_does_not_pass_for_an_honest_miss(finished):
    project, _ = finished

    assert "No such option" in project.kedro("run", "--pipline=evaluation", code=1)


def test_a_judge_that_dies_in_the_middle_leaves_a_report_of_what_is_missing(after_a_loop):
    project, answered = after_a_loop, []
    (loop,) = project.loops()
    test_set = "data/01_raw/coverage_test.jsonl"
    shutil.copy(REPOSITORY / test_set, project.folder / test_set)

    def dead_after_60(body):
        if is_preflight(body):
            return None
        answered.append(body)
        return Fault(500, '{"error": {"message": "down"}}') if len(answered) > 60 else None

    with FakeOpenAI(script=dead_after_60) as server:
        judge = {"base_url": server.base_url, "model": "mortal", "limits": {"attempts": 1}}
        project.configure("catalog.yml", {"judge": judge})
        output = project.kedro("run", "--env=test", "--pipelines=evaluation")

    version = new_version(project, "08_reporting/evaluation_report.html", loop)
    replies = project.load("07_model_output/judge_replies.jsonl", version).decode().splitlines()
    texts = [json.loads(reply)["text"] for reply in replies]
    assert (len(texts), sum(text is not None for text in texts)) == (120, 60)
    report = project.load("08_reporting/evaluation_report.html", version).decode()
    assert "Only 50.0 % of the judgements could be read, a verdict needs 98 %." in report
    assert "has not scored these canaries: empty" in report
    assert "requests in a row were given up" in " ".join(output.split())
