"""Each recipe of docs/swaps.md, in its very words."""

import json
import re
import shutil
import sqlite3
from pathlib import Path

import pandas as pd
import pytest
from datasets import Dataset
from kedro.framework.session import KedroSession
from kedro.framework.startup import bootstrap_project

from tests.fakes.openai_server import FakeOpenAI, completion

REPOSITORY = Path(__file__).parents[2]
PAGE = (REPOSITORY / "docs/swaps.md").read_text(encoding="utf-8")
RECIPES = dict(re.findall(r"```yaml (\w+)\n(.*?)```", PAGE, re.DOTALL))


def swap(project, *names, **edits):
    """Put recipes into the environment, each a file of its own."""
    for name in names:
        text = RECIPES[name]
        for old, new in edits.items():
            text = text.replace(old, new)
        (project.folder / f"conf/test/catalog_{name}.yml").write_text(text, encoding="utf-8")


def catalog_of(project):
    bootstrap_project(REPOSITORY)
    source = str(project.folder / "conf")
    with KedroSession.create(project.folder, env="test", conf_source=source) as session:
        return session.load_context().catalog


def coverage_train(project):
    source = project.folder / "data/01_raw/coverage_train.jsonl"
    return pd.DataFrame([json.loads(line) for line in source.read_text("utf-8").splitlines()])


WRITE = {
    "csv": lambda table, path: table.to_csv(path.with_suffix(".csv"), index=False),
    "parquet": lambda table, path: table.to_parquet(path.with_suffix(".parquet"), index=False),
    "huggingface": lambda table, path: Dataset.from_pandas(table).save_to_disk(path),
}


@pytest.mark.parametrize("recipe", WRITE)
def test_a_coverage_file_of_another_format_holds_the_same_pairs(project, recipe):
    before = catalog_of(project).load("coverage_train")
    WRITE[recipe](coverage_train(project), project.folder / "data/01_raw/coverage_train")
    (project.folder / "data/01_raw/coverage_train.jsonl").unlink()
    swap(project, recipe)

    after = catalog_of(project).load("coverage_train")

    pd.testing.assert_frame_equal(after, before)


def test_the_coverage_pipeline_writes_the_formats_that_the_catalog_names(project):
    (project.folder / "data/01_raw/coverage_train.jsonl").rename(
        project.folder / "data/01_raw/raw_pairs.jsonl"
    )
    swap(project, "huggingface")
    shares = "--params=coverage.shares.train=1,coverage.shares.test=1,coverage.shares.holdout=1"

    project.kedro("run", "--env=test", "--pipelines=coverage", shares)

    assert len(catalog_of(project).load("coverage_train")) == 20


def test_the_entry_of_a_model_of_the_hub_is_read(project):
    (project.folder / "conf/test/catalog.yml").unlink()
    swap(project, "hub")

    spec = catalog_of(project).load("base_model")

    assert (spec.name_or_path, spec.load_in_4bit) == ("HuggingFaceTB/SmolLM2-1.7B-Instruct", True)


READY = [
    {"prompt": f"Triage this support ticket as JSON.\n{text}", "response": "{}"}
    for text in (
        "The zebra print on my lamp shade fades in sunlight",
        "Could you reopen invoice fourteen for our auditors please",
        "Notes from the meeting vanished once Quillow restarted itself",
    )
]


def test_a_loop_runs_with_all_of_it_swapped_but_the_coverage_set(project):
    """Teacher, judge, base model, ready pairs, and the training set as Parquet."""
    pairs = project.folder / "data/01_raw/my_pairs.jsonl"
    pairs.write_text("".join(json.dumps(row) + "\n" for row in READY), encoding="utf-8")
    shutil.copytree(project.folder / "data/06_models/random-2-layer", project.folder / "my-model")
    (project.folder / "conf/test/catalog.yml").unlink()
    with FakeOpenAI() as server:
        address = {"http://127.0.0.1:8000/v1": server.base_url}
        swap(project, "service_llm", "judge", **address)
        swap(project, "base_model", "ready_pairs", "training_set")
        project.kedro("run", "--env=test", "--params=data_synthesis.pairs_per_iteration=2", code=2)
        asked = server.asked()

    (loop,) = project.loops()
    path = f"05_model_input/training_set.parquet/{loop}-i002/training_set.parquet"
    rows = pd.read_parquet(project.data / path)
    assert list(rows["prompt"])[60:] == [row["prompt"] for row in READY[:2]]
    assert not (project.data / "05_model_input/training_set.jsonl").exists()
    manifest = project.data / f"06_models/adapter/{loop}-i002/adapter/manifest.json"
    assert json.loads(manifest.read_text("utf-8"))["base_model"]["name_or_path"] == "my-model"
    # Ready pairs stand in for the teacher, which is asked nothing.
    assert {body["model"] for body in asked} == {"my-judge"}
    assert all("You judge" in body["messages"][0]["content"] for body in asked)


def test_another_service_llm_is_asked_for_new_pairs(after_a_loop):
    project = after_a_loop
    with FakeOpenAI() as server:
        swap(project, "service_llm", **{"http://127.0.0.1:8000/v1": server.base_url})
        project.kedro("run", "--env=test", "--pipelines=data_synthesis")
        asked = server.asked()

    assert {body["model"] for body in asked} == {"my-teacher"}
    assert any("new examples" in body["messages"][0]["content"] for body in asked)


def test_a_vllm_server_answers_for_the_local_llm_as_the_adapter_of_the_iteration(after_a_loop):
    project = after_a_loop
    (loop,) = project.loops()

    def answer(body):
        return completion(f"{body['model']} has read this", model=body["model"])

    with FakeOpenAI(answer=answer, models=["base-model"]) as server:
        endpoint = {"engine": "endpoint", "base_url": server.base_url, "model": "base-model"}
        project.configure("catalog.yml", {"inference": endpoint})
        project.kedro("run", "--env=test", "--pipelines=evaluation")

    ((name, folder),) = server.adapters.items()
    assert folder == project.data / f"06_models/adapter/{loop}-i002/adapter"
    path = "07_model_output/responses.jsonl"
    (version,) = set(project.versions(path)) - {f"{loop}-i001", f"{loop}-i002"}
    rows = [json.loads(row) for row in project.load(path, version).decode().splitlines()]
    assert {row["response"] for row in rows} == {f"{name} has read this"}
    prompts = (project.folder / "data/01_raw/coverage_test.jsonl").read_text(encoding="utf-8")
    asked = [body["messages"][-1]["content"] for body in server.asked()]
    assert {json.loads(row)["prompt"] for row in prompts.splitlines()} < set(asked)
    measured = project.json("08_reporting/measurement.json", version)["inference"]
    assert measured == {"engine": "endpoint", "model": "base-model"}
    connection = sqlite3.connect(project.data / "journal.sqlite")
    (paid,) = connection.execute(
        "SELECT COUNT(*) FROM attempts WHERE account = ? AND model = 'stand-in-triage'", (version,)
    ).fetchone()
    connection.close()
    assert project.json("08_reporting/costs.json", version)["requests"] == paid
