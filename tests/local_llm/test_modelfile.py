"""Ollama's Modelfile."""

from pathlib import Path

import pytest
from hypothesis import given
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
ROLES = {"system": "", "user": "", "assistant": ""}


@pytest.fixture(scope="module")
def tokenizer(random_model):
    return AutoTokenizer.from_pretrained(random_model.name_or_path)


def conversation(texts, system):
    roles = ["user", "assistant"] * len(texts)
    messages = [{"role": r, "content": t} for r, t in zip(roles, texts, strict=False)]
    return [{"role": "system", "content": system}, *messages] if system else messages


@pytest.mark.parametrize("template", [None, LLAMA_3])
@given(
    texts=st.lists(st.from_regex(r"\A[a-z ]{1,9}\Z"), min_size=1, max_size=5),
    system=st.sampled_from(["", "Be."]),
)
def test_the_pieces_make_the_prompts_of_the_chat_template(tokenizer, template, texts, system):
    texts = texts[: len(texts) - 1 + len(texts) % 2]  # the last one is the user's
    messages = conversation(texts, system)
    tokenizer.chat_template, own = template or tokenizer.chat_template, tokenizer.chat_template
    try:
        pieces = find_pieces(tokenizer)
        wanted = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    finally:
        tokenizer.chat_template = own

    assert pieces.render(messages) == wanted


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
