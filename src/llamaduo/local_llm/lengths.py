"""How long pairs are for the model that will learn them."""

from __future__ import annotations

from collections.abc import Iterable

from llamaduo.local_llm.base_model import BaseModelSpec, load_tokenizer
from llamaduo.local_llm.chat import encode_pair, to_messages


def refuse_long_pairs(
    base_model: BaseModelSpec, pairs: Iterable[tuple[str, str, str]], max_length: int
) -> list[str]:
    """Say which pairs the model cannot be trained on.

    Args:
        pairs: System message (may be empty), prompt and response of each.
        max_length: The most tokens of prompt and response together, chat template included.

    Returns:
        For each pair an empty text, or why it cannot be learned: it is longer than ``max_length``
        or than the model's own window, or the model's chat template refuses it.
    """
    tokenizer = load_tokenizer(base_model)
    window = min(max_length, tokenizer.model_max_length)

    def problem(system: str, prompt: str, response: str) -> str:
        try:
            tokens = sum(map(len, encode_pair(tokenizer, to_messages(system, prompt), response)))
        except ValueError as error:
            return str(error)
        return f"{tokens} tokens, at most {window} fit" if tokens > window else ""

    return [problem(*pair) for pair in pairs]
