"""What `kedro doctor` finds, and that it finds all at once."""

import json
import re

import pytest

from tests.fakes.openai_server import FakeOpenAI

SECONDS = 60
"""Of a machine that does other things beside; alone it takes 7."""


def examined(project, *arguments, code=0):
    return " ".join(project.kedro("doctor", *arguments, code=code, timeout=SECONDS).split())


def test_a_healthy_project_has_nothing_to_mend_and_an_estimate_from_its_last_loop(finished):
    project, _ = finished
    (loop,) = project.loops()
    before = sorted(path for path in project.data.rglob("*") if "journal" not in path.name)

    output = examined(project, "--env=test")

    assert "nothing to mend" in output
    assert re.search(
        r"free at data/test; a loop needs .* \(checkpoints .*, 2 iterations .*\)", output
    )
    assert "coverage_test warning 24 pairs → 100 or more make the verdict" in output
    assert "stand-in-triage is both teacher and judge" in output
    assert f"min for 2 iterations, as loop {loop} took on this machine" in output
    # 3 requests for 24 pairs; 2 × 24 test and 24 holdout judgements, 2 × 55 of the audit.
    assert "service_llm 3 requests" in output
    assert "judge 182 requests" in output
    assert sorted(path for path in project.data.rglob("*") if "journal" not in path.name) == before


def test_all_problems_are_told_at_once_and_without_a_key_also_what_a_loop_costs(project):
    train = project.folder / "data/01_raw/coverage_train.jsonl"
    pair = json.loads(train.read_text(encoding="utf-8").splitlines()[0])
    test = project.folder / "data/01_raw/coverage_test.jsonl"
    with test.open("a", encoding="utf-8") as file:
        file.write(json.dumps({**pair, "id": "copied"}) + "\n")
    small = {"model_id": None, "load_in_4bit": False}
    entries = {"seeds": {"versoned": True}, "base_model": small}
    project.configure("catalog.yml", entries, env="openai")
    # A stand-in for a bucket, which is not asked for its space.
    places = {"data": "memory://root", "local_data": "data/openai"}
    project.configure("globals.yml", places, env="openai")

    output = examined(
        project,
        "--env=openai",
        "--params=fine_tuning.max_length=80,loop.budget.usd=0.01",
        code=1,
    )

    assert output.count("api.openai.com needs a key") == 2
    assert "coverage_test and coverage_train share 1 prompt(s)" in output
    assert "of 60 coverage-train pairs cannot be learned, the first:" in output
    assert "seeds.versoned: an entry of this type has no such key; did you mean vers" in output
    assert "the cap loop.budget.usd will probably end it" in output
    assert "rough, within a factor of 3" in output
    assert "memory://root is object storage, whose space is not looked at" in output
    assert re.search(
        r"free at data/openai; a loop needs about [\d.]+ \wB \(checkpoints [\d.]+ \wB\)", output
    )
    assert "5 to mend" in output


def test_a_model_that_cannot_be_used_and_an_endpoint_that_is_down_are_told(project):
    project.configure("catalog.yml", {"base_model": {"filepath": "data/01_raw"}})
    (project.folder / "data/01_raw/config.json").write_text("{}", encoding="utf-8")
    with FakeOpenAI() as server:
        gone = {"base_url": server.base_url, "model": "stand-in-triage"}
    project.configure("catalog.yml", {"service_llm": gone})

    unknown = "--params=data_synthesis.strategies={hardest: 1}"
    output = examined(project, "--env=test", unknown, code=1)

    assert "base_model problem" in output
    assert "strategies problem data_synthesis.strategies names hardest" in output
    assert f"service_llm problem stand-in-triage at {gone['base_url']}" in output
    assert "judge ok" in output
    assert "Traceback" not in output


@pytest.mark.parametrize("typo", ["evaluation.taget_precision=90", "loop.budget.us=1"])
def test_a_parameter_that_does_not_exist_is_named(project, typo):
    key = typo.partition("=")[0]

    assert f"{key}: there is no such key; did you mean" in examined(
        project, f"--params={typo}", code=1
    )
