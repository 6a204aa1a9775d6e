"""From seeds to the raw replies of a service LLM."""

import hashlib
import json
from collections.abc import Hashable
from typing import Any

import pandas as pd

from llamaduo.parameters import IterationParameters, SynthesisParameters
from llamaduo.pipelines.data_synthesis.reading import read_pairs
from llamaduo.schemas import SynthesisReplies
from llamaduo.service_llm.answers import Reply, reply_columns
from llamaduo.service_llm.budget import expected_tokens
from llamaduo.service_llm.client import ASKING, Request, ServiceLLM
from llamaduo.service_llm.text import fill

PAIRS_SCHEMA = {
    "name": "pairs",
    "strict": True,
    "schema": {
        "type": "object",
        "properties": {
            "pairs": {
                "type": "array",
                "items": {
                    "type": "object",
                    "properties": {"prompt": {"type": "string"}, "response": {"type": "string"}},
                    "required": ["prompt", "response"],
                    "additionalProperties": False,
                },
            }
        },
        "required": ["pairs"],
        "additionalProperties": False,
    },
}


def ask_service_llm(
    seeds: pd.DataFrame,
    synthesis_prompts: dict[str, str],
    service_llm: ServiceLLM,
    synthesis: SynthesisParameters,
    iteration: IterationParameters,
) -> pd.DataFrame:
    """Ask for new pairs, one request per seed, and once more for what an answer lacks.

    Returns:
        ``SynthesisReplies``, one row per request, raw.

    Raises:
        ServiceLLMError: Every request failed.
    """
    if seeds.empty:
        return SynthesisReplies.empty()

    def ask(rows: pd.DataFrame, attempt: int, what: str) -> list[Reply]:
        requests = [
            Request(
                messages=[{"role": "user", "content": _request_text(synthesis_prompts, seed)}],
                max_tokens=synthesis.max_tokens,
                expected_tokens=seed["pairs"] * expected_tokens(_shown(seed)),
                temperature=synthesis.temperature,
                response_schema=PAIRS_SCHEMA,
                repeat=attempt,
            )
            for seed in rows.to_dict("records")
        ]
        return service_llm.complete_all(requests, what, iteration.account)

    replies = ask(seeds, 1, ASKING)
    # What failed is not asked again here: the client has tried as often as that can help.
    missing = [
        seed_pairs - _pairs_in(reply) if reply.failure is None else 0
        for seed_pairs, reply in zip(seeds["pairs"], replies, strict=True)
    ]
    short = seeds.assign(pairs=missing).query("pairs > 0")
    if len(short):
        replies += ask(short, 2, "asking for missing pairs")
    asked = pd.concat([seeds, short], ignore_index=True)
    return asked[["request", "strategy", "seed_id"]].assign(
        attempt=[1] * len(seeds) + [2] * len(short),
        prompt_version=[_version(name, synthesis_prompts[name]) for name in asked["strategy"]],
        teacher=service_llm.model,
        **reply_columns(replies),
    )


def _pairs_in(reply: Reply) -> int:
    return sum(not pair["unreadable"] for pair in read_pairs(reply.text, reply.failure))


def _version(strategy: str, prompt_text: str) -> str:
    return f"{strategy}-{hashlib.sha256(prompt_text.encode()).hexdigest()[:8]}"


def _request_text(synthesis_prompts: dict[str, str], seed: dict[Hashable, Any]) -> str:
    values = {
        "seed": _shown(seed),
        "pairs": str(seed["pairs"]),
        "request": str(seed["request"]),
    }
    return fill(synthesis_prompts[seed["strategy"]], values)


def _shown(seed: dict[Hashable, Any]) -> str:
    """The pair as JSON; an empty system message is none."""
    pair = {name: seed[name] for name in ("system", "prompt", "response") if seed[name]}
    return json.dumps(pair, ensure_ascii=False)
