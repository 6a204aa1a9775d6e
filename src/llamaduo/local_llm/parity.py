"""Whether a merged model is the adapter on its base model: both read the same responses."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from llamaduo.local_llm.base_model import BaseModelSpec, device, load_model, load_tokenizer
from llamaduo.local_llm.chat import TEMPLATE_VARIABLES, Message, encode_pair
from llamaduo.local_llm.inference import give_memory_back
from llamaduo.local_llm.release import ReleaseError
from llamaduo.progress import ProgressDisplay

if TYPE_CHECKING:
    import torch
    from peft import PeftModel
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

LIKELIEST = 100
"""Tokens of each position whose logits are compared; to keep those of all would take gigabytes."""


@dataclass(frozen=True)
class Parity:
    """How alike two models are, teacher-forced."""

    dtype: str
    """In which both computed."""
    tokens: int
    """Of the responses, with their ends: positions that were compared."""
    agreement: float
    """Percentage of them at which both find the same token likeliest."""
    largest_difference: float
    """Of a logit, among the tokens that the adapter finds likeliest."""


def compare(
    base_model: BaseModelSpec,
    adapter: Path,
    merged: Path,
    conversations: list[list[Message]],
    responses: list[str],
    dtype: str,
) -> Parity:
    """Hold a merged model against the adapter beside its base model, over the same responses.

    One model is loaded at a time.

    Args:
        merged: A folder in the layout of ``save_pretrained``.
        dtype: ``bfloat16`` or ``float32``.

    Raises:
        ReleaseError: By the merged model's template a prompt is another, or a model does not fit
            into the GPU's memory.
    """
    import torch
    from peft import PeftModel

    compute = getattr(torch, dtype)
    pairs = _pairs(base_model, merged, conversations, responses)
    unquantized = dataclasses.replace(base_model, load_in_4bit=False)
    same, largest = 0, 0.0
    with _fitting(dtype), ProgressDisplay(f"parity in {dtype}") as display:
        beside = PeftModel.from_pretrained(load_model(unquantized, compute), str(adapter)).eval()
        known = []
        for done, logits in enumerate(_read(beside, pairs), start=1):
            # By topk a tie, of which there are many in bfloat16, would have another winner.
            known.append((logits.argmax(-1), logits.topk(LIKELIEST)))
            display.show(done, 2 * len(pairs))
        del beside
        give_memory_back()
        model = load_model(BaseModelSpec(str(merged)), compute)
        for done, logits in enumerate(_read(model, pairs), start=1):
            wanted, among = known[done - 1]
            same += int((logits.argmax(-1) == wanted).sum())
            difference = logits.gather(-1, among.indices) - among.values
            largest = max(largest, float(difference.abs().max()))
            display.show(len(pairs) + done, 2 * len(pairs))
    positions = sum(len(response) for _, response in pairs)
    return Parity(dtype, positions, 100 * same / positions, largest)


@contextmanager
def _fitting(dtype: str) -> Iterator[None]:
    import torch

    try:
        yield
    except torch.OutOfMemoryError as error:
        raise ReleaseError(
            f"the model does not fit into the GPU's memory in {dtype}: compare on the CPU "
            f"(CUDA_VISIBLE_DEVICES= kedro run …), or leave it out (deployment.min_agreement: "
            f"{{{dtype}: null}})"
        ) from error


def _pairs(
    base_model: BaseModelSpec,
    merged: Path,
    conversations: list[list[Message]],
    responses: list[str],
) -> list[tuple[list[int], list[int]]]:
    """The tokens of prompts and responses, which both tokenizers must make alike."""
    tokenizers = load_tokenizer(base_model), load_tokenizer(BaseModelSpec(str(merged)))
    trained, released = (
        [encode_pair(tokenizer, *pair) for pair in zip(conversations, responses, strict=True)]
        for tokenizer in tokenizers
    )
    # An application sends no variables of the template.
    as_trained = [_text(tokenizers[0], each, TEMPLATE_VARIABLES) for each in conversations]
    if trained != released or as_trained != [
        _text(tokenizers[1], each, {}) for each in conversations
    ]:
        raise ReleaseError(
            f"the tokenizer in {merged} makes other prompts than training saw; nothing is released"
        )
    return trained


def _text(
    tokenizer: PreTrainedTokenizerBase, messages: list[Message], variables: dict[str, Any]
) -> str:
    return cast(
        str,
        tokenizer.apply_chat_template(
            messages, tokenize=False, add_generation_prompt=True, **variables
        ),
    )


def _read(
    model: PreTrainedModel | PeftModel, pairs: list[tuple[list[int], list[int]]]
) -> Iterator[torch.Tensor]:
    """Of each response the logits at each of its tokens: ``(positions, vocabulary)``, float32."""
    import torch

    with torch.inference_mode():
        for prompt, response in pairs:
            tokens = torch.tensor([prompt + response], device=device())
            # The logits at a position are those of the token that follows it.
            yield model(input_ids=tokens).logits[0, len(prompt) - 1 : -1].float().cpu()
