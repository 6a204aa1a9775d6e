"""What a loop pays for, and what it does not."""

import sqlite3

import pytest

from tests.fakes.openai_server import FakeOpenAI, Fault, is_preflight


@pytest.fixture
def server(project):
    with FakeOpenAI() as running:
        endpoint = {"base_url": running.base_url, "model": "fake"}
        project.configure("catalog.yml", {"service_llm": endpoint, "judge": endpoint})
        yield running


def test_a_second_run_with_nothing_changed_asks_for_nothing(project, server):
    project.kedro("run", "--env=test", code=2)
    asked = len(server.asked())

    project.kedro("run", "--env=test", code=2)

    assert asked > 240
    assert len(server.asked()) == asked


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
