"""The one place where a conversation becomes tokens, for training, inference and export."""

from __future__ import annotations

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


def render_prompt(tokenizer: PreTrainedTokenizerBase, messages: list[Message]) -> str:
    """The text after which the model writes its response.

    Raises:
        ValueError: The model's template refuses the conversation.
    """
    return _render(tokenizer, messages, add_generation_prompt=True)


def encode_prompt(tokenizer: PreTrainedTokenizerBase, messages: list[Message]) -> list[int]:
    """The tokens of ``render_prompt``."""
    return _encode(tokenizer, render_prompt(tokenizer, messages))


def encode_pair(
    tokenizer: PreTrainedTokenizerBase, messages: list[Message], response: str
) -> tuple[list[int], list[int]]:
    """The tokens of the prompt and of the response with its end of turn.

    Raises:
        ValueError: The model's template refuses the conversation, or shows the prompt otherwise
            once it is answered, so that training would teach another prompt than inference sends.
    """
    prompt = render_prompt(tokenizer, messages)
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
    from jinja2 import TemplateError

    try:
        text = tokenizer.apply_chat_template(
            messages,
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
    # The template has written the special tokens already.
    return cast(list[int], tokenizer(text, add_special_tokens=False)["input_ids"])
