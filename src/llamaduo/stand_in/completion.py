"""The reply to a chat request, which is understood from the text of its messages alone."""

import hashlib
import json
import random
import re
from collections.abc import Iterator
from typing import Any

from llamaduo.stand_in.judge import judge, read_object
from llamaduo.stand_in.task import (
    CATEGORIES,
    FIELDS,
    INSTRUCTION,
    answer,
    as_response,
    make_ticket,
)

MODEL = "stand-in-triage"
FINGERPRINT = "embedded-stand-in"
REFUSAL = (
    "I am a stand-in for a service LLM and know only support-ticket triage, so I cannot do this."
)
# More do not fit into one reply of a service LLM either.
MAX_PAIRS = 100

# The unit of usage: a word, or a run of other marks. It is no real model's tokenizer.
_TOKEN = re.compile(r"\w+|[^\w\s]+")
_INSTRUCTING = ("system", "developer")
_COUNT = re.compile(r"\b(\d{1,6})\s+(?:[a-z-]+\s+){0,3}(?:examples?|pairs?|tickets?)\b", re.I)


def complete(body: dict[str, Any]) -> dict[str, Any]:
    """The ``chat.completion`` object for a valid request.

    It depends on nothing but the request: no state, no clock, one seed from model and messages.
    """
    digest = _digest(body)
    texts = [text_of(message.get("content")) for message in body["messages"]]
    reply = _reply(body["messages"], random.Random(int(digest, 16)))
    limit = body.get("max_completion_tokens") or body.get("max_tokens")
    content, finish_reason = _cut(reply or REFUSAL, limit)
    refusal = None if reply else content
    message = {"role": "assistant", "content": content, "refusal": refusal}
    choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": finish_reason}
    return {
        "id": f"chatcmpl-{digest[:24]}",
        "object": "chat.completion",
        "created": 0,
        "model": MODEL,
        "system_fingerprint": FINGERPRINT,
        "choices": [choice],
        "usage": _usage(sum(map(_count_tokens, texts)), _count_tokens(content)),
    }


def text_of(content: str | list[dict[str, str]] | None) -> str:
    """The text of a message, whose content is a string or a list of text parts."""
    if isinstance(content, list):
        return "\n".join(part["text"] for part in content)
    return content or ""


def _digest(body: dict[str, Any]) -> str:
    asked = {"model": body["model"], "messages": body["messages"]}
    canonical = json.dumps(asked, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()


def _reply(messages: list[dict[str, Any]], rng: random.Random) -> str | None:
    """The answer to the last user message, or None where it is not about triage."""
    request = next((text_of(m["content"]) for m in reversed(messages) if m["role"] == "user"), "")
    ticket = _ticket_in(request)
    if ticket:
        return as_response(answer(ticket))
    for data, start, end in _objects_in(request):
        if isinstance(data.get("candidate"), str) and _ticket_in(str(data.get("prompt"))):
            reference = as_response(answer(_ticket_in(data["prompt"])))
            case = {"reference": reference, "response": data["candidate"]}
            return json.dumps({"score": judge(case)["precision"]})
        if not _is_triage(data):
            continue
        if data.keys() == {"prompt", "response"}:
            system = [text_of(m["content"]) for m in messages if m["role"] in _INSTRUCTING]
            return _new_pairs(" ".join([*system, request[:start], request[end:]]), data, rng)
        if data.keys() == {"prompt", "reference", "response"} and _has_labels(data["reference"]):
            return json.dumps(judge(data))
    return None


def _new_pairs(instructions: str, seed: dict[str, Any], rng: random.Random) -> str:
    """Half of the tickets are of the seed's category, the others go round all categories."""
    asked = _COUNT.search(instructions)
    count = min(int(asked[1]), MAX_PAIRS) if asked else 1
    first = rng.randrange(len(CATEGORIES))
    of_seed = (read_object(seed["response"]) or {}).get("category")
    like_seed = count // 2 if of_seed in CATEGORIES else 0
    around = [CATEGORIES[(first + i) % len(CATEGORIES)] for i in range(count - like_seed)]
    categories = [*around, *[of_seed] * like_seed]
    return json.dumps({"pairs": [make_ticket(rng, category).pair() for category in categories]})


def _objects_in(text: str) -> Iterator[tuple[dict[str, Any], int, int]]:
    """Every outermost JSON object in the text, with its start and end."""
    decoder = json.JSONDecoder()
    start = text.find("{")
    while start >= 0:
        try:
            data, end = decoder.raw_decode(text, start)
        except (ValueError, RecursionError):  # a brace that opens no JSON object
            end = start + 1
        else:
            yield data, start, end
        start = text.find("{", end)


def _ticket_in(prompt: str) -> str:
    """The ticket of a triage prompt; empty for any other prompt."""
    first, _, ticket = prompt.partition("\n")
    return ticket.strip() if first.strip() == INSTRUCTION else ""


def _is_triage(data: dict[str, Any]) -> bool:
    return all(isinstance(text, str) for text in data.values()) and bool(
        _ticket_in(data.get("prompt", ""))
    )


def _has_labels(reference: str) -> bool:
    return (read_object(reference) or {}).keys() == set(FIELDS)


def _count_tokens(text: str) -> int:
    return len(_TOKEN.findall(text))


def _cut(content: str, limit: int | None) -> tuple[str, str]:
    """The content within the limit (in tokens), and the finish reason."""
    ends = [token.end() for token in _TOKEN.finditer(content)]
    if limit is None or len(ends) <= limit:
        return content, "stop"
    return content[: ends[limit - 1]], "length"


def _usage(prompt_tokens: int, completion_tokens: int) -> dict[str, int]:
    return {
        "prompt_tokens": prompt_tokens,
        "completion_tokens": completion_tokens,
        "total_tokens": prompt_tokens + completion_tokens,
    }
