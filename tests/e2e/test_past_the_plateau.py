"""A loop that goes on past the plateau of SFT, and ends when that brings nothing."""

import json

import pytest

SETTINGS = {
    "loop": {"max_iterations": 5},
    "data_synthesis": {"pairs_per_iteration": 8},
    "fine_tuning": {"preference": {"enabled": True, "prompts": 8, "responses_per_prompt": 2}},
    "evaluation": {"patience": 1},  # the random model scores 0 each time
    "fairness": {"sample": 1},
}


def rows(project, path, version):
    return [json.loads(line) for line in project.load(path, version).decode().splitlines()]


@pytest.mark.soak
def test_an_iteration_by_preference_follows_the_plateau_from_the_best_adapter(project):
    project.configure("parameters.yml", SETTINGS)

    output = project.kedro("run", "--env=test", code=2)

    (loop,) = project.loops()
    first, second, third = (f"{loop}-i00{n}" for n in (1, 2, 3))
    verdicts = [project.json("08_reporting/verdict.json", each) for each in (first, second, third)]
    assert [each["next_tuning"] for each in verdicts] == ["sft", "preference", None]
    assert [each["reason"] for each in verdicts] == [None, None, "plateau"]
    assert "stopped without reaching the target: plateau" in output
    assert "judging: about 16 requests" in " ".join(output.split())

    training_sets = [
        project.load("05_model_input/training_set.jsonl", each) for each in (second, third)
    ]
    assert training_sets[0] == training_sets[1]
    assert project.load("05_model_input/due_pairs.jsonl", third) == b""
    for name in ("prompts", "responses", "judge_replies", "judgements", "pairs"):
        assert project.load(f"05_model_input/preference_{name}.jsonl", second) == b""
    pairs = rows(project, "05_model_input/preference_pairs.jsonl", third)
    covered = {row["id"]: row["response"] for row in map(json.loads, training_sets[0].splitlines())}
    assert len(pairs) == 8
    assert all(pair["chosen"] == covered[pair["seed_id"]] != pair["rejected"] for pair in pairs)

    models = project.data / "06_models"
    weights = "adapter_model.safetensors"
    best, tuned = models / f"best_adapter/{third}/best_adapter", models / f"adapter/{third}/adapter"
    start = models / f"adapter/{loop}-i00{verdicts[1]['best_iteration']}/adapter"
    manifest = json.loads((tuned / "manifest.json").read_text())
    assert (manifest["method"], manifest["started_from_adapter"]) == ("dpo", True)
    assert (best / weights).read_bytes() == (start / weights).read_bytes()
    assert (tuned / weights).read_bytes() != (start / weights).read_bytes()
    log = rows(project, "08_reporting/training_log.jsonl", third)
    assert (log[0]["reward_margin"], log[0]["kl"]) == (0, 0)
    report = project.load("08_reporting/evaluation_report.html", third).decode()
    assert "8 coverage-train prompts were answered and judged for it" in report
