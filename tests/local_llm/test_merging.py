"""An adapter becomes a model of its own, and is held against what it was."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig

from llamaduo.local_llm.base_model import BaseModelSpec, load_model, load_tokenizer
from llamaduo.local_llm.chat import TEMPLATE_VARIABLES, to_messages
from llamaduo.local_llm.engines import TransformersEngine
from llamaduo.local_llm.inference import DecodingSettings, respond
from llamaduo.local_llm.merging import Merge, with_variables
from llamaduo.local_llm.parity import compare
from llamaduo.local_llm.release import Release, ReleaseError, write_manifest
from llamaduo.parameters import EvaluationParameters
from llamaduo.pipelines.evaluation.answering import answer_prompts
from tests.serving.conftest import serving

GREEDY = DecodingSettings(temperature=0, top_p=1, max_new_tokens=24, batch_size=8, seed=1)


@pytest.fixture
def conversations(pairs):
    return [to_messages(row.system, row.prompt) for row in pairs.itertuples()]


def test_a_merged_model_answers_what_the_adapter_has_learned(merged, conversations, pairs):
    answers = respond(BaseModelSpec(str(merged)), None, conversations, 1, GREEDY)

    assert [answer.text for (answer,) in answers] == list(pairs["response"])


def test_a_merged_model_holds_all_that_other_engines_read(merged, random_model):
    weights = load_file(merged / "model.safetensors")
    assert {tensor.dtype for tensor in weights.values()} == {torch.bfloat16}
    generation = GenerationConfig.from_pretrained(merged)
    assert generation.eos_token_id == [load_tokenizer(random_model).eos_token_id]
    assert (generation.max_new_tokens, generation.do_sample) == (24, False)
    template = (merged / "chat_template.jinja").read_text(encoding="utf-8")
    assert template == load_tokenizer(random_model).chat_template
    assert "chat_template" not in json.loads((merged / "tokenizer_config.json").read_text())


def test_a_base_model_in_4_bit_is_merged_unquantized(random_model, adapter, merged, tmp_path):
    Merge(replace(random_model, load_in_4bit=True), adapter, GREEDY).write(tmp_path / "model")

    one, other = (load_file(each / "model.safetensors") for each in (merged, tmp_path / "model"))
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_notebook_and_server_answer_alike(random_model, adapter, merged, pairs, tmp_path):
    """The notebook asks adapter and base model by ``answer_prompts``, the server the release."""
    evaluation = EvaluationParameters(
        target_similarity=80,
        target_precision=80,
        decoding={"temperature": 0, "max_new_tokens": 24},
    )
    asked = pairs.assign(id=pairs["prompt"])
    by_notebook = answer_prompts(TransformersEngine(), random_model, adapter, asked, evaluation)
    shutil.copytree(merged, tmp_path / "model")
    write_manifest(tmp_path, {"name": "student"})

    with serving(Release.open(tmp_path), dtype=None) as served:
        by_server = [
            served.client()
            .chat.completions.create(model="gpt-4o", messages=to_messages(row.system, row.prompt))
            .choices[0]
            .message.content
            for row in pairs.itertuples()
        ]

    assert by_server == list(by_notebook["response"]) == list(pairs["response"])


@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
def test_adapter_and_merged_model_agree(random_model, adapter, merged, conversations, pairs, dtype):
    parity = compare(random_model, adapter, merged, conversations, list(pairs["response"]), dtype)

    assert parity.agreement == 100
    assert 0 < parity.largest_difference < 1
    tokenizer = load_tokenizer(random_model)
    lengths = [len(tokenizer.encode(text)) for text in pairs["response"]]
    assert parity.tokens == sum(lengths) + 2 * len(lengths)  # end of turn, line break


def test_a_model_agrees_with_itself_where_two_tokens_are_as_likely(
    random_model, conversations, pairs, tmp_path
):
    untrained = get_peft_model(load_model(random_model), LoraConfig(target_modules=["q_proj"]))
    untrained.save_pretrained(tmp_path / "adapter")
    base = Path(random_model.name_or_path)

    parity = compare(
        random_model, tmp_path / "adapter", base, conversations, list(pairs["response"]), "bfloat16"
    )

    assert (parity.agreement, parity.largest_difference) == (100, 0)


def test_a_model_without_the_adapter_does_not_agree(random_model, adapter, conversations, pairs):
    base = Path(random_model.name_or_path)

    parity = compare(random_model, adapter, base, conversations, list(pairs["response"]), "float32")

    assert parity.agreement < 50


def test_another_chat_template_than_that_of_the_training_is_refused(
    random_model, adapter, merged, conversations, pairs, tmp_path
):
    changed = shutil.copytree(merged, tmp_path / "model")
    template = changed / "chat_template.jinja"
    template.write_text(template.read_text().replace("named SmolLM", "named Nobody"))

    with pytest.raises(ReleaseError, match="makes other prompts than training saw"):
        compare(random_model, adapter, changed, conversations, list(pairs["response"]), "float32")


def test_an_adapter_of_another_base_model_is_refused(random_model, adapter, merged, tmp_path):
    with pytest.raises(ReleaseError, match=r"trained on random-2-layer, and base_model is model"):
        Merge(BaseModelSpec(str(merged)), adapter, GREEDY).write(tmp_path / "model")


def test_a_base_model_that_was_resized_since_the_training_is_refused(
    random_model, adapter, tmp_path
):
    resized = tmp_path / "random-2-layer"
    shutil.copytree(random_model.name_or_path, resized)
    model = AutoModelForCausalLM.from_pretrained(resized)
    model.resize_token_embeddings(49160)
    model.save_pretrained(resized)

    with pytest.raises(ReleaseError, match=r"has 49160"):
        Merge(BaseModelSpec(str(resized)), adapter, GREEDY).write(tmp_path / "model")


def test_of_several_chat_templates_the_default_is_released(random_model, adapter, tmp_path):
    several = tmp_path / "random-2-layer"
    shutil.copytree(random_model.name_or_path, several)
    (several / "additional_chat_templates").mkdir()
    (several / "additional_chat_templates/tool_use.jinja").write_text("{{ messages }}")

    Merge(BaseModelSpec(str(several)), adapter, GREEDY).write(tmp_path / "model")

    released = (tmp_path / "model/chat_template.jinja").read_text(encoding="utf-8")
    assert released == load_tokenizer(random_model).chat_template


def test_a_template_sets_itself_what_training_has_set(random_model):
    template = (
        "{% for m in messages %}{{ m.content }}{% endfor %}"
        "{% if enable_thinking is defined and enable_thinking is false %}<think></think>{% endif %}"
        "{{ date_string }}"
    )
    tokenizer = AutoTokenizer.from_pretrained(random_model.name_or_path)
    messages = [{"role": "user", "content": "Hello."}]

    trained = tokenizer.apply_chat_template(
        messages, chat_template=template, tokenize=False, **TEMPLATE_VARIABLES
    )
    released = tokenizer.apply_chat_template(
        messages, chat_template=with_variables(template), tokenize=False
    )

    assert released == trained == "Hello.<think></think>26 Jul 2024"
    assert with_variables("{{ messages }}") == "{{ messages }}"
