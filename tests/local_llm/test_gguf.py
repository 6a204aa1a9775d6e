"""A model folder as GGUF: converted, read again by llama.cpp, and asked."""

import json
import shutil
from dataclasses import replace

import pytest

from llamaduo.local_llm import gguf_inference
from llamaduo.local_llm.base_model import BaseModelSpec, load_tokenizer
from llamaduo.local_llm.chat import encode_prompt, to_messages
from llamaduo.local_llm.engines import InferenceError
from llamaduo.local_llm.gguf import Conversion, gguf_files
from llamaduo.local_llm.inference import DecodingSettings
from llamaduo.local_llm.llama_server import llama_server
from llamaduo.local_llm.release import ReleaseError

GREEDY = DecodingSettings(temperature=0, top_p=1, max_new_tokens=24, batch_size=8, seed=1)
DRAWN = DecodingSettings(temperature=1, top_p=1, max_new_tokens=8, batch_size=1, seed=1)


@pytest.fixture(scope="module")
def f16(merged, tmp_path_factory):
    folder = tmp_path_factory.mktemp("gguf") / "gguf"
    Conversion(merged, "student", ["f16"]).write(folder)
    return gguf_files(folder)["f16"]


@pytest.fixture
def conversations(pairs):
    return [to_messages(row.system, row.prompt) for row in pairs.itertuples()]


@pytest.fixture
def prompts(merged, conversations):
    tokenizer = load_tokenizer(BaseModelSpec(str(merged)))
    return [encode_prompt(tokenizer, each) for each in conversations]


def test_a_gguf_file_answers_what_the_adapter_has_learned(f16, prompts, pairs):
    responses, seconds = gguf_inference.respond(f16, prompts, 1, GREEDY)

    assert [each.text for (each,) in responses] == list(pairs["response"])
    assert all(each.finished for (each,) in responses)
    assert seconds > 0


def test_a_gguf_file_draws_different_samples_and_the_same_again(f16, prompts):
    once, again = (gguf_inference.respond(f16, prompts[:1], 2, DRAWN)[0] for _ in range(2))

    assert once == again
    assert len({each.text for samples in once for each in samples}) == 2


def test_a_response_of_a_gguf_file_that_was_cut_off_says_so(f16, prompts):
    ((cut,),), _ = gguf_inference.respond(f16, prompts[:1], 1, replace(GREEDY, max_new_tokens=4))

    assert (cut.tokens, cut.finished) == (4, False)


def test_template_and_stop_tokens_are_inside_a_gguf_file(f16, merged, conversations):
    gguf_inference.check_inside(f16, merged, conversations)


def test_a_gguf_file_with_another_template_is_found_out(f16, merged, conversations, tmp_path):
    changed = shutil.copytree(merged, tmp_path / "model")
    template = changed / "chat_template.jinja"
    template.write_text(template.read_text().replace("named SmolLM", "named Nobody"))

    with pytest.raises(ReleaseError, match=r"student-f16.gguf .* template makes other prompts"):
        gguf_inference.check_inside(f16, changed, conversations)


def test_a_stop_token_that_llama_cpp_does_not_know_is_warned_of(
    f16, merged, conversations, tmp_path, caplog
):
    changed = shutil.copytree(merged, tmp_path / "model")
    config = json.loads((changed / "generation_config.json").read_text())
    (changed / "generation_config.json").write_text(json.dumps({**config, "eos_token_id": [2, 7]}))
    unknown = load_tokenizer(BaseModelSpec(str(merged))).convert_ids_to_tokens(7)

    gguf_inference.check_inside(f16, changed, conversations)

    assert f"student-f16.gguf does not end at {unknown} by itself" in caplog.text


def test_a_template_that_llama_cpp_cannot_read_is_refused(merged, conversations, tmp_path):
    strange = shutil.copytree(merged, tmp_path / "model")
    (strange / "chat_template.jinja").write_text("{{ 'a'.ljust(4) }}{{ messages[0].content }}")
    Conversion(strange, "student", ["f16"]).write(tmp_path / "gguf")

    with pytest.raises(ReleaseError, match=r"leave it out of deployment.quantizations"):
        gguf_inference.check_inside(gguf_files(tmp_path / "gguf")["f16"], strange, conversations)


def test_a_model_may_have_no_gguf_files(merged, tmp_path):
    Conversion(merged, "student", []).write(tmp_path / "gguf")

    assert gguf_files(tmp_path / "gguf") == {}


def test_a_file_that_is_no_gguf_is_refused_in_the_words_of_llama_cpp(tmp_path):
    (tmp_path / "model.gguf").write_text("no model")

    with pytest.raises(InferenceError, match=r"cannot load .*model.gguf: .*invalid magic"):  # noqa: SIM117
        with llama_server(tmp_path / "model.gguf", 1, 256):
            pass


def test_a_model_that_the_converter_does_not_know_is_refused(merged, tmp_path):
    strange = shutil.copytree(merged, tmp_path / "model")
    config = json.loads((strange / "config.json").read_text())
    (strange / "config.json").write_text(json.dumps({**config, "architectures": ["NoSuchModel"]}))

    with pytest.raises(ReleaseError, match=r"cannot be written as GGUF \(f16\): .*NoSuchModel"):
        Conversion(strange, "student", ["f16"]).write(tmp_path / "gguf")
