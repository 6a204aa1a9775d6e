"""What is checked before a run."""

import pytest
from kedro.io import DataCatalog, MemoryDataset
from kedro.pipeline import Node, Pipeline

from llamaduo.datasets import InferenceDataset
from llamaduo.errors import InputError
from llamaduo.hooks import InputCheck
from tests.fakes.openai_server import FakeOpenAI


def check(inference):
    pipeline = Pipeline([Node(lambda inference: inference, "inference", "answers", name="answer")])
    loop = {"max_iterations": 1, "carry": {}}
    given = {"params:loop": MemoryDataset(loop), "parameters": MemoryDataset({})}
    catalog = DataCatalog({**given, "inference": inference})
    InputCheck().before_pipeline_run({"run_id": "a run"}, pipeline, catalog)


def test_an_endpoint_that_cannot_answer_for_the_local_llm_is_told_before_a_run(tmp_path):
    journal = {"filepath": str(tmp_path / "journal.sqlite")}
    with FakeOpenAI(models=["base-model"]) as server:
        there = {"engine": "endpoint", "base_url": server.base_url, "journal": journal}

        check(InferenceDataset(**there, model="base-model"))
        with pytest.raises(InputError, match=r"^inference: .* serves base-model, and no typo"):
            check(InferenceDataset(**there, model="typo"))
