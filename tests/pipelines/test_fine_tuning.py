import json

import pandas as pd

from llamaduo.local_llm.base_model import BaseModelSpec, load_model
from llamaduo.local_llm.fine_tune import adapted, save_adapter
from llamaduo.local_llm.training import TrainingJob
from llamaduo.parameters import FineTuningParameters, IterationParameters, for_iteration
from llamaduo.pipelines.fine_tuning.nodes import (
    choose_due_pairs,
    describe_training_data,
    fine_tune,
    training_settings,
)

PARAMETERS = FineTuningParameters(
    start="previous", replay_share=0.5, learning_rate=[1e-3, 2e-3], epochs=1
)


def training_set():
    return pd.DataFrame(
        {
            "id": [f"p{n}" for n in range(50)],
            "system": "",
            "prompt": [f"prompt {n}" for n in range(50)],
            "response": "r",
            "teacher": [""] * 10 + ["gpt-4o"] * 20 + ["claude"] * 20,
            "model": [""] * 10 + ["gpt-4o-2024-08-06"] * 20 + [None] * 20,
            "origin": ["coverage"] * 10 + ["synthetic"] * 40,
            "iteration": [1] * 10 + [2] * 20 + [3] * 20,
        }
    )


def test_due_are_the_new_pairs_all_coverage_pairs_and_a_share_of_the_earlier_ones():
    due = choose_due_pairs(training_set(), PARAMETERS, iteration=3)

    assert due["id"].is_unique
    counts = due.groupby(["origin", "iteration"]).size().to_dict()
    assert counts == {("coverage", 1): 10, ("synthetic", 2): 10, ("synthetic", 3): 20}


def test_the_replay_is_the_same_each_time_and_another_in_each_iteration():
    first = choose_due_pairs(training_set(), PARAMETERS, iteration=3)
    again = choose_due_pairs(training_set(), PARAMETERS, iteration=3)
    later = choose_due_pairs(training_set(), PARAMETERS, iteration=4)

    pd.testing.assert_frame_equal(first, again)
    assert set(later["id"]) != set(first["id"])


def test_a_list_gives_each_iteration_its_value_and_the_last_to_all_that_follow():
    assert [for_iteration([1e-3, 2e-3], n) for n in (1, 2, 3)] == [1e-3, 2e-3, 2e-3]
    assert for_iteration(5.0, 9) == 5.0


def test_where_pairs_were_asked_for_in_vain_the_previous_adapter_is_handed_on(tmp_path, caplog):
    handed_on = fine_tune(
        BaseModelSpec("no-model"),
        tmp_path,
        training_set(),
        {"asked": 20, "kept": 0},
        PARAMETERS,
        IterationParameters(index=4),
    )

    assert handed_on == tmp_path
    assert "nothing new to train on" in caplog.text


def test_a_training_set_tells_who_taught_and_what_exactly():
    told = describe_training_data(training_set())

    assert told["pairs"] == {"coverage": 10, "synthetic": 40}
    assert told["teachers"] == ["claude", "gpt-4o"]
    assert told["models"] == ["gpt-4o-2024-08-06"]
    assert told["sha256"] == describe_training_data(training_set().assign(id="other"))["sha256"]
    assert told["sha256"] != describe_training_data(training_set().assign(response="s"))["sha256"]


def test_an_adapter_that_goes_on_names_the_teachers_of_the_whole_training_set(
    random_model, tmp_path
):
    settings = training_settings(PARAMETERS, 1)
    job = TrainingJob(base_model=random_model, settings=settings, start=None, training_data={})
    save_adapter(adapted(load_model(random_model), job), job, tmp_path)

    trained = fine_tune(
        random_model,
        tmp_path,
        training_set(),
        {"asked": 20, "kept": 20},
        PARAMETERS.model_copy(update={"replay_share": 0.0}),
        IterationParameters(index=3),
    )

    manifest = json.loads((trained / "manifest.json").read_text())
    assert (manifest["started_from_adapter"], manifest["rows"]) == (True, 30)
    assert manifest["training_data"]["teachers"] == ["claude", "gpt-4o"]
    assert manifest["training_data"]["pairs"] == {"coverage": 10, "synthetic": 40}
