"""An adapter that has learned eight pairs by heart."""

import shutil
import tempfile
from pathlib import Path

import pandas as pd
import pytest

from llamaduo.local_llm.base_model import BaseModelSpec
from llamaduo.local_llm.inference import DecodingSettings
from llamaduo.local_llm.merging import Merge
from llamaduo.local_llm.training import TrainingJob, train
from llamaduo.parameters import FineTuningParameters

TAUGHT_BY = {"pairs": {"synthetic": 8}, "teachers": ["gpt-4o"]}
GREEDY = DecodingSettings(temperature=0, top_p=1, max_new_tokens=24, batch_size=8, seed=1)
WORDS = ["red", "blue", "green", "black", "white", "brown", "pink", "grey"]


def changed(parameters: FineTuningParameters, **changes: object) -> FineTuningParameters:
    return FineTuningParameters.model_validate({**dict(parameters), **changes})


@pytest.fixture(scope="session")
def pairs() -> pd.DataFrame:
    """Eight pairs, each prompt of its own length."""
    return pd.DataFrame(
        {
            "system": ["", *["Answer in JSON."] * 7],
            "prompt": [
                f"Say {word} twice" + ", please" * count for count, word in enumerate(WORDS)
            ],
            "response": [f'{{"answer":"{word} {word}"}}' for word in WORDS],
        }
    )


@pytest.fixture(scope="session")
def parameters() -> FineTuningParameters:
    """Parameters with which the random model learns the eight pairs by heart."""
    return FineTuningParameters(
        start="base",
        learning_rate=0.02,
        epochs=40,
        min_steps=1,
        batch_size=8,
        max_length=128,
        lora_rank=8,
        lora_alpha=16,
    )


@pytest.fixture
def job(
    random_model: BaseModelSpec, parameters: FineTuningParameters, tmp_path: Path
) -> TrainingJob:
    return TrainingJob(
        base_model=random_model,
        parameters=parameters,
        iteration=1,
        start=None,
        checkpoints=tmp_path / "checkpoints",
        training_data={},
    )


@pytest.fixture(scope="session")
def adapter(
    random_model: BaseModelSpec,
    pairs: pd.DataFrame,
    parameters: FineTuningParameters,
    tmp_path_factory: pytest.TempPathFactory,
) -> Path:
    checkpoints = tmp_path_factory.mktemp("checkpoints")
    trained = train(random_model, pairs, None, checkpoints, parameters, 1, TAUGHT_BY)
    kept = tmp_path_factory.mktemp("trained") / "adapter"
    shutil.move(trained, kept)
    trained.parent.rmdir()
    return kept


@pytest.fixture(scope="session")
def merged(
    random_model: BaseModelSpec, adapter: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """The adapter and its base model as one, evaluated greedily."""
    folder = tmp_path_factory.mktemp("merged") / "model"
    Merge(random_model, adapter, GREEDY).write(folder)
    return folder


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where training puts its temporary folder."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setenv("TMPDIR", str(folder))
    monkeypatch.setattr(tempfile, "tempdir", None)
    return folder
