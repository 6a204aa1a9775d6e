"""The plan of a loop, from which its time and cost are estimated."""

import pandas as pd
import pytest

from llamaduo.loop_estimate import Plan, flops, seconds_by
from llamaduo.parameters import (
    EvaluationParameters,
    FairnessParameters,
    FineTuningParameters,
    LoopParameters,
    SynthesisParameters,
)
from tests.test_history import interrupted_loop


def plan(**tuning):
    table = pd.DataFrame({"prompt": ["a"] * 60})
    given = {"learning_rate": 1e-3, "epochs": [3, 1], "validation_share": 0.1, **tuning}
    targets = {"target_similarity": 80, "target_precision": 80, "decoding": {}}
    return Plan(
        loop=LoopParameters(max_iterations=3, carry={}),
        synthesis=SynthesisParameters(pairs_per_iteration=[240, 560]),
        fine_tuning=FineTuningParameters(**given),
        evaluation=EvaluationParameters(**targets),
        fairness=FairnessParameters(sample=10),
        coverage={f"coverage_{name}": table for name in ("train", "test", "holdout")},
        ready=0,
    )


def test_the_steps_are_those_that_the_demo_has_taken():
    # Of its 147 in the third iteration two are chance: seeds of few pairs validate.
    assert plan().steps == [42, 68, 145]


def test_a_training_from_the_base_model_takes_all_pairs_each_time():
    assert plan(start="base").steps == [42, 68, 194]


def test_the_test_set_is_answered_in_each_iteration_the_rest_once():
    assert plan().drawn == 3 * 60 + 60 + 44


@pytest.mark.parametrize("rows", [1, 64])
def test_a_matrix_product_has_a_speed(rows):
    assert flops(rows) > 0


def test_a_loop_whose_reports_are_gone_tells_no_time(tmp_path):
    assert seconds_by(interrupted_loop(tmp_path), plan()) is None
