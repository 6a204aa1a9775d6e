"""The one place where a conversation becomes tokens, for training, inference and export."""

from __future__ import annotations

import re
from functools import lru_cache
from os.path import commonprefix
from typing import TYPE_CHECKING, Any, cast

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Message = dict[str, str]
"""``{"role": "system" | "user" | "assistant", "content": …}``, as in OpenAI's chat API."""

TEMPLATE_VARIABLES: dict[str, Any] = {
    # Qwen3 and its like would answer with their reasoning first, which no pair shows them.
    "enable_thinking": False,
    # Llama 3.2's template writes the date into the prompt; this is its own fallback. With today's
    # date a model would see another prompt tomorrow than the one it was trained on.
    "date_string": "26 Jul 2024",
}


def to_messages(system: str | None, prompt: str) -> list[Message]:
    """The conversation that a prompt opens; an empty system message is none."""
    user = {"role": "user", "content": prompt}
    return [{"role": "system", "content": system}, user] if system else [user]


def encode_prompt(tokenizer: PreTrainedTokenizerBase, messages: list[Message]) -> list[int]:
    """The tokens after which the model writes its response.

    The special tokens in it are the template's; one that a message spells is plain text.

    Raises:
        ValueError: The model's template refuses the conversation, or its tokenizer makes a special
            token of plain text.
    """
    return _encode(tokenizer, _render(tokenizer, messages, add_generation_prompt=True))


def encode_pair(
    tokenizer: PreTrainedTokenizerBase, messages: list[Message], response: str
) -> tuple[list[int], list[int]]:
    """The tokens of the prompt and of the response with its end of turn.

    Raises:
        ValueError: The model's template refuses the conversation, or shows the prompt otherwise
            once it is answered, so that training would teach another prompt than inference sends.
    """
    prompt = _render(tokenizer, messages, add_generation_prompt=True)
    answered = [*messages, {"role": "assistant", "content": response}]
    pair = _render(tokenizer, answered, add_generation_prompt=False)
    if not pair.startswith(prompt):
        raise ValueError(
            f"the chat template of {tokenizer.name_or_path} renders a prompt otherwise once it is "
            "answered; give the model folder a chat_template.jinja in which the generation prompt "
            f"opens the answered conversation (they part at character "
            f"{len(commonprefix([prompt, pair]))} of {len(prompt)})"  # noqa: RUF071 (of characters)
        )
    prompt_ids, pair_ids = _encode(tokenizer, prompt), _encode(tokenizer, pair)
    if pair_ids[: len(prompt_ids)] == prompt_ids:
        return prompt_ids, pair_ids[len(prompt_ids) :]
    # A token spans the border (a response that begins with a line break, say). Inference always
    # starts after the whole prompt, so the border stays where it is.
    return prompt_ids, _encode(tokenizer, pair.removeprefix(prompt))


def _render(
    tokenizer: PreTrainedTokenizerBase, messages: list[Message], *, add_generation_prompt: bool
) -> str:
    """The conversation as text, with a mark around each special token that a message spells.

    This and ``_encode`` are the two halves of transformers' ``sanitize_control_tokens``, which does
    not show the text between them. The marks are U+F0000 and U+F0001; a message's own are dropped.
    """
    from jinja2 import TemplateError
    from transformers.utils.chat_template_utils import mark_control_tokens

    try:
        text = tokenizer.apply_chat_template(
            mark_control_tokens(messages, _special_tokens(tokenizer)),
            tokenize=False,
            add_generation_prompt=add_generation_prompt,
            **TEMPLATE_VARIABLES,
        )
    except TemplateError as error:
        roles = ", ".join(message["role"] for message in messages)
        raise ValueError(
            f"the chat template of {tokenizer.name_or_path} refuses a conversation of {roles}: "
            f"{error}. If it knows no system role, leave the column system empty"
        ) from error
    return cast(str, text)


def _encode(tokenizer: PreTrainedTokenizerBase, text: str) -> list[int]:
    from transformers.utils.chat_template_utils import _CONTROL_TOKEN_START

    encoding = tokenizer(
        text,
        add_special_tokens=False,  # the template has written them already
        # Looks through all added tokens: 15 ms a text where there are 6,000.
        sanitize_control_tokens=_CONTROL_TOKEN_START in text,
    )
    return cast(list[int], encoding["input_ids"])


@lru_cache(maxsize=1)
def _special_tokens(tokenizer: PreTrainedTokenizerBase) -> re.Pattern[str]:
    """Matches those that decoding leaves out; other added tokens are words like any."""
    added = tokenizer.added_tokens_decoder.values()
    special = [re.escape(token.content) for token in added if token.special]
    return re.compile("|".join(special) or "(?!)")  # without any, nothing
