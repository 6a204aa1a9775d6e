"""A raw file becomes the three splits, by the command that a user types."""

import csv
import json
import stat

from tests.fakes.openai_server import FakeOpenAI

TOPICS = ["invoice", "login", "crash", "refund", "export", "search", "upload", "theme", "backup"]
PLACES = ["Lisbon", "Quito", "Oslo", "Perth", "Accra", "Hanoi", "Turin", "Omaha", "Malmö", "Kyoto"]


def write_csv(project, *extra):
    rows = [
        [f"{number:03d}", f"{topic} {place} {topic}{place}", "NA", topic]
        for number, (topic, place) in enumerate((t, p) for t in TOPICS for p in PLACES)
    ]
    path = project.folder / "data/01_raw/export.csv"
    with path.open("w", encoding="utf-8-sig", newline="") as file:
        csv.writer(file).writerows([["key", "Question", "Answer", "topic"], *rows, *extra])
    columns = {"id": "key", "prompt": "Question", "response": "Answer", "category": "topic"}
    project.configure("catalog.yml", {"raw_pairs": {"filepath": "data/01_raw/export.csv"}})
    project.configure("parameters.yml", {"coverage": {"columns": columns}})
    return rows


def rows_of(project, split):
    path = project.folder / f"data/01_raw/coverage_{split}.jsonl"
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_a_csv_file_becomes_the_coverage_set_that_the_loop_reads(project):
    rows = write_csv(project)

    output = project.kedro("run", "--env=test", "--pipelines=coverage")
    with FakeOpenAI() as server:
        endpoint = {"base_url": server.base_url, "model": "another-model"}
        project.configure("catalog.yml", {"service_llm": endpoint, "judge": endpoint})
        project.kedro("run", "--env=test", "--pipelines=data_synthesis")

    modes = {path.stat().st_mode for path in project.folder.glob("data/01_raw/coverage_t*")}
    assert {stat.S_IMODE(mode) for mode in modes} == {0o600}
    splits = {split: rows_of(project, split) for split in ("train", "test", "holdout")}
    assert {name: len(split) for name, split in splits.items()} == {
        "train": 45,
        "test": 23,
        "holdout": 22,
    }
    found = [row for split in splits.values() for row in split]
    assert sorted(
        [row["id"], row["prompt"], row["response"], row["category"]] for row in found
    ) == sorted(rows)
    assert output.count("test prompts are fewer than 100") == 1
    (version,) = project.versions("05_model_input/training_set.jsonl")
    training_set = project.load("05_model_input/training_set.jsonl", version).splitlines()
    assert [json.loads(row)["id"] for row in training_set] == [row["id"] for row in splits["train"]]


def test_bad_rows_are_named_before_anything_is_written_or_asked(project):
    write_csv(project, ["007", "How?", "", "x"], ["090", "Why?"])
    before = rows_of(project, "train")
    with FakeOpenAI() as server:
        endpoint = {"base_url": server.base_url, "model": "another-model"}
        project.configure("catalog.yml", {"service_llm": endpoint, "judge": endpoint})

        output = project.kedro("run", "--env=test", "--pipelines=coverage", code=1)

        assert server.served == []
    assert "Traceback" not in output
    assert output.count("cannot be used") == 1
    assert (
        "Error: 2 of 92 rows cannot be used:\n"
        "  data/01_raw/export.csv:92:Answer: empty, or white space alone\n"
        "  data/01_raw/export.csv:92:key: an id that stands twice "
        "(first in data/01_raw/export.csv:9)\n"
        "  data/01_raw/export.csv:93:row: 2 cells where the header has 4\n"
    ) in output
    assert rows_of(project, "train") == before
    assert not (project.data / "03_primary").exists()
