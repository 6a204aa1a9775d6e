"""An adapter that has learned eight pairs by heart."""

import shutil
from pathlib import Path

import pandas as pd
import pytest

from llamaduo.local_llm.base_model import BaseModelSpec
from llamaduo.local_llm.training import TrainingSettings, train

TAUGHT_BY = {"pairs": {"synthetic": 8}, "teachers": ["gpt-4o"]}
WORDS = ["red", "blue", "green", "black", "white", "brown", "pink", "grey"]


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
def settings() -> TrainingSettings:
    """Settings with which the random model learns the eight pairs by heart."""
    return TrainingSettings(
        learning_rate=0.02,
        epochs=40,
        batch_size=8,
        gradient_accumulation_steps=1,
        warmup=0.1,
        max_length=128,
        lora_rank=8,
        lora_alpha=16,
        lora_dropout=0.0,
        target_modules="all-linear",
        seed=1,
    )


@pytest.fixture(scope="session")
def adapter(
    random_model: BaseModelSpec,
    pairs: pd.DataFrame,
    settings: TrainingSettings,
    tmp_path_factory: pytest.TempPathFactory,
) -> Path:
    trained = train(random_model, pairs, None, settings, TAUGHT_BY)
    kept = tmp_path_factory.mktemp("trained") / "adapter"
    shutil.move(trained, kept)
    trained.parent.rmdir()
    return kept
