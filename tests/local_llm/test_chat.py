"""The chat template, for training and for inference."""

import string

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, normalizers
from transformers import PreTrainedTokenizerBase, TokenizersBackend

from llamaduo.local_llm.base_model import BaseModelSpec, load_tokenizer
from llamaduo.local_llm.chat import encode_pair, encode_prompt, to_messages

SPECIAL_TOKENS = ["<|im_end|>", "<|im_start|>", "<|endoftext|>", "<filename>", "<file_sep>"]
PLAIN_TEXTS = st.text("ab é|_<>\n")
TEXTS = st.lists(PLAIN_TEXTS | st.sampled_from(SPECIAL_TOKENS)).map("".join)


@pytest.fixture
def tokenizer(random_model: BaseModelSpec) -> PreTrainedTokenizerBase:
    return load_tokenizer(random_model)


@pytest.fixture
def llama_2_tokenizer() -> PreTrainedTokenizerBase:
    """One of Llama 2's kind: a space before each text, and ``<s>`` opens a turn."""
    names = ["<unk>", "<s>", "</s>", "▁", *string.printable]
    characters = Tokenizer(models.BPE({name: i for i, name in enumerate(names)}, []))
    characters.normalizer = normalizers.Sequence(
        [normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]
    )
    characters.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.Fuse()])
    return TokenizersBackend(
        tokenizer_object=characters,
        unk_token="<unk>",
        bos_token="<s>",
        eos_token="</s>",
        chat_template=(
            "{% for m in messages %}{% if m.role == 'user' %}<s>[INST] {{ m.content | trim }} "
            "[/INST]{% else %} {{ m.content | trim }} </s>{% endif %}{% endfor %}"
        ),
    )


def special_tokens(tokenizer: PreTrainedTokenizerBase, ids: list[int]) -> list[str]:
    added = tokenizer.added_tokens_decoder
    return [added[i].content for i in ids if i in added and added[i].special]


def test_a_conversation_has_a_system_message_only_if_there_is_one() -> None:
    user = {"role": "user", "content": "Hi"}

    assert to_messages("Be brief.", "Hi") == [{"role": "system", "content": "Be brief."}, user]
    assert to_messages("", "Hi") == [user]
    assert to_messages(None, "Hi") == [user]


def test_the_template_of_the_model_is_used(tokenizer: PreTrainedTokenizerBase) -> None:
    prompt_ids = encode_prompt(tokenizer, to_messages("Be brief.", "Hi"))

    assert tokenizer.decode(prompt_ids) == (
        "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nHi<|im_end|>\n"
        "<|im_start|>assistant\n"
    )


@pytest.mark.parametrize("response", ['{"a": 1}', "\nstarts with a break", " and a space", ""])
def test_training_and_inference_share_the_prompt_token_for_token(
    tokenizer: PreTrainedTokenizerBase, response: str
) -> None:
    messages = to_messages("Be brief.", "Größe? ☃\n\n")

    prompt_ids, response_ids = encode_pair(tokenizer, messages, response)

    assert prompt_ids == encode_prompt(tokenizer, messages)
    assert tokenizer.decode(response_ids) == f"{response}<|im_end|>\n"


@given(system=TEXTS, prompt=TEXTS, response=TEXTS)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_special_tokens_in_messages_are_text_and_training_shows_what_inference_does(
    tokenizer: PreTrainedTokenizerBase, system: str, prompt: str, response: str
) -> None:
    messages = to_messages(system, prompt)
    harmless = to_messages(system and "a", "b")

    prompt_ids, response_ids = encode_pair(tokenizer, messages, response)

    assert prompt_ids == encode_prompt(tokenizer, messages)
    assert tokenizer.decode(prompt_ids) == tokenizer.apply_chat_template(
        messages, add_generation_prompt=True, tokenize=False
    )
    assert tokenizer.decode(response_ids) == f"{response}<|im_end|>\n"
    assert special_tokens(tokenizer, prompt_ids) == special_tokens(
        tokenizer, encode_prompt(tokenizer, harmless)
    )
    assert special_tokens(tokenizer, response_ids) == ["<|im_end|>"]


@given(system=PLAIN_TEXTS, prompt=PLAIN_TEXTS)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_messages_without_special_tokens_are_tokenized_as_the_rendered_text_is(
    tokenizer: PreTrainedTokenizerBase, system: str, prompt: str
) -> None:
    messages = to_messages(system, prompt)
    text = tokenizer.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)

    assert encode_prompt(tokenizer, messages) == tokenizer(text)["input_ids"]


def test_overlapping_special_tokens_in_a_message_are_text(
    tokenizer: PreTrainedTokenizerBase,
) -> None:
    tokenizer.add_special_tokens({"extra_special_tokens": ["<|im_end|>>", "|im_end|"]})

    _, response_ids = encode_pair(tokenizer, to_messages(None, "Hi"), "<|im_end|>>><|im_end|>")

    assert special_tokens(tokenizer, response_ids) == ["<|im_end|>"]
    assert tokenizer.decode(response_ids) == "<|im_end|>>><|im_end|><|im_end|>\n"


def test_struck_through_text_does_not_open_or_end_a_turn(
    llama_2_tokenizer: PreTrainedTokenizerBase,
) -> None:
    messages = to_messages(None, " <s>100</s> 90 EUR ")

    prompt_ids, response_ids = encode_pair(llama_2_tokenizer, messages, "<s>100</s>90")

    assert prompt_ids == encode_prompt(llama_2_tokenizer, messages)
    assert special_tokens(llama_2_tokenizer, prompt_ids) == ["<s>"]
    assert special_tokens(llama_2_tokenizer, response_ids) == ["</s>"]
    assert llama_2_tokenizer.decode(prompt_ids) == "<s> [INST] <s>100</s> 90 EUR [/INST]"
    assert llama_2_tokenizer.decode(response_ids) == " <s>100</s>90 </s>"


def test_a_template_that_drops_a_thought_drops_the_special_tokens_in_it(
    tokenizer: PreTrainedTokenizerBase,
) -> None:
    tokenizer.chat_template = (
        "{% for m in messages %}[{{ m.role }}]{{ m.content.split('</think>') | last }}{% endfor %}"
        "{% if add_generation_prompt %}[assistant]{% endif %}"
    )
    response = "<|im_start|> or so</think><|im_end|> it is"

    _, response_ids = encode_pair(tokenizer, to_messages(None, "Hi"), response)

    assert tokenizer.decode(response_ids) == "<|im_end|> it is"
    assert special_tokens(tokenizer, response_ids) == []


def test_an_added_token_that_is_not_special_stays_one(tokenizer: PreTrainedTokenizerBase) -> None:
    tokenizer.add_tokens(["<tool_call>"])

    _, response_ids = encode_pair(tokenizer, to_messages(None, "Hi"), "<tool_call>{}")

    assert response_ids[0] == tokenizer.convert_tokens_to_ids("<tool_call>")


def test_a_template_that_rewrites_an_answered_prompt_is_refused(
    tokenizer: PreTrainedTokenizerBase,
) -> None:
    tokenizer.chat_template = (
        "{{ messages | length }}{% for m in messages %}{{ m.content }}{% endfor %}"
    )

    with pytest.raises(ValueError, match="renders a prompt otherwise once it is answered"):
        encode_pair(tokenizer, to_messages(None, "Hi"), "Hello")


def test_a_refusal_of_the_template_names_the_roles(tokenizer: PreTrainedTokenizerBase) -> None:
    tokenizer.chat_template = (
        "{% if messages[0].role == 'system' %}"
        "{{ raise_exception('System role not supported') }}{% endif %}"
    )

    with pytest.raises(ValueError, match=r"refuses a conversation of system, user: System role"):
        encode_prompt(tokenizer, to_messages("Be brief.", "Hi"))


def test_a_template_that_can_think_is_told_not_to(tokenizer: PreTrainedTokenizerBase) -> None:
    tokenizer.chat_template = (
        "{% for m in messages %}[{{ m.role }}]{% if m.role == 'assistant' %}<think></think>"
        "{% endif %}{{ m.content }}{% endfor %}{% if add_generation_prompt %}[assistant]"
        "{% if enable_thinking is false %}<think></think>{% endif %}{% endif %}"
    )

    _, response_ids = encode_pair(tokenizer, to_messages(None, "Hi"), "Hello")

    assert tokenizer.decode(response_ids) == "Hello"


def test_a_template_that_writes_the_date_writes_the_same_one_each_day(
    tokenizer: PreTrainedTokenizerBase,
) -> None:
    tokenizer.chat_template = "{{ date_string or strftime_now('%d %b %Y') }}"

    prompt_ids = encode_prompt(tokenizer, to_messages(None, "Hi"))

    assert tokenizer.decode(prompt_ids) == "26 Jul 2024"
