"""What a loop pays for, and what it does not."""

import os
import signal
import sqlite3

import pytest

from tests.fakes.openai_server import FakeOpenAI, Fault, is_preflight


@pytest.fixture
def server(project):
    with FakeOpenAI() as running:
        endpoint = {"base_url": running.base_url, "model": "fake"}
        project.configure("catalog.yml", {"service_llm": endpoint, "judge": endpoint})
        yield running


def test_a_second_run_with_nothing_changed_asks_only_about_responses_that_differ(project, server):
    project.kedro("run", "--env=test", code=2)
    asked = server.asked()

    project.kedro("run", "--env=test", code=2)

    again = server.asked()[len(asked) :]
    assert len(asked) > 240
    assert not [body for body in again if body in asked]
    # Training on a busy machine may differ in the last digit, and so may a few responses.
    assert all("You judge" in body["messages"][0]["content"] for body in again)
    assert len(again) < 60


def test_a_spent_budget_ends_the_loop_cleanly_and_keeps_what_was_bought(project, server):
    output = project.kedro("run", "--env=test", "--params=loop.budget.requests=60", code=2)

    (loop,) = project.loops()
    assert project.json("08_reporting/verdict.json", f"{loop}-i001")["reason"] == "budget"
    assert "budget" in output
    assert len(server.served) <= 60 + 16
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

    assert "judge: fake at http" in output
    assert "Incorrect API key (is the key right?)" in output
    assert all(is_preflight(entry.body) for entry in server.served)
    assert project.loops() == []


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_while_the_judge_is_asked_loses_no_answer_and_is_resumed(project, server, signum):
    server.script = lambda body: None if is_preflight(body) else Fault(delay_s=0.5)
    process = project.start("run", "--env=test", start_new_session=True)
    while len(server.asked()) < 40:
        assert process.poll() is None
        os.sched_yield()

    process.send_signal(signum)
    output, _ = process.communicate(timeout=60)
    asked = server.asked()
    server.script = lambda body: None
    project.kedro("run", "--env=test", "--resume", code=2)

    assert process.returncode == 128 + signum
    assert "--resume" in output
    assert "Traceback" not in output
    assert not [body for body in server.asked()[len(asked) :] if body in asked]
