"""What a kill, a signal or a second run does to a loop under way."""

import json
import os
import random
import shutil
import signal
import sqlite3
import time
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

from tests.fakes.openai_server import FakeOpenAI

KILL_POINTS = [
    "save:seeds@2",
    "save:adapter@1",
    "save:training_set@2",
    "save:synthesis_replies@2",
    "save:judge_replies@1",
    "save:verdict@1",
    "save:iteration_history@2",
    "commit:synthesis_replies@2",
    "commit:adapter@1",
    "commit:adapter@2",
    "commit:verdict@1",
    "node:ask_service_llm@2",
    "node:fine_tune@2",
    "node:ask_judge@2",
    "node:write_loop_report@1",
]
SEEDED_MOMENTS = [round(random.Random(20).uniform(0.5, 1.0) * n, 2) for n in range(4, 28, 4)]
CONCURRENCY = 16
FAST = {"save:training_set@2"}


@contextmanager
def served_by(server, project):
    endpoint = {"base_url": server.base_url, "model": "stand-in-triage"}
    project.configure("catalog.yml", {"service_llm": endpoint, "judge": endpoint})
    yield


def install_kill_point(project):
    package = project.folder / "src/llamaduo"
    shutil.copy(Path(__file__).with_name("kill_points.py"), package)
    settings = package / "settings.py"
    settings.write_text(
        settings.read_text() + "\nimport os\n\nif os.environ.get('KILL_AT'):\n"
        "    from llamaduo.kill_points import KillPoint\n\n    HOOKS = (*HOOKS, KillPoint())\n"
    )


def committed_files(project):
    """Every committed file with its time of change."""
    files = {}
    for commit in (project.data / "ledger").rglob("committed/*.json"):
        version = json.loads(commit.read_text())["version"]
        for path in project.data.glob(f"0*/*/{version}"):
            if path.parent.name.split(".")[0] == commit.stem:
                files |= {each: each.stat().st_mtime_ns for each in path.rglob("*")}
    return files


def answered(project):
    """Keys of the requests whose answer stands in the journal, but for the preflight's."""
    path = project.data / "journal.sqlite"
    if not path.exists():
        return []
    journal = sqlite3.connect(path)
    rows = journal.execute(
        "SELECT key FROM attempts WHERE outcome = 'answered' AND purpose <> 'preflight'"
    ).fetchall()
    journal.close()
    return [row[0] for row in rows]


def run_and_kill(project, point, monkeypatch):
    """Start a loop and let it die at a named point, or at a moment (seconds)."""
    if isinstance(point, str):
        monkeypatch.setenv("KILL_AT", point)
        output = project.kedro("run", "--env=test", code=-signal.SIGKILL)
        monkeypatch.delenv("KILL_AT")
        return output
    process = project.start("run", "--env=test")
    time.sleep(point)  # the moment is the thing under test, not a wait for something
    process.kill()
    return process.communicate()[0]


def prove_resume(project, finished, point, monkeypatch):
    install_kill_point(project)
    with FakeOpenAI() as server, served_by(server, project):
        run_and_kill(project, point, monkeypatch)
        before = committed_files(project)
        under_way = len(server.asked()) - len(answered(project))

        project.kedro("run", "--env=test", *(["--resume"] if project.loops() else []), code=2)

        served, arrived = server.asked(), answered(project)
    (loop,) = project.loops()
    reference, _ = finished
    (uninterrupted,) = reference.loops()
    for n in (1, 2):
        path = "05_model_input/training_set.jsonl"
        assert project.load(path, f"{loop}-i00{n}") == reference.load(
            path, f"{uninterrupted}-i00{n}"
        )
    assert project.json("08_reporting/verdict.json", f"{loop}-i002")["stop"]
    assert {path: path.stat().st_mtime_ns for path in before} == before
    assert len(set(arrived)) == len(arrived)
    assert len(served) - len(arrived) == under_way <= CONCURRENCY


@pytest.mark.parametrize("point", sorted(FAST))
def test_a_killed_loop_resumes_to_the_same_end(project, finished, monkeypatch, point):
    prove_resume(project, finished, point, monkeypatch)


@pytest.mark.soak
@pytest.mark.parametrize("point", [p for p in KILL_POINTS if p not in FAST] + SEEDED_MOMENTS)
def test_a_loop_killed_anywhere_resumes_to_the_same_end(project, finished, monkeypatch, point):
    prove_resume(project, finished, point, monkeypatch)


def read_until(process, text):
    """The lines up to the one that holds a text."""
    lines = []
    for line in process.stdout:
        lines.append(line)
        if text in line:
            return lines
    raise AssertionError(f"no {text!r} in:\n{''.join(lines)}")


def children(pid):
    return {child.pid for child in psutil.Process(pid).children()}


def is_running(pid):
    status = Path(f"/proc/{pid}/status")
    return status.exists() and "State:\tZ" not in status.read_text()


def test_a_resume_without_a_loop_asks_nobody(project):
    with FakeOpenAI() as server:
        entry = {"base_url": server.base_url, "model": "fake"}
        project.configure("catalog.yml", {"service_llm": entry, "judge": entry})

        output = project.kedro("run", "--env=test", "--resume", code=1)

    assert "no unfinished loop in" in output
    assert server.asked() == []


def test_a_second_run_names_the_first_and_leaves_it_alone(project):
    first = project.start("run", "--env=test", start_new_session=True)
    read_until(first, "fine_tuning.fine_tune")
    (loop,) = project.loops()

    output = project.kedro("run", "--env=test", code=1)

    assert loop in output
    assert str(first.pid) in output
    assert "data_synthesis" not in output
    assert first.poll() is None
    first.send_signal(signal.SIGINT)
    assert f"--resume {loop}" in " ".join(first.communicate(timeout=60)[0].split())


@pytest.mark.parametrize(
    "signum", [signal.SIGINT, pytest.param(signal.SIGTERM, marks=pytest.mark.soak)]
)
def test_a_signal_in_a_part_of_the_loop_exits_as_an_interrupt(project, signum):
    process = project.start("run", "--env=test", "--pipelines=baselines", start_new_session=True)
    read_until(process, "baselines.")

    process.send_signal(signum)
    output, _ = process.communicate(timeout=60)

    assert process.returncode == 128 + signum
    assert "Traceback" not in output


@pytest.mark.parametrize(
    ("signum", "inner"),
    [
        (signal.SIGINT, "SequentialRunner"),
        (signal.SIGTERM, "SequentialRunner"),
        pytest.param(signal.SIGTERM, "ThreadRunner", marks=pytest.mark.soak),
    ],
)
def test_a_signal_ends_run_and_training_and_prints_how_to_go_on(project, signum, inner):
    process = project.start(
        "run", "--env=test", f"--runner-params=inner={inner}", start_new_session=True
    )
    read_until(process, "fine_tuning.fine_tune")
    while not (training := children(process.pid)):
        os.sched_yield()

    process.send_signal(signum)
    output, _ = process.communicate(timeout=60)

    assert process.returncode == 128 + signum
    (loop,) = project.loops()
    again = f"kedro run --env=test --runner-params=inner={inner} --resume {loop}"
    assert again in " ".join(output.split())
    assert "Traceback" not in output
    while any(is_running(pid) for pid in training):  # ends, or the test's time is up
        os.sched_yield()


@pytest.mark.soak
def test_a_training_that_is_killed_goes_on_from_its_checkpoint(project):
    parameters = "loop.max_iterations=1,fine_tuning.min_steps=100,fine_tuning.evaluations=50"
    run = ["run", "--env=test", f"--params={parameters}"]
    process = project.start(*run)
    deadline = time.monotonic() + 120
    while not list(project.data.glob("06_models/checkpoints/*/*/complete.json")):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    process.kill()
    process.communicate()

    said = project.kedro(*run, "--resume", code=2)

    assert "training goes on from step" in " ".join(said.split())
    (loop,) = project.loops()
    log = project.load("08_reporting/training_log.jsonl", f"{loop}-i001").decode().splitlines()
    assert [json.loads(line)["step"] for line in log] == list(range(1, 101))
