"""Responses of the local LLM."""

from __future__ import annotations

import dataclasses
import gc
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Any, NamedTuple, cast

from llamaduo.local_llm.base_model import (
    BaseModelSpec,
    device,
    load_model,
    load_tokenizer,
    stop_token_ids,
)
from llamaduo.local_llm.chat import Message, encode_prompt
from llamaduo.progress import ProgressDisplay

if TYPE_CHECKING:
    import torch
    from transformers import GenerationConfig, PreTrainedModel, PreTrainedTokenizerBase


@dataclasses.dataclass(frozen=True)
class DecodingSettings:
    """How responses are drawn; the settings are the whole of it (no top-k, no penalties)."""

    temperature: float
    """0 decodes greedily."""
    top_p: float
    max_new_tokens: int
    batch_size: int
    """Sequences that are generated together."""
    seed: int


@dataclasses.dataclass(frozen=True)
class Response:
    """What the model wrote after a prompt."""

    text: str
    tokens: int
    """Without the token that ended it."""
    finished: bool
    """False where ``max_new_tokens`` cut it off."""


class Timed(NamedTuple):
    """Responses, and how long they took."""

    responses: list[list[Response]]
    seconds: float
    """Of generating, without the loading of the model."""


def respond(
    base_model: BaseModelSpec,
    adapter: Path | None,
    conversations: list[list[Message]],
    samples: int,
    decoding: DecodingSettings,
) -> list[list[Response]]:
    """Draw ``samples`` responses to each conversation; equal input gives equal responses.

    Args:
        adapter: A folder of ``train``; None asks the base model as it is.

    Returns:
        One list of ``samples`` responses per conversation, in the order of the conversations.
    """
    tokenizer = load_tokenizer(base_model)
    prompts = [encode_prompt(tokenizer, messages) for messages in conversations]
    with _seeded(decoding.seed), loaded(base_model, adapter) as model:
        return generate(model, tokenizer, prompts, samples, decoding)


def respond_timed(
    model: Path, prompts: list[list[int]], samples: int, decoding: DecodingSettings
) -> Timed:
    """The same for a folder without an adapter, and for prompts that are tokens."""
    spec = BaseModelSpec(str(model))
    tokenizer = load_tokenizer(spec)
    with loaded(spec, None) as loaded_model, _seeded(decoding.seed):
        began = perf_counter()
        responses = generate(loaded_model, tokenizer, prompts, samples, decoding)
        return Timed(responses, perf_counter() - began)


def generate(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    prompts: list[list[int]],
    samples: int,
    decoding: DecodingSettings,
) -> list[list[Response]]:
    """The same for a model that is loaded, prompts that are tokens, and a seed that is set."""
    # Neighbours of one length need little padding; the longest come first, so that a batch that
    # does not fit into memory fails at once.
    order = sorted(range(len(prompts)), key=lambda i: len(prompts[i]), reverse=True)
    prompts_per_batch = max(1, decoding.batch_size // samples)
    batches = [order[i : i + prompts_per_batch] for i in range(0, len(order), prompts_per_batch)]
    responses: dict[int, list[Response]] = {}
    stop_tokens = stop_token_ids(model.generation_config, tokenizer)
    model.generation_config = generation_config(decoding, stop_tokens, tokenizer)
    with ProgressDisplay("responses", quiet=len(batches) < 2) as display:
        for batch in batches:
            drawn = _generate(model, tokenizer, [prompts[i] for i in batch], samples, stop_tokens)
            for position, i in enumerate(batch):
                responses[i] = drawn[position * samples : (position + 1) * samples]
            display.show(len(responses), len(prompts))
    return [responses[i] for i in range(len(prompts))]


def load_merged(
    base_model: BaseModelSpec,
    adapter: Path | None,
    dtype: torch.dtype | None = None,
    on: torch.device | None = None,
) -> PreTrainedModel:
    """The model with the adapter added to its weights, which saves about a quarter of the time.

    The weights are never in 4 bit here: NF4 would round most of the adapter away.
    """
    model = load_model(dataclasses.replace(base_model, load_in_4bit=False), dtype, on)
    if adapter is None:
        return model
    from peft import PeftModel

    merged: PreTrainedModel = PeftModel.from_pretrained(model, str(adapter)).merge_and_unload()
    return merged


@contextmanager
def loaded(base_model: BaseModelSpec, adapter: Path | None) -> Iterator[PreTrainedModel]:
    """The model for a while; its memory is given back afterwards."""
    holder = [load_merged(base_model, adapter)]
    try:
        yield holder[0]
    finally:
        holder.clear()
        give_memory_back()


def give_memory_back() -> None:
    """Free the memory of models that nothing refers to any longer."""
    import torch

    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


@contextmanager
def _seeded(seed: int) -> Iterator[None]:
    """Random numbers from a seed, without a trace in what is drawn later."""
    import torch

    gpus = [device()] if torch.cuda.is_available() else []
    with torch.random.fork_rng(devices=gpus):
        torch.manual_seed(seed)
        yield


def generation_config(
    decoding: DecodingSettings,
    stop_tokens: list[int],
    tokenizer: PreTrainedTokenizerBase,
) -> GenerationConfig:
    """A whole config, because a model's own may bring top-k or a repetition penalty."""
    from transformers import GenerationConfig

    sampling = {"do_sample": True, "temperature": decoding.temperature, "top_p": decoding.top_p}
    return GenerationConfig(
        max_new_tokens=decoding.max_new_tokens,
        eos_token_id=stop_tokens,
        pad_token_id=tokenizer.pad_token_id,
        **({**sampling, "top_k": 0} if decoding.temperature > 0 else {"do_sample": False}),
    )


def _generate(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    prompts: list[list[int]],
    samples: int,
    stop_tokens: list[int],
) -> list[Response]:
    """All samples of the first prompt, then all of the second, and so on."""
    import torch

    padded = tokenizer.pad({"input_ids": prompts}, return_tensors="pt")
    inputs = dict(padded.to(model.device))
    with torch.inference_mode():
        if samples > 1:
            inputs = _prefill(model, inputs, samples)
        sequences = model.generate(**inputs)  # type: ignore[operator]  # (prompts * samples, inputs + new)
    new_tokens = sequences[:, inputs["input_ids"].shape[1] :]
    return [_read(tokenizer, tokens, stop_tokens) for tokens in new_tokens.tolist()]


def _prefill(
    model: PreTrainedModel, prompts: dict[str, torch.Tensor], samples: int
) -> dict[str, Any]:
    """Inputs of ``generate`` with ``samples`` rows per prompt, each prompt computed once.

    ``num_return_sequences`` would repeat the prompts before they are computed.
    """
    import torch

    # generate computes at least one token itself: the last one is left to it.
    but_last = {name: tensor[:, :-1] for name, tensor in prompts.items()}
    cache = model.generate(  # type: ignore[operator]
        **but_last, max_new_tokens=1, return_dict_in_generate=True
    ).cache
    repeated = {name: tensor.repeat_interleave(samples, 0) for name, tensor in prompts.items()}
    if all(cache.is_linear):  # Mamba and its like misread the padding mask next to a cache
        return repeated
    # Beam search's method: unlike batch_repeat_interleave, layers of every kind have it.
    cache.reorder_cache(torch.arange(len(prompts["input_ids"])).repeat_interleave(samples))
    return {**repeated, "input_ids": repeated["input_ids"][:, -1:], "cache": cache}


def _read(
    tokenizer: PreTrainedTokenizerBase, tokens: list[int], stop_tokens: list[int]
) -> Response:
    """Cut a row of new tokens at its first stop token; behind it there is padding only."""
    end = next((i for i, token in enumerate(tokens) if token in stop_tokens), None)
    text = cast(str, tokenizer.decode(tokens[:end], skip_special_tokens=True))
    return Response(text=text, tokens=len(tokens[:end]), finished=end is not None)
