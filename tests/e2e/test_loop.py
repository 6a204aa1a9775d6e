import json
import stat

import pytest
import yaml
from huggingface_hub import DatasetCard


def versioned_entries(project):
    catalog = (project.folder / "conf/base/catalog_iterations.yml").read_text(encoding="utf-8")
    entries = yaml.safe_load(catalog.replace("${globals:data}", str(project.data)))
    return {
        name: entry["filepath"]
        for name, entry in entries.items()
        if not name.startswith("_") and entry.get("versioned") and "filepath" in entry
    }


def test_every_entry_has_one_version_per_iteration_and_the_ledger_says_the_same(finished):
    project, _ = finished
    (loop,) = project.loops()
    expected = [f"{loop}-i001", f"{loop}-i002"]

    entries = versioned_entries(project)

    assert len(entries) > 20
    for path in entries.values():
        assert project.versions(path) == expected, path
    for iteration in ("i001", "i002"):
        commits = (project.data / "ledger" / loop / iteration / "committed").glob("*.json")
        assert {commit.stem for commit in commits} == set(entries)


def test_nobody_but_the_owner_can_read_what_a_run_has_made(finished):
    project, _ = finished

    made = [project.data, *project.data.rglob("*")]

    assert len(made) > 100
    assert [path for path in made if path.stat().st_mode & (stat.S_IRWXG | stat.S_IRWXO)] == []


def test_the_loop_is_closed_with_the_reason_of_its_verdict(finished):
    project, _ = finished
    (loop,) = project.loops()

    closed = json.loads((project.data / "ledger" / loop / "closed.json").read_text())
    verdict = project.json("08_reporting/verdict.json", f"{loop}-i002")

    assert (closed["iteration"], closed["reason"]) == (2, "max_iterations")
    assert verdict["stop"]
    assert not verdict["target_reached"]


def test_the_table_shows_what_the_catalog_holds(finished):
    project, output = finished
    (loop,) = project.loops()

    for entry in project.json("08_reporting/iteration_history.json", f"{loop}-i002"):
        precision = entry["assessment"]["precision"]
        shown = f"{precision['mean']:.1f} ± {precision['standard_error']:.1f}"
        row = next(line for line in output.splitlines() if f" {entry['training_pairs']} │" in line)
        assert shown in row
    assert "stopped without reaching the target: max_iterations" in output


def test_the_first_iteration_trains_on_the_coverage_set_and_later_ones_on_more(finished):
    project, _ = finished
    (loop,) = project.loops()

    sets = [
        project.load("05_model_input/training_set.jsonl", f"{loop}-i00{n}").decode().splitlines()
        for n in (1, 2)
    ]
    sources = [[json.loads(row)["origin"] for row in rows] for rows in sets]

    assert sources[0] == ["coverage"] * 60
    assert sets[1][:60] == sets[0]
    assert len(sets[1]) > 75
    assert set(sources[1][60:]) == {"synthetic"}


def test_what_the_first_iteration_found_weak_is_aimed_at_in_the_second(finished):
    project, _ = finished
    (loop,) = project.loops()

    def rows(path, iteration):
        lines = project.load(path, f"{loop}-i{iteration:03d}").decode().splitlines()
        return [json.loads(line) for line in lines]

    weak = {row["seed_id"] for row in rows("08_reporting/weak_spots.jsonl", 1)}
    seeds = rows("02_intermediate/seeds.jsonl", 2)
    aimed = [seed["seed_id"] for seed in seeds if seed["turn"] == 0]

    assert len(aimed) == round(0.5 * len(seeds)) > 0
    assert set(aimed) <= weak
    report = project.load("08_reporting/evaluation_report.html", f"{loop}-i002").decode()
    assert "of these aimed" in report


def test_no_test_or_holdout_ticket_is_in_a_training_set_or_a_request_to_the_teacher(finished):
    import sqlite3

    project, _ = finished
    reserved = {
        json.loads(line)["prompt"]
        for name in ("test", "holdout")
        for line in (project.data.parent / f"01_raw/coverage_{name}.jsonl").read_text().splitlines()
    }
    (loop,) = project.loops()

    training_set = project.load("05_model_input/training_set.jsonl", f"{loop}-i002").decode()
    journal = sqlite3.connect(project.data / "journal.sqlite")
    asked = [row[0] for row in journal.execute("SELECT request FROM attempts")]
    journal.close()
    to_teacher = [request for request in asked if "new examples" in request]

    assert not any(json.loads(row)["prompt"] in reserved for row in training_set.splitlines())
    assert len(to_teacher) == 3
    for prompt in reserved:
        assert not any(json.dumps(prompt)[1:-1] in request for request in to_teacher)


def test_card_manifest_and_figures_tell_where_the_pairs_are_from(finished):
    project, _ = finished
    (loop,) = project.loops()
    second = f"{loop}-i002"
    rows = project.load("05_model_input/training_set.jsonl", second).decode().splitlines()
    synthetic = sum(json.loads(row)["origin"] == "synthetic" for row in rows)

    card = project.load("08_reporting/data_card.md", second).decode()
    adapter = project.data / "06_models/adapter" / second / "adapter"
    taught = json.loads((adapter / "manifest.json").read_text())["training_data"]
    figures = project.json("08_reporting/diversity.json", second)

    assert "**The teacher stand-in-triage is an embedded stand-in" in DatasetCard(card).text
    assert f"| 2 | {synthetic} |" in card
    assert not any(json.dumps(json.loads(row)["prompt"])[1:-1] in card for row in rows)
    assert taught["pairs"] == {"coverage": 60, "synthetic": synthetic}
    assert taught["teachers"] == ["stand-in-triage"]
    assert (figures["new_pairs"], figures["iteration"]) == (synthetic, 2)
    assert 0 < figures["test_reached"] < 1


def test_the_holdout_stays_closed_while_the_target_is_missed(finished):
    project, _ = finished
    (loop,) = project.loops()

    for name in ("holdout_prompts", "holdout_responses", "holdout_judge_replies"):
        assert project.load(f"07_model_output/{name}.jsonl", f"{loop}-i002") == b""


def test_report_and_log_say_that_the_service_llm_is_a_stand_in(finished):
    project, output = finished
    (loop,) = project.loops()

    for name in ("evaluation_report", "loop_report"):
        report = project.load(f"08_reporting/{name}.html", f"{loop}-i002").decode()
        assert "an embedded stand-in" in report
        path = project.data / f"08_reporting/{name}.html/{loop}-i002/{name}.html"
        assert f": {path.as_uri()}" in output
    assert "an embedded stand-in, no LLM" in output
    assert "stand-in-triage is both teacher and judge" in " ".join(output.split())


@pytest.mark.soak  # test_slices.py has its sibling in each run
def test_a_run_after_a_finished_loop_opens_a_new_one_and_asks_for_no_known_pair(after_a_loop):
    project = after_a_loop
    (first,) = project.loops()
    before = project.load("02_intermediate/synthesis_replies.jsonl", f"{first}-i002")

    project.kedro("run", "--env=test", code=2)

    second = project.loops()[1]
    assert project.load("02_intermediate/synthesis_replies.jsonl", f"{second}-i002") == before
    assert project.load("05_model_input/training_set.jsonl", f"{second}-i002") == project.load(
        "05_model_input/training_set.jsonl", f"{first}-i002"
    )
