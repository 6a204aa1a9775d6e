"""From raw replies, or pairs at hand, to rows."""

from collections.abc import Mapping
from typing import Any

import pandas as pd

from llamaduo.parameters import SynthesisParameters
from llamaduo.schemas import ParsedPairs
from llamaduo.service_llm.text import is_text, read_json
from llamaduo.tuning import tuning_of

BEFORE_FIRST = {"iteration": 0, "asked_so_far": 0, "requests_so_far": 0, "walked_so_far": 0}
"""A synthesis report for the first iteration to go on from."""

OF_SEED = ["category", "system"]
"""A synthetic pair has no label of its own."""
OF_READY = ["licence", "source"]
OF_REPLY = ["request", "seed_id", "teacher", "model", "prompt_version"]


def pairs_to_ask(
    iteration: int, previous_verdict: dict[str, Any] | None, synthesis: SynthesisParameters
) -> int:
    """New pairs of an iteration; none where it tunes by preference."""
    if tuning_of(previous_verdict) == "preference":
        return 0
    return synthesis.new_pairs(iteration)


def parse_pairs(
    synthesis_replies: pd.DataFrame,
    screened_coverage: pd.DataFrame,
    ready_pairs: pd.DataFrame,
    previous_synthesis_report: dict[str, Any] | None,
    previous_verdict: dict[str, Any] | None,
    synthesis: SynthesisParameters,
) -> pd.DataFrame:
    """Read the pairs out of the replies, or take the next slice of the ready pairs.

    Returns:
        ``ParsedPairs``; a reply that cannot be read is a row that says why.
    """
    so_far = previous_synthesis_report or BEFORE_FIRST
    iteration = so_far["iteration"] + 1
    if len(ready_pairs):
        first = so_far["asked_so_far"]
        end = first + pairs_to_ask(iteration, previous_verdict, synthesis)
        rows = _ready_rows(ready_pairs.iloc[first:end])
    else:
        seeds = screened_coverage.set_index("id")
        rows = [
            {
                "origin": "synthetic",
                **dict.fromkeys(OF_READY, ""),
                **{name: reply[name] for name in OF_REPLY},
                **{name: seeds[name].at[reply["seed_id"]] for name in OF_SEED},
                "seed_prompt": seeds["prompt"].at[reply["seed_id"]],
                **pair,
            }
            for reply in synthesis_replies.to_dict("records")
            for pair in read_pairs(reply["text"], reply["failure"], reply["detail"])
        ]
    ids = [f"i{iteration:03d}-{number:05d}" for number in range(1, len(rows) + 1)]
    return pd.DataFrame(rows).assign(id=ids) if rows else ParsedPairs.empty()


def read_pairs(
    text: str | None, failure: str | None = None, detail: str = ""
) -> list[dict[str, str]]:
    """Read one reply.

    Returns:
        Rows of ``prompt``, ``response`` and ``unreadable`` (the reason, empty for a pair).
    """
    if failure is not None and not pd.isna(failure):
        return [_unreadable(f"request failed: {failure} {detail}".strip())]
    pairs = read_json(str(text), _pairs_of)
    if pairs is None:
        return [_unreadable("no list of pairs in the reply, or a broken one")]
    return [_readable(pair if isinstance(pair, dict) else {}) for pair in pairs]


def _ready_rows(ready_pairs: pd.DataFrame) -> list[dict[str, Any]]:
    return [
        {
            "origin": "ready",
            "request": 0,
            **dict.fromkeys(("teacher", "model", "prompt_version", "seed_prompt"), ""),
            "seed_id": row.get("id", ""),
            **{name: row.get(name, "") for name in (*OF_SEED, *OF_READY)},
            **_readable(row),
        }
        for row in ready_pairs.fillna("").to_dict("records")
    ]


def _pairs_of(value: dict[str, Any]) -> list[Any] | None:
    pairs = value.get("pairs")
    return pairs if isinstance(pairs, list) else None


def _readable(pair: Mapping[Any, Any]) -> dict[str, str]:
    if not (is_text(pair.get("prompt")) and is_text(pair.get("response"))):
        return _unreadable("prompt or response is missing or no text")
    return {"prompt": pair["prompt"], "response": pair["response"], "unreadable": ""}


def _unreadable(reason: str) -> dict[str, str]:
    return {"prompt": "", "response": "", "unreadable": reason}
