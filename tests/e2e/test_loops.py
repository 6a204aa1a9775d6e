"""What `kedro loops` tells of a finished loop, and what it removes."""

import json
import os

import pytest


def told(project, *arguments):
    return json.loads(project.kedro("loops", *arguments, "--env=test", "--json"))


def test_the_list_tells_what_the_catalog_and_the_ledger_have(finished):
    project, _ = finished
    (loop,) = project.loops()
    verdict = project.json("08_reporting/verdict.json", f"{loop}-i002")
    entries = project.json("08_reporting/iteration_history.json", f"{loop}-i002")

    (listed,) = told(project)

    assert (listed["loop"], listed["ended"]) == (loop, "max_iterations")
    first, second = listed["iterations"]
    for row, entry in ((first, entries[0]), (second, entries[1])):
        assert row["state"] == "complete"
        assert row["training_pairs"] == entry["training_pairs"]
        assert row["precision"]["lower_bound"] == entry["assessment"]["precision"]["lower_bound"]
        assert row["training_seconds"] == entry["training"]["seconds"] < row["seconds"]
        assert row["bytes"] > 1_000_000  # an adapter, twice
    assert first["tokens"] + second["tokens"] == entries[1]["costs"]["tokens"]
    assert [row["best"] for row in (first, second)].index(True) + 1 == verdict["best_iteration"]
    assert second["reason"] == "max_iterations"


def test_two_iterations_are_compared_as_the_loop_itself_has_compared_them(finished):
    project, _ = finished
    (loop,) = project.loops()
    entries = project.json("08_reporting/iteration_history.json", f"{loop}-i002")

    compared = json.loads(
        project.kedro("loops", "--json", "--env=test", "compare", f"{loop}/1", f"{loop}/2")
    )

    previous = entries[1]["assessment"]["compared"]["previous"]
    assert compared["gains"] == {name: previous[name] for name in ("similarity", "precision")}
    assert compared["measured"] == compared["parameters"] == compared["inputs"] == {}


def test_scores_that_were_measured_otherwise_are_not_compared(after_a_loop):
    project = after_a_loop
    (loop,) = project.loops()
    path = project.data / f"08_reporting/iteration_history.json/{loop}-i002/iteration_history.json"
    entries = json.loads(path.read_text(encoding="utf-8"))
    entries[1]["assessment"]["measured"]["judge_prompt"] = "another"
    path.write_text(json.dumps(entries), encoding="utf-8")

    output = project.kedro("loops", "--env=test", "compare", f"{loop}/1", f"{loop}/2")

    assert "not comparable" in output
    assert "since they were measured otherwise (judge_prompt)" in output


def test_an_unknown_iteration_is_refused_by_name(finished):
    project, _ = finished
    (loop,) = project.loops()

    output = project.kedro("loops", "compare", f"{loop}/9", loop, "--env=test", code=1)

    assert f"loop {loop} has no complete iteration '9'; complete are: 1, 2" in output


@pytest.fixture
def with_a_better_one(after_a_loop):
    """The finished loop, whose second iteration now counts as the best, so that one can go."""
    (loop,) = after_a_loop.loops()
    path = after_a_loop.data / f"ledger/{loop}/i002/verdict.json"
    verdict = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps({**verdict, "best_iteration": 2}), encoding="utf-8")
    return after_a_loop


def test_pruning_removes_an_iteration_and_keeps_its_scores(with_a_better_one):
    project = with_a_better_one
    (loop,) = project.loops()
    journal = (project.data / "journal.sqlite").stat().st_mtime_ns
    before = told(project)[0]["iterations"]

    only_shown = project.kedro("loops", "prune", "--env=test", "--dry-run")
    assert "nothing was changed" in only_shown
    assert told(project)[0]["iterations"] == before

    output = project.kedro("loops", "prune", "--env=test", "--yes")

    assert " ".join(output.split()).count(f"{loop} 1") == 1
    first, second = told(project)[0]["iterations"]
    assert first["state"] == "pruned"
    assert first["bytes"] < before[0]["bytes"]
    assert first["precision"] == before[0]["precision"]
    assert second == before[1]
    assert not list(project.data.glob(f"08_reporting/evaluation_report.html/{loop}-i001"))
    assert (project.data / "journal.sqlite").stat().st_mtime_ns == journal
    project.kedro("run", "--env=test", "--nodes=evaluation.assess_scores")  # reads iteration 1


def test_pruning_leaves_everything_where_it_is_not_confirmed(with_a_better_one):
    project = with_a_better_one
    (loop,) = project.loops()

    with open(os.devnull) as nobody:
        project.kedro("loops", "prune", "--env=test", code=1, stdin=nobody)

    assert project.versions("06_models/adapter") == [f"{loop}-i001", f"{loop}-i002"]
    assert not list((project.data / "ledger").rglob("pruned.json"))
