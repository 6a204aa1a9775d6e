"""The chat template, for training and for inference."""

import pytest
from transformers import PreTrainedTokenizerBase

from llamaduo.local_llm.base_model import BaseModelSpec, load_tokenizer
from llamaduo.local_llm.chat import encode_pair, encode_prompt, render_prompt, to_messages


@pytest.fixture
def tokenizer(random_model: BaseModelSpec) -> PreTrainedTokenizerBase:
    return load_tokenizer(random_model)


def test_a_conversation_has_a_system_message_only_if_there_is_one() -> None:
    user = {"role": "user", "content": "Hi"}

    assert to_messages("Be brief.", "Hi") == [{"role": "system", "content": "Be brief."}, user]
    assert to_messages("", "Hi") == [user]
    assert to_messages(None, "Hi") == [user]


def test_the_template_of_the_model_is_used(tokenizer: PreTrainedTokenizerBase) -> None:
    text = render_prompt(tokenizer, to_messages("Be brief.", "Hi"))

    assert text == (
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
        render_prompt(tokenizer, to_messages("Be brief.", "Hi"))


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

    assert render_prompt(tokenizer, to_messages(None, "Hi")) == "26 Jul 2024"
