"""From seeds to the raw replies of a service LLM."""

import hashlib
import json
from collections.abc import Hashable, Mapping
from typing import Any

import numpy as np
import pandas as pd

from llamaduo.errors import InputError
from llamaduo.parameters import IterationParameters, SynthesisParameters
from llamaduo.pipelines.data_synthesis.reading import BEFORE_FIRST, read_pairs
from llamaduo.schemas import Seeds, SynthesisReplies
from llamaduo.service_llm.answers import Reply, reply_columns
from llamaduo.service_llm.budget import expected_tokens
from llamaduo.service_llm.client import Request, ServiceLLM
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


def choose_seeds(
    screened_coverage: pd.DataFrame,
    ready_pairs: pd.DataFrame,
    synthesis_prompts: dict[str, str],
    previous_synthesis_report: dict[str, Any] | None,
    synthesis: SynthesisParameters,
) -> pd.DataFrame:
    """Choose the coverage-train pairs that this iteration shows to the service LLM.

    Requests walk through one stratified order of the coverage set, from where the iteration before
    stopped: every pair is shown before any is shown again.

    Returns:
        ``Seeds``; empty in the first iteration and where ready pairs stand in.

    Raises:
        InputError: A strategy has no prompt text.
    """
    if unknown := synthesis.strategies.keys() - synthesis_prompts.keys():
        raise InputError(
            f"data_synthesis.strategies names {', '.join(sorted(unknown))}, but there is no prompt "
            f"text of that name; there are {', '.join(sorted(synthesis_prompts))}"
        )
    so_far = previous_synthesis_report or BEFORE_FIRST
    done, new_pairs = so_far["requests_so_far"], synthesis.new_pairs(so_far["iteration"] + 1)
    count = -(-new_pairs // synthesis.pairs_per_request)
    if len(ready_pairs) or not count:
        return Seeds.empty()
    usable = screened_coverage[screened_coverage["dropped"] == ""]
    order = _stratified_order(usable["category"], synthesis.seed)
    chosen = usable.iloc[order[np.arange(done, done + count) % len(order)]]
    pairs = np.full(count, synthesis.pairs_per_request)
    pairs[-1] = new_pairs - pairs[:-1].sum()
    return pd.DataFrame(
        {
            "request": np.arange(done, done + count) + 1,
            "strategy": mix(synthesis.strategies, done + count)[done:],
            "seed_id": chosen["id"].to_numpy(),
            "system": chosen["system"].to_numpy(),
            "prompt": chosen["prompt"].to_numpy(),
            "response": chosen["response"].to_numpy(),
            "pairs": pairs,
        }
    )


def mix(shares: Mapping[str, float], count: int) -> list[str]:
    """So many names, such that each has about its share in every stretch from the first on."""
    total, taken = sum(shares.values()), dict.fromkeys(shares, 0)
    names = []
    for number in range(1, count + 1):
        due = max(shares, key=lambda name: shares[name] / total * number - taken[name])
        taken[due] += 1
        names.append(due)
    return names


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

    replies = ask(seeds, 1, "asking for pairs")
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


def _stratified_order(categories: pd.Series, seed: int) -> np.ndarray:
    """Row positions, shuffled, such that every stretch holds the categories about evenly."""
    shuffled = np.random.default_rng(seed).permutation(len(categories))
    turn = categories.iloc[shuffled].groupby(categories.iloc[shuffled]).cumcount()
    return shuffled[np.argsort(turn.to_numpy(), kind="stable")]


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
