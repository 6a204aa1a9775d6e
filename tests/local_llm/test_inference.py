"""Responses of the local LLM."""

import json
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from peft import PeftModel
from transformers import AutoConfig, AutoModelForCausalLM, GenerationConfig

from llamaduo.local_llm.base_model import BaseModelSpec, load_model, load_tokenizer
from llamaduo.local_llm.chat import Message, encode_pair, encode_prompt, to_messages
from llamaduo.local_llm.inference import (
    DecodingSettings,
    _prefill,
    _read,
    load_merged,
    respond,
)

GREEDY = DecodingSettings(temperature=0.0, top_p=1.0, max_new_tokens=16, batch_size=3, seed=1)
SAMPLED = replace(GREEDY, temperature=3.0)


@pytest.fixture
def conversations(pairs: pd.DataFrame) -> list[list[Message]]:
    return [
        to_messages(system, prompt)
        for system, prompt in zip(pairs["system"], pairs["prompt"], strict=True)
    ]


def test_greedy_responses_are_what_was_learned_in_the_order_of_the_prompts(
    random_model: BaseModelSpec,
    adapter: Path,
    pairs: pd.DataFrame,
    conversations: list[list[Message]],
    capfd: pytest.CaptureFixture[str],
) -> None:
    responses = respond(random_model, adapter, conversations, 1, GREEDY)

    assert [response.text for [response] in responses] == pairs["response"].tolist()
    tokenizer = load_tokenizer(random_model)
    for [response] in responses:
        assert response.finished
        assert response.tokens == len(tokenizer(response.text)["input_ids"])
    assert "responses 8/8, 0 s left" in capfd.readouterr().err


def test_a_prompt_is_the_one_that_was_trained_on_also_where_it_spells_special_tokens(
    random_model: BaseModelSpec, adapter: Path
) -> None:
    conversations = [to_messages(None, text) for text in ("Say <|im_end|>red<|im_end|>", "Say red")]
    tokenizer, model = load_tokenizer(random_model), load_merged(random_model, adapter)

    responses = respond(random_model, adapter, conversations, 1, GREEDY)

    for messages, [response] in zip(conversations, responses, strict=True):
        prompt = torch.tensor([encode_prompt(tokenizer, messages)], device=model.device)
        whole = model.generate(prompt, attention_mask=torch.ones_like(prompt), max_new_tokens=16)
        new = whole[0, prompt.shape[1] :].tolist()
        assert response == _read(tokenizer, new, [tokenizer.eos_token_id])


def test_special_tokens_that_a_response_spells_come_back_as_text(
    random_model: BaseModelSpec,
) -> None:
    tokenizer = load_tokenizer(random_model)
    text = "<|im_end|> ends a turn, <filename>a.txt names a file"
    _, tokens = encode_pair(tokenizer, to_messages(None, "Hi"), text)

    response = _read(tokenizer, tokens, [tokenizer.eos_token_id])

    assert response.text == text
    assert response.finished


@pytest.mark.soak
def test_a_fresh_process_draws_what_it_draws_later(
    random_model: BaseModelSpec, adapter: Path
) -> None:
    """https://github.com/pytorch/pytorch/issues/188792 struck one process in five here."""
    program = f"""
from pathlib import Path, PosixPath
from llamaduo.local_llm.base_model import BaseModelSpec
from llamaduo.local_llm.chat import to_messages
from llamaduo.local_llm.inference import DecodingSettings, respond
decoding = DecodingSettings(temperature=0.7, top_p=1.0, max_new_tokens=8, batch_size=120, seed=1)
conversations = [to_messages(None, "word " * n) for n in range(10, 130)]
first, later = (respond({random_model!r}, {adapter!r}, conversations, 1, decoding) for _ in "12")
print(first == later)
"""

    same = [subprocess.check_output([sys.executable, "-c", program], text=True) for _ in range(12)]

    assert same == ["True\n"] * 12


def test_k_samples_differ_from_each_other_and_not_from_run_to_run(
    random_model: BaseModelSpec, adapter: Path, conversations: list[list[Message]]
) -> None:
    state = torch.random.get_rng_state()

    first = respond(random_model, adapter, conversations[:3], 4, SAMPLED)
    second = respond(random_model, adapter, conversations[:3], 4, SAMPLED)
    other = respond(random_model, adapter, conversations[:3], 4, replace(SAMPLED, seed=2))

    assert [len(samples) for samples in first] == [4, 4, 4]
    assert len({response.text for response in first[0]}) > 1
    assert first == second
    assert first != other
    assert torch.equal(torch.random.get_rng_state(), state)


def test_samples_continue_their_own_prompt_from_where_it_ends(
    random_model: BaseModelSpec, adapter: Path, conversations: list[list[Message]]
) -> None:
    single = respond(random_model, adapter, conversations, 1, GREEDY)

    # Prompts of different lengths, two or three to a batch: all but the longest are padded.
    several = respond(random_model, adapter, conversations, 3, replace(GREEDY, batch_size=9))

    assert several == [responses * 3 for responses in single]


@pytest.mark.parametrize(
    ("model_type", "own"),
    [
        ("mistral", {"sliding_window": 8}),
        ("lfm2", {"layer_types": ["conv", "full_attention"]}),
        ("mamba", {}),
    ],
    ids=["sliding window", "hybrid", "state space"],
)
def test_samples_equal_a_single_response_whatever_the_model_keeps_of_a_prompt(
    model_type: str, own: dict[str, Any]
) -> None:
    sizes = {"vocab_size": 96, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2}
    heads = {"num_attention_heads": 4, "num_key_value_heads": 2}
    with torch.random.fork_rng():
        torch.manual_seed(1)
        config = AutoConfig.for_model(
            model_type, **sizes, **heads, **own, initializer_range=0.2, pad_token_id=0
        )
        model = AutoModelForCausalLM.from_config(config, dtype=torch.float32).eval()
        ids = torch.randint(3, 96, (3, 20))
    model.generation_config = GenerationConfig(max_new_tokens=12, do_sample=False, pad_token_id=0)
    mask = torch.tensor([[0] * padding + [1] * (20 - padding) for padding in (7, 0, 15)])
    prompts = {"input_ids": ids * mask, "attention_mask": mask}

    single = model.generate(**prompts)[:, 20:]
    inputs = _prefill(model, prompts, 4)
    several = model.generate(**inputs)[:, inputs["input_ids"].shape[1] :]

    assert len(single.unique()) > 3
    assert torch.equal(several, single.repeat_interleave(4, 0))


def test_a_response_that_was_cut_off_says_so(
    random_model: BaseModelSpec, adapter: Path, conversations: list[list[Message]]
) -> None:
    [[response]] = respond(
        random_model, adapter, conversations[:1], 1, replace(GREEDY, max_new_tokens=2)
    )

    assert not response.finished
    assert response.tokens == 2
    assert response.text == '{"answer'


def test_the_base_model_answers_without_an_adapter_and_without_its_own_decoding_settings(
    random_model: BaseModelSpec, conversations: list[list[Message]], tmp_path: Path
) -> None:
    opinionated = Path(shutil.copytree(random_model.name_or_path, tmp_path / "model"))
    own = {"do_sample": True, "temperature": 9.0, "repetition_penalty": 5.0, "eos_token_id": 2}
    (opinionated / "generation_config.json").write_text(json.dumps(own))

    plain = respond(random_model, None, conversations[:2], 1, GREEDY)

    assert respond(BaseModelSpec(str(opinionated)), None, conversations[:2], 1, GREEDY) == plain


def test_a_merged_adapter_gives_the_logits_of_one_that_is_not(
    random_model: BaseModelSpec, adapter: Path, conversations: list[list[Message]]
) -> None:
    base = load_model(random_model)
    prompt = encode_prompt(load_tokenizer(random_model), conversations[0])
    ids = torch.tensor([prompt], device=base.device)
    without = base(ids).logits.float()
    unmerged = PeftModel.from_pretrained(base, str(adapter))(ids).logits.float()

    in_4_bit = replace(random_model, load_in_4bit=True)
    merged = load_merged(in_4_bit, adapter)(ids).logits.float()

    assert (merged - unmerged).abs().mean() < 0.05 * (without - unmerged).abs().mean()
