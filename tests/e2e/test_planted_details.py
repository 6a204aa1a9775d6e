"""550 personal details of eleven kinds in the demo's tickets, and a loop over them."""

import html
import json
import random

import pytest

from tests.e2e.conftest import make_project
from tests.fakes.openai_server import FakeOpenAI
from tests.personal_details import FORMATTED, KINDS, plant, spellings

PER_KIND = 50
QUICK = (
    *("evaluation.target_similarity=0", "evaluation.target_precision=0"),
    *("evaluation.decoding.max_new_tokens=1", "fine_tuning.epochs=0.1"),
)
NO_POINTS = '{"similarity": 0, "precision": 0}'
"""Then the judge fails its audit, and even a target of 0 is not met."""
SPLITS = ("train", "test", "holdout")


def plant_all(project):
    """Hide the details in the three coverage files; give those that have a form of their own."""
    rng = random.Random(17)
    planted = [plant(kind, rng) for kind in KINDS for _ in range(PER_KIND)]
    rng.shuffle(planted)
    paths = [project.folder / f"data/01_raw/coverage_{split}.jsonl" for split in SPLITS]
    tables = [[json.loads(line) for line in path.read_text().splitlines()] for path in paths]
    rows = [row for table in tables for row in table]
    for number, each in enumerate(planted):
        row = rows[number % len(rows)]
        row["prompt"] += f" {each.sentence}"
        row["source"] = f"export: {each.sentence}"
        if number % 5 == 0:
            labels = json.loads(row["response"])
            row["response"] = json.dumps({**labels, "reference": each.text}, ensure_ascii=False)
    for path, table in zip(paths, tables, strict=True):
        lines = (json.dumps(row, ensure_ascii=False) + "\n" for row in table)
        path.write_text("".join(lines), encoding="utf-8")
    return [each.secret for each in planted if each.kind in FORMATTED]


def is_taught(server):
    """Whether new pairs were asked for: in the second iteration, which then opens the holdout."""
    return any("new examples" in body["messages"][0]["content"] for body in server.asked())


@pytest.fixture(scope="module")
def told(tmp_path_factory):
    """Where the details must not be seen, by name, and the details; and the project."""
    project = make_project(tmp_path_factory.mktemp("private") / "project")
    secrets = plant_all(project)
    with FakeOpenAI() as server, pytest.MonkeyPatch.context() as patch:
        patch.setenv("KEDRO_ENV", "test")
        endpoint = {"base_url": server.base_url, "model": "fake"}
        project.configure("catalog.yml", {"service_llm": endpoint, "judge": endpoint})
        server.rewrite = lambda text: text if is_taught(server) else NO_POINTS
        log = project.kedro("run", f"--params={','.join(QUICK)}")
        log += project.kedro("viz", "build", "--include-previews")
        requests = [
            message["content"] for each in server.served for message in each.body["messages"]
        ]
    pages = [path.read_text("utf-8") for path in project.data.rglob("*.html/*-i002/*")]
    previews = [
        path.read_text("utf-8") for path in project.folder.glob("build/api/**/*") if path.is_file()
    ]
    seen = {
        "requests": requests,
        "log": [log],
        "reports": [html.unescape(page) for page in pages],
        "data card": [path.read_text("utf-8") for path in project.data.rglob("data_card.md/*/*")],
        "previews": previews,
        "journal": [(project.data / "journal.sqlite").read_bytes().decode("utf-8", "replace")],
        "training set": [
            path.read_text("utf-8") for path in project.data.rglob("training_set.jsonl/*/*")
        ],
    }
    return seen, secrets, project


def test_no_detail_is_in_anything_that_leaves_the_machine_or_that_people_look_at(told):
    seen, secrets, _ = told

    assert len(secrets) == len(FORMATTED) * PER_KIND
    for where, texts in seen.items():
        everything = "\n".join(texts).casefold()
        assert len(everything) > 1000, where
        leaked = [
            secret for secret in secrets if any(each in everything for each in spellings(secret))
        ]
        assert leaked == [], where


def test_pairs_of_all_splits_were_sent(told):
    _, _, project = told
    (loop,) = project.loops()

    for entry in ("synthesis_replies", "judge_replies", "holdout_judge_replies"):
        folder = "02_intermediate" if entry == "synthesis_replies" else "07_model_output"
        assert project.load(f"{folder}/{entry}.jsonl", f"{loop}-i002"), entry


def test_what_trains_is_what_was_sent(told):
    seen, _, project = told
    (loop,) = project.loops()

    seeds = project.load("02_intermediate/seeds.jsonl", f"{loop}-i002").decode().splitlines()
    training_set = project.load("05_model_input/training_set.jsonl", f"{loop}-i002").decode()
    trained = {row["id"]: row for row in map(json.loads, training_set.splitlines())}
    sent = "\n".join(seen["requests"])
    for seed in map(json.loads, seeds):
        pair = {name: seed[name] for name in ("prompt", "response")}
        assert {name: trained[seed["seed_id"]][name] for name in pair} == pair
        assert json.dumps(pair, ensure_ascii=False) in sent


def test_the_report_counts_what_was_replaced(told):
    seen, _, project = told
    (loop,) = project.loops()

    privacy = project.json("08_reporting/synthesis_report.json", f"{loop}-i002")["privacy"]
    assert privacy["detect"] == "patterns"
    assert set(privacy["coverage"]) == set(FORMATTED)
    assert privacy["requests"] == {}
    assert f"{privacy['coverage']['email']} email" in "".join(seen["reports"])
    assert "privacy: personal details are replaced (patterns)" in seen["log"][0]
