"""Data and models are swapped by YAML alone."""

import json
import shutil

import pandas as pd
import pytest

from tests.fakes.openai_server import FakeOpenAI


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


def test_another_base_model_folder_is_trained(project):
    own = project.folder / "my-model"
    shutil.copytree(project.folder / "data/06_models/random-2-layer", own)
    project.configure("catalog.yml", {"base_model": {"filepath": "my-model"}})

    project.kedro("run", "--env=test", "--pipelines=data_synthesis")
    project.kedro("run", "--env=test", "--pipelines=fine_tuning")

    folder = project.data / "06_models/adapter" / only_version(project, "06_models/adapter")
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
