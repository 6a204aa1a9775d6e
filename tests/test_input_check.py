"""What is checked before a run."""

import pytest
from kedro.io import DataCatalog, MemoryDataset
from kedro.pipeline import Node, Pipeline

from llamaduo.datasets import InferenceDataset
from llamaduo.errors import InputError
from llamaduo.input_check import InputCheck
from tests.fakes.openai_server import FakeOpenAI

RUN = {"run_id": "a run", "runner": "SequentialRunner"}


def check(inference):
    pipeline = Pipeline([Node(lambda inference: inference, "inference", "answers", name="answer")])
    loop = {"max_iterations": 1, "carry": {}}
    given = {"params:loop": MemoryDataset(loop), "parameters": MemoryDataset({})}
    catalog = DataCatalog({**given, "inference": inference})
    InputCheck().before_pipeline_run(RUN, pipeline, catalog)


def test_an_endpoint_that_cannot_answer_for_the_local_llm_is_told_before_a_run(tmp_path):
    journal = {"filepath": str(tmp_path / "journal.sqlite")}
    with FakeOpenAI(models=["base-model"]) as server:
        there = {"engine": "endpoint", "base_url": server.base_url, "journal": journal}

        check(InferenceDataset(**there, model="base-model"))
        with pytest.raises(InputError, match=r"^inference: .* serves base-model, and no typo"):
            check(InferenceDataset(**there, model="typo"))


@pytest.mark.parametrize(("max_iterations", "told"), [(4, True), (5, False)])
def test_a_loop_that_is_too_short_to_tune_by_preference_is_told(max_iterations, told, caplog):
    loop = {"max_iterations": max_iterations, "carry": {}}
    tuning = {"learning_rate": 1e-3, "epochs": 1, "preference": {"enabled": True}}
    evaluation = {"target_similarity": 1, "target_precision": 1, "patience": 3, "decoding": {}}
    groups = {"loop": loop, "fine_tuning": tuning, "evaluation": evaluation}
    given = {f"params:{name}": MemoryDataset(group) for name, group in groups.items()}
    catalog = DataCatalog({**given, "parameters": MemoryDataset({})})
    pipeline = Pipeline([Node(lambda: {}, None, "verdict", name="decide")])

    InputCheck().before_pipeline_run(RUN, pipeline, catalog)

    assert ("before 5 is tuned by it, and loop.max_iterations is 4" in caplog.text) == told
