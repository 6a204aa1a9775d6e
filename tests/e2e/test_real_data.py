"""Real pairs of GPT-4o, which are not ours to keep: read where they lie, skipped elsewhere."""

import json
from pathlib import Path

import pytest

from tests.fakes.openai_server import FakeOpenAI, completion

REAL = Path(__file__).parents[3] / "shared/data/gpt4o_classification.jsonl"


def score(body):
    return completion('{"similarity": 50, "precision": 50}')


@pytest.mark.soak
@pytest.mark.skipif(not REAL.exists(), reason="the real pairs are not at hand")
def test_real_pairs_go_through_coverage_and_a_loop_on_the_rest_of_them(project):
    lines = REAL.read_text(encoding="utf-8").strip().split("\n")
    raw = project.folder / "data/01_raw"
    raw.joinpath("raw_pairs.jsonl").write_text("\n".join(lines[:240]), encoding="utf-8")
    with raw.joinpath("ready_pairs.jsonl").open("w", encoding="utf-8") as ready:
        for line in lines[200:]:  # 40 of them are coverage pairs too
            prompt, response = (message["content"] for message in json.loads(line)["messages"])
            ready.write(json.dumps({"prompt": prompt, "response": response}) + "\n")

    said = project.kedro(
        "run", "--env=test", "--pipelines=coverage", "--params=coverage.on_bad_rows=drop"
    )
    refused = project.kedro("run", "--env=test", code=1)
    with FakeOpenAI(answer=score) as server:
        judge = {"base_url": server.base_url, "model": "fake-judge"}
        project.configure("catalog.yml", {"judge": judge})
        project.kedro(
            "run", "--env=test", "--params=data_synthesis.pairs_per_iteration=100", code=2
        )

    assert "judge: stand-in-triage refuses this task: I am a stand-in" in " ".join(refused.split())
    assert "fewer than 100" in " ".join(said.split())
    (loop,) = project.loops()
    report = project.json("08_reporting/synthesis_report.json", f"{loop}-i002")
    assert report["requests"] == 0
    assert report["kept"] + sum(report["dropped"].values()) == 100
    assert report["dropped"]["near_copy_of_test"] + report["dropped"]["near_duplicate"] >= 40
    training_set = project.load("05_model_input/training_set.jsonl", f"{loop}-i002").decode()
    rows = [json.loads(line) for line in training_set.strip().split("\n")]
    assert sum(row["origin"] == "ready" for row in rows) == report["kept"] > 30
    reserved = {
        json.loads(line)["prompt"]
        for name in ("test", "holdout")
        for line in raw.joinpath(f"coverage_{name}.jsonl").read_text("utf-8").strip().split("\n")
    }
    assert reserved.isdisjoint(row["prompt"] for row in rows)
    assert "fake-judge" in server.asked()[0]["model"]
