"""The merged model in this process, by transformers' continuous batching."""

from __future__ import annotations

import asyncio
import logging
import uuid
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import TYPE_CHECKING, cast

import torch
from transformers import ContinuousBatchingConfig, GenerationConfig
from transformers.generation.continuous_batching.cb_logits_processors import (
    ContinuousBatchingTemperatureLogitsWarper,
    ContinuousBatchingTopPLogitsWarper,
)

from llamaduo.local_llm.base_model import BaseModelSpec, load_model
from llamaduo.serving.engines import Piece, Sampling
from llamaduo.serving.errors import EngineError

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase
    from transformers.generation.continuous_batching import ContinuousBatchingManager
    from transformers.generation.continuous_batching.requests import GenerationOutput

PAGE = 64
"""Tokens by which a request's share of the cache grows."""
PREFILL = 512
"""Tokens that one step computes at most; a longer prompt takes several, so that it delays others
little."""
NOT_NEUTRAL = 0.5
"""Continuous batching takes temperature and top-p of requests only where its own are not 1."""
STOP_S = 10
HALF_CHARACTER = "\N{REPLACEMENT CHARACTER}"


class MergedEngine:
    """A model whose requests enter and leave the batch at any token.

    Args:
        tokenizer: The model's.
        stop_tokens: That end an answer.
        slots: Requests in the batch.
        context: Tokens of each, prompt and answer together; their memory is taken at once.
        dtype: Of the weights; None takes the one of training and evaluation.
    """

    enforces_schemas = False
    is_closed = False

    def __init__(
        self,
        model: Path,
        tokenizer: PreTrainedTokenizerBase,
        stop_tokens: list[int],
        slots: int,
        context: int,
        dtype: torch.dtype | None = None,
    ) -> None:
        self._tokenizer, self._stop_tokens = tokenizer, frozenset(stop_tokens)
        # Its warnings quote tokens of prompts.
        logging.getLogger("ContinuousBatchingLogger").setLevel(logging.ERROR)
        self._manager = _manager(load_model(BaseModelSpec(str(model)), dtype), slots, context)
        with torch.inference_mode():  # its thread takes this over
            self._manager.start()

    async def generate(self, prompt: list[int], sampling: Sampling) -> AsyncGenerator[Piece]:
        """See ``Engine``; the batch has one random generator, so a seed has no effect."""
        request = uuid.uuid4().hex
        outputs: asyncio.Queue[GenerationOutput] = asyncio.Queue()
        self._manager.register_result_handler(request, outputs.put_nowait)
        text = _Text(self._tokenizer, sampling.stop)
        seen, finished = 0, False
        try:
            self._add(request, prompt, sampling)
            while not finished:
                output = await outputs.get()
                finished = output.is_finished()
                if output.error:
                    raise EngineError(output.error)
                new, seen = output.generated_tokens[seen:], len(output.generated_tokens)
                stopped = finished and not self._stop_tokens.isdisjoint(new[-1:])
                piece = text.add(new[:-1] if stopped else new)
                if text.is_cut:
                    yield Piece(piece, "stop", seen)
                    return
                if finished:
                    yield Piece(piece + text.rest(), "stop" if stopped else "length", seen)
                elif piece:
                    yield Piece(piece, None, seen)
        finally:
            if not finished:
                self._manager.cancel_request(request)
            self._forget(request)

    def is_alive(self) -> bool:
        """Whether the thread runs that computes the batch."""
        status = self._manager.background_thread_status
        return self._manager.is_running() and status.can_accept_new_requests() is None

    def close(self) -> None:
        """Stop after the step that is being computed."""
        self.is_closed = True
        if self._manager.is_running():
            self._manager.stop(block=True, timeout=STOP_S, hard_stop=True)

    def _add(self, request: str, prompt: list[int], sampling: Sampling) -> None:
        added = self._manager.add_request(
            prompt,
            request_id=request,
            max_new_tokens=sampling.max_tokens,
            eos_token_id=list(self._stop_tokens),
            streaming=True,
            temperature=float(sampling.temperature),
            top_p=float(sampling.top_p),
        )
        if added is None:
            raise EngineError("continuous batching has ended")

    def _forget(self, request: str) -> None:
        """Leave nothing of a request; the manager keeps what nobody has fetched."""
        router = self._manager.output_router
        with router._lock:
            router.result_handlers.pop(request, None)
        while not router.output_queue.empty():  # of requests that were cancelled before
            router.output_queue.get_nowait()


def _manager(model: PreTrainedModel, slots: int, context: int) -> ContinuousBatchingManager:
    blocks = slots * -(-context // PAGE)
    manager: ContinuousBatchingManager = model.init_continuous_batching(  # type: ignore[operator]
        # Whole, as in ``llamaduo.local_llm.inference``: a model's own may bring more.
        GenerationConfig(
            do_sample=True, temperature=NOT_NEUTRAL, top_p=NOT_NEUTRAL, top_k=0, eos_token_id=-1
        ),
        ContinuousBatchingConfig(
            page_size=PAGE,
            num_blocks=blocks,  # by default more than half of the memory
            max_batch_tokens=max(PREFILL, slots),
            max_requests_per_batch=slots,
            safety_margin=0.0,  # there is room for all that the front lets in
            per_request_processors=True,
            auto_switch_to_flash=False,  # evaluation has not, and it may ask the hub for kernels
        ),
    )
    processors = manager.logit_processor.logits_processor
    temperature, top_p = processors
    processors[:] = [_Temperature(temperature), _TopP(top_p)]
    return manager


class _Temperature(ContinuousBatchingTemperatureLogitsWarper):
    """With 0 for greedy decoding, ties going to the first token as everywhere."""

    def __init__(self, replaced: ContinuousBatchingTemperatureLogitsWarper) -> None:
        self.temperature = replaced.temperature

    def __call__(self, scores: torch.Tensor, tensor_arg: torch.Tensor) -> torch.Tensor:
        """Scores of (requests, vocabulary), argument of (requests or more) float32 as int32."""
        temperatures = tensor_arg[: scores.size(0)].view(torch.float32)[:, None]
        is_greedy = temperatures == 0
        best = torch.full_like(scores, -torch.inf)
        best.scatter_(1, scores.argmax(-1, keepdim=True), 0.0)
        return torch.where(is_greedy, best, scores / torch.where(is_greedy, 1.0, temperatures))


class _TopP(ContinuousBatchingTopPLogitsWarper):
    """Sorts the vocabulary only where a request wants it."""

    def __init__(self, replaced: ContinuousBatchingTopPLogitsWarper) -> None:
        self.top_p, self.filter_value = replaced.top_p, replaced.filter_value
        self.min_tokens_to_keep = replaced.min_tokens_to_keep

    def __call__(self, scores: torch.Tensor, tensor_arg: torch.Tensor) -> torch.Tensor:
        """Scores of (requests, vocabulary), argument of (requests or more) float32 as int32."""
        if (tensor_arg[: scores.size(0)].view(torch.float32) >= 1).all():
            return scores
        return super().__call__(scores, tensor_arg)


class _Text:
    """The text of one answer as its tokens come, up to a stop string."""

    is_cut = False
    """Whether a stop string has come."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase, stop: tuple[str, ...]) -> None:
        self._tokenizer, self._stop = tokenizer, stop
        self._tokens: list[int] = []
        self._read, self._before = 0, 0
        self._shown, self._held = "", ""

    def add(self, tokens: list[int]) -> str:
        """What can be shown by now: no half character, no beginning of a stop string."""
        self._tokens += tokens
        self._held += self._new_text()
        cuts = [self._held.find(stop) for stop in self._stop if stop in self._held]
        if cuts:
            self.is_cut = True
            return self._show(min(cuts))
        begun = [
            length
            for stop in self._stop
            for length in range(1, min(len(stop), len(self._held) + 1))
            if self._held.endswith(stop[:length])
        ]
        return self._show(len(self._held) - max(begun, default=0))

    def rest(self) -> str:
        """What was held back, with half a character at the end as decoding the whole shows it."""
        whole = self._decoded(0, len(self._tokens))
        return whole.removeprefix(self._shown) if whole.startswith(self._shown) else self._held

    def _new_text(self) -> str:
        """Of the tokens not read yet; what they look like depends on those before them."""
        before = self._decoded(self._before, self._read)
        text = self._decoded(self._before, len(self._tokens))
        if len(text) <= len(before) or text.endswith(HALF_CHARACTER):
            return ""
        self._before, self._read = self._read, len(self._tokens)
        return text[len(before) :]

    def _decoded(self, begin: int, end: int) -> str:
        tokens = self._tokens[begin:end]
        return cast(str, self._tokenizer.decode(tokens, skip_special_tokens=True))

    def _show(self, length: int) -> str:
        shown, self._held = self._held[:length], self._held[length:]
        self._shown += shown
        return shown
