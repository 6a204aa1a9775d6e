"""Data and models are swapped by YAML alone."""

import json
import shutil
import sqlite3

import pandas as pd
import pytest

from tests.fakes.openai_server import FakeOpenAI, completion


def only_version(project, path):
    (version,) = project.versions(path)
    return version


TEXT_ONLY = {"dtype": "str", "keep_default_na": False}


@pytest.mark.parametrize(
    ("entry", "ending", "write"),
    [
        ({"type": "pandas.CSVDataset", "load_args": TEXT_ONLY}, "csv", pd.DataFrame.to_csv),
        ({"type": "pandas.ParquetDataset"}, "parquet", pd.DataFrame.to_parquet),
    ],
    ids=["csv", "parquet"],
)
def test_a_coverage_set_of_another_format_gives_the_same_training_set(
    project, finished, entry, ending, write
):
    source = project.folder / "data/01_raw/coverage_train.jsonl"
    frame = pd.DataFrame([json.loads(line) for line in source.read_text().splitlines()])
    write(frame, source.with_suffix(f".{ending}"), index=False)
    source.unlink()
    file = {"filepath": f"data/01_raw/coverage_train.{ending}"}
    project.configure("catalog.yml", {"coverage_train": {**entry, **file}})

    project.kedro("run", "--env=test", "--pipelines=data_synthesis")

    path = "05_model_input/training_set.jsonl"
    reference, _ = finished
    (loop,) = reference.loops()
    made = project.load(path, only_version(project, path))
    assert made == reference.load(path, f"{loop}-i001")


def test_another_base_model_folder_is_trained(after_a_loop):
    project = after_a_loop
    (loop,) = project.loops()
    own = project.folder / "my-model"
    shutil.copytree(project.folder / "data/06_models/random-2-layer", own)
    project.configure("catalog.yml", {"base_model": {"filepath": "my-model"}})

    afresh = "--params=fine_tuning.start=base"
    project.kedro("run", "--env=test", "--pipelines=fine_tuning", afresh)

    versions = project.versions("06_models/adapter")
    (new,) = (version for version in versions if not version.startswith(loop))
    folder = project.data / "06_models/adapter" / new
    manifest = json.loads((folder / "adapter/manifest.json").read_text())
    assert manifest["base_model"]["name_or_path"] == "my-model"


def test_another_endpoint_and_ready_pairs_take_the_stand_ins_place(project):
    ready = [
        {"prompt": f"Triage this support ticket as JSON.\n{text}", "response": "{}"}
        for text in (
            "The zebra print on my lamp shade fades in sunlight",
            "Could you reopen invoice fourteen for our auditors please",
            "Notes from the meeting vanished once Quillow restarted itself",
        )
    ]
    path = project.folder / "data/01_raw/ready_pairs.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in ready), encoding="utf-8")
    with FakeOpenAI() as server:
        endpoint = {"base_url": server.base_url, "model": "another-model"}
        project.configure("catalog.yml", {"service_llm": endpoint, "judge": endpoint})

        project.kedro("run", "--env=test", "--params=data_synthesis.pairs_per_iteration=2", code=2)

        asked = server.asked()
    (loop,) = project.loops()
    rows = project.load("05_model_input/training_set.jsonl", f"{loop}-i002").decode().splitlines()
    assert [json.loads(row)["prompt"] for row in rows[60:]] == [row["prompt"] for row in ready[:2]]
    assert {body["model"] for body in asked} == {"another-model"}
    assert all("You judge" in body["messages"][0]["content"] for body in asked)


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
