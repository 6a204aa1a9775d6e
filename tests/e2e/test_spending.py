"""What a loop pays for, and what it does not."""

import os
import signal
import sqlite3
from collections import deque

import pytest

from tests.fakes.openai_server import FakeOpenAI, Fault, is_preflight


@pytest.fixture
def server(project):
    with FakeOpenAI() as running:
        endpoint = {"base_url": running.base_url, "model": "fake"}
        project.configure("catalog.yml", {"service_llm": endpoint, "judge": endpoint})
        yield running


def asked_for(project):
    """Purpose and body of each request in the journal, in order, but for the preflight's."""
    connection = sqlite3.connect(project.data / "journal.sqlite")
    rows = connection.execute(
        "SELECT purpose, request FROM attempts WHERE purpose <> 'preflight' ORDER BY id"
    ).fetchall()
    connection.close()
    return rows


@pytest.mark.soak  # test_slices.py has its sibling in each run
def test_a_second_run_asks_about_what_differs_and_audits_the_judge_anew(
    after_a_loop,
):
    asked = asked_for(after_a_loop)

    after_a_loop.kedro("run", "--env=test", code=2)

    later = asked_for(after_a_loop)[len(asked) :]
    again = [(purpose, request) for purpose, request in later if purpose != "auditing the judge"]
    assert len(asked) > 140
    assert not set(again) & set(asked)
    # Training on a busy machine may differ in the last digit, and so may a few responses.
    assert {purpose for purpose, _ in again} <= {"judging"}
    assert len(again) < len(later)
    assert len(again) < 24  # half of the responses


def test_a_spent_budget_ends_the_loop_cleanly_and_keeps_what_was_bought(project, server):
    output = project.kedro("run", "--env=test", "--params=loop.budget.requests=20", code=2)

    (loop,) = project.loops()
    assert project.json("08_reporting/verdict.json", f"{loop}-i001")["reason"] == "budget"
    assert "budget" in output
    assert len(server.served) <= 20 + 16
    answers = sqlite3.connect(project.data / "journal.sqlite").execute(
        "SELECT COUNT(*) FROM attempts WHERE outcome = 'answered' AND purpose = 'judging'"
    )
    assert answers.fetchone()[0] == len(server.asked())
    answers.connection.close()


def test_a_cap_in_money_needs_a_price(project, server):
    output = project.kedro("run", "--env=test", "--params=loop.budget.usd=1", code=1)

    assert "the price of fake is unknown" in output
    assert server.served == []


def test_a_wrong_key_is_said_before_anything_is_generated(project, server):
    server.script = lambda body: Fault(401, '{"error": {"message": "Incorrect API key"}}')

    output = project.kedro("run", "--env=test", code=1)

    assert "judge, service_llm: fake at http" in output
    assert "Incorrect API key (is the key right?)" in output
    assert all(is_preflight(entry.body) for entry in server.served)
    assert project.loops() == []


@pytest.mark.soak  # the next one, and test_resume.py, have its siblings in each run
@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_while_the_judge_is_asked_loses_no_answer_and_is_resumed(project, server, signum):
    server.script = lambda body: None if is_preflight(body) else Fault(delay_s=0.5)
    process = project.start("run", "--env=test", start_new_session=True)
    while len(server.asked()) < 20:
        assert process.poll() is None
        os.sched_yield()

    process.send_signal(signum)
    output, _ = process.communicate(timeout=60)
    server.script = lambda body: None
    project.kedro("run", "--env=test", "--resume", code=2)

    assert process.returncode == 128 + signum
    assert "--resume" in output
    assert "Traceback" not in output
    connection = sqlite3.connect(project.data / "journal.sqlite")
    rows = connection.execute(
        "SELECT COUNT(*), COUNT(DISTINCT key), SUM(outcome = 'answered') FROM attempts "
        "WHERE purpose <> 'preflight'"
    )
    assert set(rows.fetchone()) == {len(server.asked())}
    connection.close()


def test_a_signal_ends_requests_in_threads_too(project, server):
    server.script = lambda body: None if is_preflight(body) else Fault(delay_s=1)
    process = project.start(
        "run",
        "--env=test",
        "--pipelines=baselines",
        "--runner=ThreadRunner",
        start_new_session=True,
    )
    while len(server.asked()) < 16:
        assert process.poll() is None
        os.sched_yield()

    process.send_signal(signal.SIGINT)
    output, _ = process.communicate(timeout=60)

    assert process.returncode == 128 + signal.SIGINT
    assert "Traceback" not in output
    assert len(server.asked()) == 16
    connection = sqlite3.connect(project.data / "journal.sqlite")
    rows = connection.execute("SELECT outcome FROM attempts WHERE purpose <> 'preflight'")
    assert rows.fetchall() == [("answered",)] * 16
    connection.close()


LOG_EVERYTHING = """
version: 1
disable_existing_loggers: false
handlers: {console: {class: logging.StreamHandler}}
root: {level: DEBUG, handlers: [console]}
"""


def test_the_key_is_in_no_output_and_in_no_file_that_a_run_or_viz_writes(
    project, server, monkeypatch
):
    key = "sk-CANARY-4711"
    (project.folder / "conf/logging.yml").write_text(LOG_EVERYTHING)
    monkeypatch.setenv("KEDRO_LOGGING_CONFIG", str(project.folder / "conf/logging.yml"))
    server.faults = deque([Fault(), Fault(400, f'{{"error": {{"message": "no: {key}"}}}}')])
    for env in ("test", "local"):
        (project.folder / "conf" / env).mkdir(exist_ok=True)
        project.configure("credentials.yml", {"canary": {"api_key": key + "\n"}}, env)
        entry = {"base_url": server.base_url, "model": "fake", "credentials": "canary"}
        project.configure("catalog.yml", {"service_llm": entry, "judge": entry}, env)

    output = project.kedro("run", "--env=test", "--pipelines=baselines")
    output += project.kedro("viz", "build", "--include-previews")

    assert server.keys == {f"Bearer {key}"}
    assert "no: ***" in output
    assert "Using selector" in output  # only debug logs say that
    assert key not in output
    written = [path for path in project.folder.rglob("*") if path.is_file()]
    with_key = {path.name for path in written if key.encode() in path.read_bytes()}
    assert with_key == {"credentials.yml"}
    assert any("build" in path.parts for path in written)
