"""Responses of a GGUF file, drawn by llama.cpp."""

from __future__ import annotations

import asyncio
import hashlib
import json
import logging
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llamaduo.interruption import run_async
from llamaduo.local_llm.base_model import (
    BaseModelSpec,
    load_generation_config,
    load_tokenizer,
    stop_token_ids,
)
from llamaduo.local_llm.chat import Message, encode_prompt
from llamaduo.local_llm.engines import InferenceError
from llamaduo.local_llm.inference import DecodingSettings, Response, Timed
from llamaduo.local_llm.llama_server import NEUTRAL, LlamaServer, llama_server
from llamaduo.local_llm.release import ReleaseError
from llamaduo.progress import ProgressDisplay

if TYPE_CHECKING:
    from openai import AsyncOpenAI
    from openai.types import Completion
    from transformers import PreTrainedTokenizerBase

logger = logging.getLogger(__name__)

MOST_SLOTS = 64
"""Each takes memory for a whole context at once; llama.cpp knows 256."""
GREETING = [{"role": "user", "content": "Hello."}]
SHORT = 2
"""Tokens of a response that is to end at once."""
FORCE = 1000
"""Added to the logit of a token that is to come."""


def respond(
    model: Path, prompts: list[list[int]], samples: int, decoding: DecodingSettings
) -> Timed:
    """Draw ``samples`` responses to each prompt, as ``inference.respond_timed`` does.

    Args:
        model: A GGUF file.
        prompts: Tokens, each encoded by the model's own tokenizer.

    Raises:
        InferenceError: The file cannot be loaded.
    """
    context = max(len(prompt) for prompt in prompts) + decoding.max_new_tokens
    slots = min(decoding.batch_size, len(prompts) * samples, MOST_SLOTS)
    with llama_server(model, slots, context) as server:
        began = time.perf_counter()
        drawn = run_async(_draw_all(server, prompts, samples, decoding))
        seconds = time.perf_counter() - began
    by_prompt = [drawn[i * samples : (i + 1) * samples] for i in range(len(prompts))]
    return Timed(by_prompt, seconds)


async def _draw_all(
    server: LlamaServer, prompts: list[list[int]], samples: int, decoding: DecodingSettings
) -> list[Response]:
    total = len(prompts) * samples
    with ProgressDisplay("responses", quiet=total <= decoding.batch_size) as display:
        done = 0

        async def draw(prompt: list[int], sample: int) -> Response:
            nonlocal done
            response = await _draw(client, prompt, sample, decoding)
            done += 1
            display.show(done, total)
            return response

        async with client_of(server) as client, asyncio.TaskGroup() as group:
            tasks = [
                group.create_task(draw(prompt, sample))
                for prompt in prompts
                for sample in range(1, samples + 1)
            ]
    return [task.result() for task in tasks]


async def _draw(
    client: AsyncOpenAI, prompt: list[int], sample: int, decoding: DecodingSettings
) -> Response:
    completion = await complete(client, prompt, sample, decoding)
    finished = completion.choices[0].finish_reason == "stop"
    assert completion.usage is not None  # noqa: S101  (llama.cpp always counts)
    tokens = completion.usage.completion_tokens - finished  # without the one that ended it
    return Response(completion.choices[0].text, tokens, finished)


def client_of(server: LlamaServer) -> AsyncOpenAI:
    """A client that waits as long as it takes."""
    from openai import AsyncOpenAI

    return AsyncOpenAI(
        base_url=server.base_url, api_key=server.api_key, max_retries=0, timeout=None
    )


async def complete(
    client: AsyncOpenAI,
    prompt: list[int],
    sample: int,
    decoding: DecodingSettings,
    **extra: Any,
) -> Completion:
    """One completion of tokens; its seed depends on the prompt, so that luck is not shared."""
    drawn = json.dumps([decoding.seed, sample, prompt]).encode()
    return await client.completions.create(
        model="",
        prompt=prompt,
        max_tokens=decoding.max_new_tokens,
        temperature=decoding.temperature,
        top_p=decoding.top_p,
        seed=int.from_bytes(hashlib.sha256(drawn).digest()[:4]),
        # With the cache an answer could depend on the one before it.
        extra_body={**NEUTRAL, "cache_prompt": False, **extra},
    )


def check_inside(model: Path, of: Path, conversations: list[list[Message]]) -> None:
    """Ask a GGUF file whether the template and the stop tokens of a model folder are inside.

    Applications send messages, of which llama.cpp and Ollama make the prompt by what is inside.

    Args:
        of: The folder of which it is the GGUF.

    A stop token that llama.cpp does not know is warned of.

    Raises:
        ReleaseError: The file cannot be loaded, or makes other prompts.
    """
    from openai import OpenAIError

    spec = BaseModelSpec(str(of))
    tokenizer = load_tokenizer(spec)
    greeting = encode_prompt(tokenizer, GREETING)
    stops = stop_token_ids(load_generation_config(spec), tokenizer)
    try:
        with llama_server(model, 1, len(greeting) + SHORT) as server:
            run_async(_require_prompts(server, tokenizer, [GREETING, *conversations]))
            ends = run_async(_ends(server, greeting, stops))
    except (InferenceError, OpenAIError, ReleaseError) as error:
        raise ReleaseError(
            f"{model.name} is not the model it was made of: {error}; leave it out of "
            "deployment.quantizations to release the model without it"
        ) from error
    if unknown := [stop for stop, ended in ends.items() if not ended]:
        logger.warning(
            "%s does not end at %s by itself: kedro serve and the Modelfile see to it, other "
            "programs have to be given it as a stop string",
            model.name,
            ", ".join(tokenizer.convert_ids_to_tokens(unknown)),
        )


async def _require_prompts(
    server: LlamaServer,
    tokenizer: PreTrainedTokenizerBase,
    conversations: list[list[Message]],
) -> None:
    start = str(tokenizer.bos_token or "")  # llama.cpp adds it where it makes tokens
    async with client_of(server) as client:
        own = client.with_options(base_url=server.address)
        for messages in conversations:
            body: dict[str, Any] = {"messages": messages}
            made: Any = await own.post("/apply-template", cast_to=object, body=body)
            text = tokenizer.apply_chat_template(
                messages, tokenize=False, add_generation_prompt=True
            )
            if made["prompt"].removeprefix(start) != str(text).removeprefix(start):
                raise ReleaseError("its chat template makes other prompts")
            if messages is GREETING:
                body = {"content": made["prompt"], "add_special": True, "parse_special": True}
                found: Any = await own.post("/tokenize", cast_to=object, body=body)
                if found["tokens"] != encode_prompt(tokenizer, GREETING):
                    raise ReleaseError("its tokenizer makes other tokens")


async def _ends(server: LlamaServer, prompt: list[int], stops: list[int]) -> dict[int, bool]:
    """Whether each of the tokens, where it comes, ends a response."""
    greedy = DecodingSettings(0.0, 1.0, max_new_tokens=SHORT, batch_size=1, seed=0)
    async with client_of(server) as client:
        forced = {
            stop: await complete(client, prompt, 1, greedy, logit_bias=[[stop, FORCE]])
            for stop in stops
        }
    return {stop: made.choices[0].finish_reason == "stop" for stop, made in forced.items()}
