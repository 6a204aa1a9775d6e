"""Ollama's Modelfile."""

from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from transformers import AutoTokenizer

from llamaduo.local_llm.inference import DecodingSettings
from llamaduo.local_llm.modelfile import find_pieces, write_modelfile

DECODING = DecodingSettings(temperature=0.7, top_p=0.9, max_new_tokens=64, batch_size=8, seed=1)
LLAMA_3 = (
    "{{ bos_token }}{% for m in messages %}<|start_header_id|>{{ m.role }}<|end_header_id|>\n\n"
    "{{ m.content }}<|eot_id|>{% endfor %}"
    "{% if add_generation_prompt %}<|start_header_id|>assistant<|end_header_id|>\n\n{% endif %}"
)
QWEN_3 = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n<think>\n\n</think>\n\n{% endif %}"
)
MISTRAL = (
    "{{ bos_token }}{% for m in messages %}"
    "{% if m.role == 'user' %}[INST] {{ m.content }}[/INST]"
    "{% elif m.role == 'assistant' %} {{ m.content }}</s>"
    "{% else %}{{ raise_exception('no system role') }}{% endif %}{% endfor %}"
)


@pytest.fixture(scope="module")
def tokenizer(random_model):
    return AutoTokenizer.from_pretrained(random_model.name_or_path)


def conversation(texts, system):
    roles = ["user", "assistant"] * len(texts)
    messages = [{"role": r, "content": t} for r, t in zip(roles, texts, strict=False)]
    return [{"role": "system", "content": system}, *messages] if system else messages


@pytest.fixture(params=[None, LLAMA_3, QWEN_3, MISTRAL], ids=["own", "llama", "qwen", "mistral"])
def templated(request, random_model):
    tokenizer = AutoTokenizer.from_pretrained(random_model.name_or_path)
    tokenizer.chat_template = request.param or tokenizer.chat_template
    return tokenizer


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    texts=st.lists(st.from_regex(r"\A[a-z ]{1,9}\Z"), min_size=1, max_size=5),
    system=st.sampled_from(["", "Be."]),
)
def test_the_pieces_make_the_prompts_of_the_chat_template(templated, texts, system):
    pieces = find_pieces(templated)
    texts = texts[: len(texts) - 1 + len(texts) % 2]  # the last one is the user's
    messages = conversation(texts, system if pieces.system else "")

    wanted = templated.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)

    assert pieces.render(messages) == wanted.removeprefix(templated.bos_token)
    assert (pieces.system is None) == ("no system role" in templated.chat_template)


def test_no_template_is_written_where_the_models_own_does_more(tokenizer):
    tokenizer.chat_template, own = "{{ messages | length }}", tokenizer.chat_template
    try:
        assert find_pieces(tokenizer) is None
    finally:
        tokenizer.chat_template = own


def test_a_modelfile_names_file_stop_tokens_and_decoding(random_model):
    files = [Path(f"student-{each}.gguf") for each in ("f16", "q8_0")]

    written = write_modelfile("student", Path(random_model.name_or_path), files, DECODING)

    lines = written.splitlines()
    assert "not tried" in lines[0]
    assert "FROM ./student-q8_0.gguf" in lines
    assert 'PARAMETER stop "<|im_end|>"' in lines
    assert {"PARAMETER temperature 0.7", "PARAMETER top_p 0.9", "PARAMETER num_predict 64"} <= {
        *lines
    }
    assert "{{ .System }}" in written
