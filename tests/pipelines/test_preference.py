"""From coverage-train prompts to preference pairs, and to an adapter that has learned them."""

import json

import numpy as np
import pandas as pd
import pytest

from llamaduo.local_llm.engines import TransformersEngine
from llamaduo.parameters import EvaluationParameters, FineTuningParameters, IterationParameters
from llamaduo.pipelines.fine_tuning.nodes import (
    audit_due_pairs,
    choose_due_pairs,
    fine_tune,
    report_training,
)
from llamaduo.pipelines.fine_tuning.preference import (
    answer_preference_prompts,
    choose_preference_prompts,
    make_preference_pairs,
)
from llamaduo.schemas import (
    DuePairs,
    Judgements,
    PreferencePairs,
    PreferencePrompts,
    Responses,
)
from tests.pipelines.test_fine_tuning import BROUGHT, training_set

SFT, BY_PREFERENCE = {"next_tuning": "sft"}, {"next_tuning": "preference"}
ITERATION = IterationParameters(index=5)


def parameters(validation_share=0.1, **preference):
    preference = {"enabled": True, "prompts": 6, "margin": 10, **preference}
    return FineTuningParameters.model_validate(
        {
            "start": "previous",
            "learning_rate": 1e-3,
            "epochs": 1,
            "min_steps": 1,
            "validation_share": validation_share,
            "lora_rank": 4,
            "preference": preference,
        }
    )


def whole_training_set():
    return training_set().assign(category="a", licence="", source="")


def chosen_prompts(verdict=BY_PREFERENCE, index=5, **changes):
    iteration = IterationParameters(index=index)
    return choose_preference_prompts(
        whole_training_set(), verdict, parameters(**changes), iteration
    )


def test_prompts_are_drawn_from_the_coverage_pairs_that_are_trained_on_and_anew_each_time():
    first, again, later = chosen_prompts(), chosen_prompts(), chosen_prompts(index=6)

    PreferencePrompts.validate(first)
    assert len(first) == 6
    assert set(first["seed_id"]) <= {f"p{n}" for n in range(10)}
    assert list(first["id"]) == [f"p005-0000{n}" for n in range(1, 7)]
    pd.testing.assert_frame_equal(first, again)
    assert set(later["seed_id"]) != set(first["seed_id"])
    assert len(chosen_prompts(prompts=200)) == 10


def test_what_sft_never_trains_on_is_marked():
    prompts = chosen_prompts(prompts=200, validation_share=0.4)
    due = choose_due_pairs(
        training_set(), BROUGHT, None, parameters(validation_share=0.4), ITERATION
    )

    validating = set(due.loc[due["validation"] & (due["origin"] == "coverage"), "id"])
    assert set(prompts.loc[prompts["validation"], "seed_id"]) == validating
    assert len(validating) == 4


@pytest.mark.parametrize("verdict", [None, SFT])
def test_an_iteration_of_sft_answers_and_trains_on_no_preferences(verdict):
    prompts = chosen_prompts(verdict)
    responses = answer_preference_prompts(
        None, None, None, prompts, parameters(), evaluation(temperature=0.7)
    )
    pairs = make_preference_pairs(Judgements.empty(), responses, prompts, parameters())

    assert prompts.empty
    assert responses.empty
    assert PreferencePairs.validate(pairs).empty


def test_an_iteration_by_preference_has_no_pairs_of_sft_due():
    due = choose_due_pairs(training_set(), BROUGHT, BY_PREFERENCE, parameters(), ITERATION)

    assert DuePairs.validate(due).empty


def test_nothing_due_is_no_reason_to_refuse_what_is_too_long(random_model):
    left_out = {**BROUGHT, "coverage_left_out": {"too_long": 3}}

    audit = audit_due_pairs(
        random_model,
        DuePairs.empty(),
        PreferencePairs.empty(),
        training_set(),
        left_out,
        parameters(),
    )

    assert (audit["rows"], audit["too_long_share"]) == (0, 0)


def evaluation(**decoding):
    return EvaluationParameters(
        target_similarity=80,
        target_precision=80,
        decoding={"max_new_tokens": 4, "batch_size": 30, **decoding},
    )


@pytest.mark.parametrize(("temperature", "samples"), [(0.7, 3), (0, 1)])
def test_each_prompt_is_answered_as_often_as_asked_and_once_where_all_would_be_alike(
    random_model, temperature, samples
):
    responses = answer_preference_prompts(
        TransformersEngine(),
        random_model,
        None,
        chosen_prompts(prompts=2),
        parameters(responses_per_prompt=3),
        evaluation(temperature=temperature),
    )

    Responses.validate(responses)
    assert list(responses["sample"]) == [*range(1, samples + 1)] * 2


def prompts(*ids, validation=False):
    return pd.DataFrame(
        {
            "id": ids,
            "seed_id": [f"train-{each}" for each in ids],
            "category": "",
            "licence": "",
            "source": "",
            "system": "s",
            "prompt": [f"prompt {each}" for each in ids],
            "response": [f"reference {each}" for each in ids],
            "validation": validation,
        }
    )


def judged(*rows):
    """Responses and judgements: prompt, sample, similarity and precision, maybe the text."""
    responses = pd.DataFrame(
        {
            "id": [row[0] for row in rows],
            "sample": [row[1] for row in rows],
            "response": [row[4] if len(row) > 4 else f"response {row[1]}" for row in rows],
            "tokens": 2,
            "finished": True,
        }
    ).drop_duplicates(["id", "sample"])
    judgements = pd.DataFrame([row[:4] for row in rows], columns=["id", "sample", *SCORES])
    return judgements.astype(dict.fromkeys(SCORES, float)).assign(
        repeat=1, judge="judge", text="", failure=None
    ), responses


SCORES = ["similarity", "precision"]


def pairs_of(rows, asked, change=lambda responses: responses, **preference):
    judgements, responses = judged(*rows)
    table = make_preference_pairs(judgements, change(responses), asked, parameters(**preference))
    return PreferencePairs.validate(table)


def test_the_reference_is_preferred_over_the_worst_response():
    (pair,) = pairs_of(
        [("a", 1, 80, 80), ("a", 2, 60, 20), ("a", 3, 100, 100)], prompts("a")
    ).to_dict("records")

    assert (pair["chosen"], pair["chosen_score"]) == ("reference a", 100)
    assert (pair["rejected"], pair["rejected_score"]) == ("response 2", 40)
    assert (pair["id"], pair["seed_id"], pair["system"]) == ("a", "train-a", "s")
    assert pair["prompt"] == "prompt a"


def test_the_best_response_is_preferred_where_that_is_asked_for_and_never_one_cut_off():
    rows = [("a", 1, 80, 80), ("a", 2, 60, 20), ("a", 3, 90, 90)]

    (pair,) = pairs_of(rows, prompts("a"), chosen="best_response").to_dict("records")
    cut = lambda table: table.assign(finished=table["sample"] < 3)  # noqa: E731
    (other,) = pairs_of(rows, prompts("a"), cut, chosen="best_response").to_dict("records")

    assert (pair["chosen"], pair["chosen_score"]) == ("response 3", 90)
    assert (pair["rejected"], pair["rejected_score"]) == ("response 2", 40)
    assert (other["chosen"], other["rejected_finished"]) == ("response 1", True)


def test_a_pair_lies_the_margin_apart_and_its_texts_differ():
    rows = [("near", 1, 95, 95), ("far", 1, 90, 90), ("same", 1, 0, 0, "reference same\n")]

    assert list(pairs_of(rows, prompts("near", "far", "same"))["id"]) == ["far"]
    assert list(pairs_of(rows, prompts("near", "far", "same"), margin=5)["id"]) == ["near", "far"]
    one_response = pairs_of(rows, prompts("near", "far"), chosen="best_response", margin=0.1)
    assert one_response.empty


def test_a_response_without_a_readable_judgement_counts_for_nothing():
    rows = [("a", 1, None, None), ("a", 2, 70, 70), ("a", 2, None, None), ("b", 1, None, None)]

    (pair,) = pairs_of(rows, prompts("a", "b")).to_dict("records")

    assert (pair["id"], pair["rejected"], pair["rejected_score"]) == ("a", "response 2", 70)


def test_pairs_of_validation_prompts_validate_and_are_never_trained_on():
    names = [f"p{n}" for n in range(20)]
    rows = [(name, 1, 0, 0) for name in names]

    def made(count):
        pairs = pairs_of(rows, prompts(*names, validation=np.arange(20) < count))
        return (~pairs["validation"]).sum(), pairs["validation"].sum()

    assert [made(count) for count in (0, 15, 16, 20)] == [(20, 0), (5, 0), (4, 16), (0, 0)]


def test_an_audit_describes_what_is_preferred(random_model):
    pairs = pairs_of([("a", 1, 10, 10)], prompts("a"))

    audit = audit_due_pairs(
        random_model, DuePairs.empty(), pairs, training_set(), BROUGHT, parameters()
    )

    assert audit["rows"] == 1
    assert audit["preview"][0]["learned"] == f"{pairs['chosen'].iloc[0]}<|im_end|>\n"


def test_without_a_pair_the_best_adapter_is_handed_on(random_model, tmp_path, caplog):
    pairs = pairs_of([("a", 1, 100, 100)], prompts("a"))

    adapter = fine_tune(
        random_model,
        tmp_path / "previous",
        tmp_path / "best",
        DuePairs.empty(),
        pairs,
        {"training_data": {}},
        tmp_path / "checkpoints",
        BY_PREFERENCE,
        parameters(),
        ITERATION,
    )

    assert adapter == tmp_path / "best"
    assert "the best adapter is handed on" in caplog.text


@pytest.mark.parametrize(
    ("pairs", "best", "margin", "seconds"), [(4, 2, 1.5, 9.0), (0, None, None, 0)]
)
def test_a_report_tells_how_far_the_preferences_were_learned(
    tmp_path, pairs, best, margin, seconds
):
    judgements, _ = judged(*[(name, 1, 10, 10) for name in "abcd"])
    manifest = {"rows": 4, "rows_validation": 0, "steps": 3, "best_step": 2, "tokens": 7}
    manifest |= {"validation_loss": 0.5, "energy_wh": 1.0}
    rewards = {"reward_margin": 1.5, "reward_accuracy": 1.0, "kl": 2.0}
    text = json.dumps({**manifest, **rewards, "seconds": 9.0})
    (tmp_path / "manifest.json").write_text(text, encoding="utf-8")
    unasked = judgements.assign(failure=["over budget", None, None, None])

    report = report_training(tmp_path, {"rows": pairs}, prompts(*"abcd"), unasked, BY_PREFERENCE)

    assert (report["tuning"], report["preference_prompts"]) == ("preference", 4)
    assert (report["rows"], report["validation"], report["best_step"]) == (pairs, 0, best)
    assert (report["reward_margin"], report["seconds"]) == (margin, seconds)
    assert report["over_budget"] == 1
