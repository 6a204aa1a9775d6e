"""A loop that reaches its target, and the same loop misled by its teacher."""

import json

import pytest

from tests.fakes.openai_server import FakeOpenAI

# The random model learns the form of an answer and its most frequent labels, no more: about 40.
SETTINGS = {
    "loop": {"max_iterations": 2},
    "data_synthesis": {"pairs_per_iteration": 120},
    "fine_tuning": {
        "start": "base",
        "learning_rate": 5.0e-3,
        "epochs": [0.2, 6],
        "batch_size": 8,
        "lora_rank": 64,
        "lora_alpha": 128,
    },
    "evaluation": {
        "target_similarity": 20,
        "target_precision": 20,
        "decoding": {"temperature": 0, "max_new_tokens": 48, "batch_size": 120},
    },
}


def corrupt(text):
    """Replace the responses of all pairs; leave everything else."""
    reply = json.loads(text)
    if "pairs" not in reply:
        return text
    return json.dumps({"pairs": [{**pair, "response": "banana"} for pair in reply["pairs"]]})


@pytest.mark.parametrize(
    ("rewrite", "code", "reason"),
    [
        pytest.param(str, 0, "target", id="true answers"),
        pytest.param(corrupt, 2, "max_iterations", id="corrupted answers", marks=pytest.mark.soak),
    ],
)
def test_the_target_is_reached_with_true_answers_and_missed_with_corrupted_ones(
    project, rewrite, code, reason
):
    project.configure("parameters.yml", SETTINGS)
    with FakeOpenAI(rewrite=rewrite) as server:
        endpoint = {"base_url": server.base_url, "model": "fake"}
        project.configure("catalog.yml", {"service_llm": endpoint, "judge": endpoint})

        output = project.kedro("run", "--env=test", code=code)

    (loop,) = project.loops()
    verdict = project.json("08_reporting/verdict.json", f"{loop}-i002")
    confirmation = project.json("08_reporting/confirmation.json", f"{loop}-i002")
    assert verdict["reason"] == reason
    assert verdict["target_reached"] == (code == 0) == bool(confirmation)
    assert ("target reached in iteration 2" in output) == (code == 0)
    assert project.json("08_reporting/verdict.json", f"{loop}-i001")["reason"] is None
