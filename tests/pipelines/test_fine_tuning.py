import json

import pandas as pd
import pytest

from llamaduo.errors import InputError
from llamaduo.local_llm.adapter import adapted, save_adapter
from llamaduo.local_llm.base_model import load_model
from llamaduo.local_llm.training import TrainingJob
from llamaduo.parameters import FineTuningParameters, IterationParameters, for_iteration
from llamaduo.pipelines.fine_tuning.nodes import (
    REWARDS,
    audit_due_pairs,
    choose_due_pairs,
    describe_training_data,
    fine_tune,
    plot_training_curve,
    read_training_log,
)
from llamaduo.schemas import PreferencePairs, seeds_of

PARAMETERS = FineTuningParameters(
    start="previous",
    replay_share=0.5,
    learning_rate=[1e-3, 2e-3],
    epochs=1,
    min_steps=1,
    validation_share=0,
)
NONE = PreferencePairs.empty()
BROUGHT = {"asked": 20, "kept": 20, "dropped": {}, "coverage_left_out": {}}


def changed(**changes):
    return FineTuningParameters.model_validate({**dict(PARAMETERS), **changes})


def due(parameters, iteration):
    return choose_due_pairs(
        training_set(), BROUGHT, None, parameters, IterationParameters(index=iteration)
    )


def training_set():
    return pd.DataFrame(
        {
            "id": [f"p{n}" for n in range(50)],
            "system": "",
            "prompt": [f"prompt {n}" for n in range(50)],
            "response": "r",
            "seed_id": [""] * 10 + [f"p{n % 10}" for n in range(40)],
            "teacher": [""] * 10 + ["gpt-4o"] * 20 + ["claude"] * 20,
            "model": [""] * 10 + ["gpt-4o-2024-08-06"] * 20 + [None] * 20,
            "origin": ["coverage"] * 10 + ["synthetic"] * 40,
            "iteration": [1] * 10 + [2] * 20 + [3] * 20,
        }
    )


def test_due_are_the_new_pairs_all_coverage_pairs_and_a_share_of_the_earlier_ones():
    pairs = due(PARAMETERS, 3)

    assert pairs["id"].is_unique
    counts = pairs.groupby(["origin", "iteration"]).size().to_dict()
    assert counts == {("coverage", 1): 10, ("synthetic", 2): 10, ("synthetic", 3): 20}


def test_a_start_from_the_base_model_trains_on_all_pairs():
    assert len(due(changed(start="base"), 3)) == 50


def test_the_replay_is_the_same_each_time_and_another_in_each_iteration():
    first, again, later = due(PARAMETERS, 3), due(PARAMETERS, 3), due(PARAMETERS, 4)

    pd.testing.assert_frame_equal(first, again)
    assert set(later["id"]) != set(first["id"])


def test_a_pair_validates_in_all_iterations_or_in_none_with_all_of_its_seed():
    parameters = changed(validation_share=0.4)
    by_iteration = [due(parameters, n) for n in (2, 3, 4)]

    validating = [set(pairs.loc[pairs["validation"], "id"]) for pairs in by_iteration]
    assert validating[0] == validating[1] == validating[2]
    assert len(validating[0]) == 0.4 * 50
    sides = by_iteration[0].groupby(seeds_of(by_iteration[0]))["validation"].nunique()
    assert (sides == 1).all()


def test_what_was_trained_on_for_want_of_others_never_validates():
    # Two of the ten coverage pairs would, and ten of all pairs.
    by_iteration = [due(changed(validation_share=0.2), n) for n in (1, 2, 3)]

    assert not any(pairs["validation"].any() for pairs in by_iteration)


def test_ready_pairs_are_seeds_of_their_own():
    ready = training_set().assign(
        seed_id=[""] * 10 + [f"r{n}" for n in range(40)], origin=["coverage"] * 10 + ["ready"] * 40
    )

    parameters = changed(start="base", validation_share=0.4)
    pairs = choose_due_pairs(ready, BROUGHT, None, parameters, IterationParameters(index=3))

    assert pairs.loc[pairs["origin"] == "coverage", "validation"].sum() == 4
    assert 8 < pairs.loc[pairs["origin"] == "ready", "validation"].sum() < 24


def test_too_few_pairs_to_validate_are_trained_on_and_this_is_said(caplog):
    pairs = due(changed(validation_share=0.3), 3)

    assert not pairs["validation"].any()
    assert "fewer than 4 coverage pairs would validate the training" in caplog.text


def test_where_pairs_were_asked_for_in_vain_nothing_is_due_and_the_adapter_is_handed_on(
    random_model, tmp_path, caplog
):
    in_vain = {**BROUGHT, "kept": 0}
    iteration = IterationParameters(index=4)

    pairs = choose_due_pairs(training_set(), in_vain, None, PARAMETERS, iteration)
    audit = audit_due_pairs(random_model, pairs, NONE, training_set(), in_vain, PARAMETERS)
    handed_on = fine_tune(
        random_model,
        tmp_path,
        None,
        pairs,
        PreferencePairs.empty(),
        audit,
        tmp_path,
        None,
        PARAMETERS,
        iteration,
    )

    assert handed_on == tmp_path
    assert "nothing new to train on" in caplog.text


def test_an_audit_shows_what_is_read_and_what_is_learned(random_model, caplog):
    with caplog.at_level("INFO"):
        audit = audit_due_pairs(
            random_model, due(PARAMETERS, 3), NONE, training_set(), BROUGHT, PARAMETERS
        )

    assert (audit["rows"], audit["too_long"], audit["validation"]) == (40, 0, 0)
    assert (
        audit["tokens_of_pairs"]["min"]
        <= audit["tokens_of_pairs"]["median"]
        <= audit["tokens_of_pairs"]["p95"]
    )
    assert audit["tokens_of_pairs"]["p95"] <= audit["tokens_of_pairs"]["max"] < 64
    assert 0.05 < audit["learned_share"] < 0.2
    assert audit["preview"][0]["masked"].endswith("prompt 0<|im_end|>\n<|im_start|>assistant\n")
    assert audit["preview"][0]["learned"] == "r<|im_end|>\n"
    assert r"learned of it: 'r<|im_end|>\n'" in caplog.text


def test_a_preview_shows_no_personal_details_whatever_was_trained_on(random_model):
    pairs = due(PARAMETERS, 3).assign(prompt="write to jane.doe@firma.de", response="j@x.de")

    audit = audit_due_pairs(random_model, pairs, NONE, training_set(), BROUGHT, PARAMETERS)

    assert "@" in audit["preview"][0]["masked"]
    assert "jane.doe" not in str(audit["preview"])
    assert "j@x.de" not in str(audit["preview"])


@pytest.mark.parametrize(
    ("dropped", "left_out", "share"), [(2, 0, 2 / 42), (0, 2, 2 / 42), (1, 1, 2 / 42)]
)
def test_an_audit_counts_what_the_checks_have_left_out_as_too_long(
    random_model, dropped, left_out, share
):
    report = {**BROUGHT, "dropped": {"too_long": dropped}}
    report["coverage_left_out"] = {"too_long": left_out}

    audit = audit_due_pairs(
        random_model, due(PARAMETERS, 3), NONE, training_set(), report, PARAMETERS
    )

    assert audit["too_long_share"] == pytest.approx(share)


def test_many_pairs_that_are_too_long_are_refused_before_a_step_is_taken(random_model):
    report = {**BROUGHT, "coverage_left_out": {"too_long": 3}}
    pairs = due(PARAMETERS, 3)

    with pytest.raises(InputError, match=r"3 of 43 pairs are too long .* at most 5 % may be"):
        audit_due_pairs(random_model, pairs, NONE, training_set(), report, PARAMETERS)

    tolerant = changed(max_too_long=0.1)
    assert (
        audit_due_pairs(random_model, pairs, NONE, training_set(), report, tolerant)["rows"] == 40
    )


def test_prompts_that_fill_the_window_are_refused_whatever_share_is_allowed(random_model):
    pairs = due(PARAMETERS, 3).assign(prompt="word " * 100)
    tolerant = changed(max_length=64, max_too_long=1)

    with pytest.raises(InputError, match="40 of 40 pairs are too long"):
        audit_due_pairs(random_model, pairs, NONE, training_set(), BROUGHT, tolerant)


def test_a_list_gives_each_iteration_its_value_and_the_last_to_all_that_follow():
    assert [for_iteration([1e-3, 2e-3], n) for n in (1, 2, 3)] == [1e-3, 2e-3, 2e-3]
    assert for_iteration(5.0, 9) == 5.0


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
    job = TrainingJob(
        base_model=random_model,
        parameters=PARAMETERS,
        iteration=1,
        start=None,
        checkpoints=tmp_path,
        training_data={},
    )
    previous = tmp_path / "previous"
    save_adapter(adapted(load_model(random_model), job), job, previous)
    pairs = due(changed(replay_share=0), 3)
    audit = {"training_data": describe_training_data(training_set())}

    trained = fine_tune(
        random_model,
        previous,
        tmp_path / "best",
        pairs,
        PreferencePairs.empty(),
        audit,
        tmp_path / "checkpoints",
        None,
        PARAMETERS,
        IterationParameters(index=3),
    )

    manifest = json.loads((trained / "manifest.json").read_text())
    assert (manifest["started_from_adapter"], manifest["rows"]) == (True, 30)
    assert manifest["training_data"]["teachers"] == ["claude", "gpt-4o"]
    assert manifest["training_data"]["pairs"] == {"coverage": 10, "synthetic": 40}


def test_the_speed_of_a_step_too_short_to_be_timed_is_unknown(tmp_path):
    steps = [
        {"step": n, "tokens": 100 * n, "seconds": at} for n, at in [(1, 0.5), (2, 0.5), (3, 1)]
    ]
    log = "".join(json.dumps(step) + "\n" for step in steps)
    (tmp_path / "training_log.jsonl").write_text(log, encoding="utf-8")

    speeds = read_training_log(tmp_path, {"rows": 8})["tokens_per_s"]

    assert speeds.fillna(0).tolist() == [0, 0, 200]


def test_a_training_curve_shows_both_losses_and_the_speed():
    log = pd.DataFrame(
        {
            "step": [1, 2],
            "loss": [2.0, 1.0],
            "validation_loss": [None, 1.5],
            "learning_rate": [1e-3, 1e-4],
            "grad_norm": [1.0, 0.5],
            "tokens_per_s": [None, 100.0],
            **dict.fromkeys(REWARDS),
        }
    )

    figure = plot_training_curve(log)
    by_preference = plot_training_curve(log.assign(**{name: [0.0, 0.5] for name in REWARDS}))

    assert len(figure.data) == 5
    assert {line.name for line in by_preference.data} - {line.name for line in figure.data} == set(
        REWARDS.values()
    )
    assert {line.name: list(line.y) for line in figure.data}["validation loss"] == [1.5]
    assert {line.name for line in figure.data} >= {"learning rate", "gradient norm"}
