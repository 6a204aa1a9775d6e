"""What may be released, and what its card says."""

import json

import pandas as pd
import pytest
from pydantic import SecretStr

from llamaduo.errors import InputError
from llamaduo.ledger import Ledger
from llamaduo.local_llm.base_model import BaseModelSpec
from llamaduo.local_llm.engines import TransformersEngine
from llamaduo.local_llm.parity import Parity
from llamaduo.parameters import (
    DecodingParameters,
    DeploymentParameters,
    EvaluationParameters,
    IterationParameters,
)
from llamaduo.pipelines.deployment import nodes
from llamaduo.pipelines.deployment.admission import admit_iteration
from llamaduo.pipelines.deployment.model_card import comparable_baselines, spent_on_training
from llamaduo.pipelines.evaluation.comparison import describe_measurement
from llamaduo.service_llm.client import ServiceLLM
from llamaduo.service_llm.jury import Judge

LOOP = "2026-11-27T10.00.00.000Z"
MEASURED = {"judge": ["gpt-4.1"], "test_sha256": "ab", "prompts": 120}
MISSED = {
    "iteration": 2,
    "stop": True,
    "reason": "plateau",
    "target_reached": False,
    "obstacles": [],
    "advisory": False,
}


JUDGE = Judge(())
EVALUATION = EvaluationParameters(target_similarity=80, target_precision=80, decoding={})
HOT = DecodingParameters(temperature=1.5)
PAIRS = pd.DataFrame({"system": [""], "prompt": ["A?"], "response": ["a"]})


@pytest.fixture
def ledger(tmp_path):
    ledger = Ledger(tmp_path / "ledger")
    facts = {
        "parameters": {"evaluation": EVALUATION.model_dump(mode="json")},
        "versions": {"torch": "2.13.0", "commit": "c0ffee"},
        "inputs": {"coverage_test": "a" * 64, "base_model": "{'name_or_path': '/home/me/model'}"},
    }
    ledger.append(f"{LOOP}/opened", facts)
    ledger.append(f"{LOOP}/i002/opened", {})
    later = {**facts, "versions": {"torch": "3", "commit": "later"}}
    ledger.append(f"{LOOP}/resumed-2026-11-28T10.00.00.000Z", later)
    return ledger


def admit(
    verdict,
    ledger,
    pairs=PAIRS,
    evaluation=EVALUATION,
    judge=JUDGE,
    judge_prompt="Judge.",
    **deployment,
):
    measured = describe_measurement(JUDGE, "Judge.", TransformersEngine(), PAIRS, EVALUATION)
    return admit_iteration(
        verdict,
        json.loads(json.dumps(measured)),
        ledger,
        judge,
        judge_prompt,
        TransformersEngine(),
        pairs,
        evaluation,
        DeploymentParameters.model_validate(deployment),
        IterationParameters(index=2, loop=LOOP),
    )


def test_an_iteration_that_missed_its_target_is_refused_with_the_reason(ledger):
    with pytest.raises(InputError) as refused:
        admit(MISSED, ledger)

    assert f"nothing is released of {LOOP}/2" in str(refused.value)
    assert "no proven gain" in str(refused.value)
    assert "deployment.force=true" in str(refused.value)


def test_a_release_can_be_forced_and_says_so(ledger):
    assert admit(MISSED, ledger, force=True)["target_reached"] is False


def test_a_release_tells_what_it_was_made_of_and_no_path(ledger):
    reached = {**MISSED, "reason": "target", "target_reached": True}

    provenance = admit(reached, ledger)

    assert (provenance["loop"], provenance["iteration"]) == (LOOP, 2)
    assert provenance["commit"] == "c0ffee"
    assert provenance["versions"] == {"torch": "2.13.0"}
    assert provenance["inputs"] == {"coverage_test": "a" * 64}
    assert len(provenance["parameters_sha256"]) == 64


@pytest.mark.parametrize(
    ("now", "what"),
    [
        ({"pairs": PAIRS.assign(prompt="B?")}, "coverage_test"),
        ({"evaluation": EVALUATION.model_copy(update={"judgements_per_response": 2})}, "judgem"),
        ({"evaluation": EVALUATION.model_copy(update={"decoding": HOT})}, "decoding"),
        ({"judge": Judge((ServiceLLM("e", "u", "m", SecretStr("k"), None),))}, "judge"),
        ({"judge_prompt": "Judge kindly."}, "judge_prompt"),
    ],
)
def test_an_iteration_that_was_measured_otherwise_than_today_is_refused(ledger, now, what):
    with pytest.raises(InputError, match=f"measured with another .*{what}"):
        admit(MISSED, ledger, force=True, **now)


def test_parity_under_its_threshold_stops_the_deployment():
    parity = Parity("bfloat16", tokens=1000, agreement=98.9, largest_difference=3.0)

    with pytest.raises(InputError, match=r"98\.90 % of 1000 tokens, expected 99 % or more"):
        nodes.require_agreement(parity, 99)
    nodes.require_agreement(parity, 98.9)


def test_a_deployment_compares_in_one_type_at_least():
    with pytest.raises(ValueError, match="needs a percentage"):
        DeploymentParameters(min_agreement={"bfloat16": None, "float32": None})


def test_baselines_are_shown_only_where_they_were_measured_alike():
    base = BaseModelSpec("some/model")
    rows = [{"name": "base model, zero-shot"}]
    known = {"setup": {"base_model": "some/model", "service_llm": "x", **MEASURED}, "rows": rows}

    assert comparable_baselines(known, base, MEASURED) == rows
    assert comparable_baselines(known, base, {**MEASURED, "judge": ["other"]}) == []
    assert comparable_baselines(known, BaseModelSpec("other/model"), MEASURED) == []
    assert comparable_baselines(None, base, MEASURED) == []


def test_energy_that_was_not_measured_once_is_unknown():
    history = [{"training": {"seconds": 10.0, "energy_wh": e}} for e in (0.5, None)]

    assert spent_on_training(history) == {"seconds": 20.0, "energy_wh": None}


def test_the_responses_that_are_compared_are_the_first_of_each_prompt():
    pairs = pd.DataFrame({"id": ["a", "b"], "system": "", "prompt": ["A?", "B?"]})
    drawn = pd.DataFrame(
        {"id": ["a", "a", "b", "b"], "sample": [1, 2, 1, 2], "response": ["1", "2", "3", "4"]}
    )

    compared = nodes.choose_compared(drawn, pairs, 1)

    assert list(compared["response"]) == ["1"]
