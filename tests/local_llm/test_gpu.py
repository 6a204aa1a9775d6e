"""The same model and pairs on a GPU; skipped without one."""

import json
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
import torch
from safetensors.torch import load_file

from llamaduo.local_llm.base_model import BaseModelSpec
from llamaduo.local_llm.chat import to_messages
from llamaduo.local_llm.inference import DecodingSettings, respond
from llamaduo.local_llm.training import train
from llamaduo.parameters import FineTuningParameters

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")

GREEDY = DecodingSettings(temperature=0.0, top_p=1.0, max_new_tokens=16, batch_size=3, seed=1)


def learned(base_model: BaseModelSpec, adapter: Path, pairs: pd.DataFrame) -> int:
    """How many of the responses are known by heart."""
    conversations = [
        to_messages(system, prompt)
        for system, prompt in zip(pairs["system"], pairs["prompt"], strict=True)
    ]
    answers = respond(base_model, adapter, conversations, 1, GREEDY)
    return sum(
        answer.text == response
        for [answer], response in zip(answers, pairs["response"], strict=True)
    )


def test_an_adapter_is_trained_on_the_gpu_and_says_so(
    random_model: BaseModelSpec, adapter: Path, pairs: pd.DataFrame
) -> None:
    manifest = json.loads((adapter / "manifest.json").read_text())

    assert manifest["device"] == "cuda"
    assert manifest["peak_memory_mib"]["gpu"] > 0
    assert learned(random_model, adapter, pairs) == len(pairs)


def test_equal_input_gives_equal_weights_on_the_gpu(
    random_model: BaseModelSpec,
    adapter: Path,
    pairs: pd.DataFrame,
    parameters: FineTuningParameters,
    tmp_path: Path,
) -> None:
    again = train(random_model, pairs, None, tmp_path, parameters, 1, {})

    first, second = (load_file(each / "adapter_model.safetensors") for each in (adapter, again))
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_four_bit_weights_are_trained_on(
    random_model: BaseModelSpec,
    pairs: pd.DataFrame,
    parameters: FineTuningParameters,
    tmp_path: Path,
) -> None:
    in_4bit = replace(random_model, load_in_4bit=True)

    adapter = train(in_4bit, pairs, None, tmp_path, parameters, 1, {})

    log = pd.read_json(adapter / "training_log.jsonl", lines=True)
    assert log["loss"].iloc[-1] < log["loss"].iloc[0] / 3
    assert learned(in_4bit, adapter, pairs) >= 6


def test_draws_on_the_gpu_are_repeated_by_their_seed(
    random_model: BaseModelSpec, adapter: Path, pairs: pd.DataFrame
) -> None:
    conversations = [to_messages(None, prompt) for prompt in pairs["prompt"]]
    drawn = replace(GREEDY, temperature=3.0)

    first, second = (respond(random_model, adapter, conversations, 4, drawn) for _ in range(2))

    assert first == second
