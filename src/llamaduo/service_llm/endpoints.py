"""What an endpoint is spared, and what the models of each family accept beside messages."""

import re
from typing import Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
)


class Limits(BaseModel):
    """What an endpoint is spared."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    concurrency: PositiveInt = 16
    """The most requests under way at once."""
    timeout_s: PositiveFloat = 120.0
    """Wall-clock seconds of one attempt."""
    deadline_s: PositiveFloat = 600.0
    """Seconds of one request from its first attempt on, with all that follow and their waits."""
    attempts: PositiveInt = 8
    """The most tries of one request; those that meet a rate limit do not count."""
    requests_per_minute: PositiveFloat | None = None
    tokens_per_minute: PositiveFloat | None = None


class Accepts(BaseModel):
    """What a model takes; a catalog entry may say it under ``accepts``."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    token_limit: Literal["max_tokens", "max_completion_tokens"] = "max_tokens"
    """The parameter that limits the answer."""
    temperature: bool = True
    json_schema: bool = False
    """``response_format`` with a JSON schema; without it the prompt alone asks for JSON."""
    reasoning_tokens: NonNegativeInt = 0
    """Added to the limit, for a model that thinks within it before it answers."""


_REASONING = Accepts(
    token_limit="max_completion_tokens", temperature=False, json_schema=True, reasoning_tokens=4096
)
_WITH_SCHEMA = Accepts(json_schema=True)

# The first pattern that matches the whole model id counts. OpenAI: API reference, chat
# completions; Gemini and Claude: their pages on OpenAI compatibility (Claude's ignores
# response_format).
FAMILIES = [
    (r"(gpt-5|o[134])(-.*|\..*)?", _REASONING),
    (r"(gpt-4o|gpt-4\.1|gpt-4\.5|chatgpt-4o)(-.*)?", _WITH_SCHEMA),
    (r"(models/)?gemini-(2\.5|3).*", Accepts(json_schema=True, reasoning_tokens=4096)),
    (r"(models/)?gemini-.*", _WITH_SCHEMA),
    (r"stand-in-.*", _WITH_SCHEMA),
]


def accepted_by(model: str) -> Accepts:
    """What a model takes; an unknown one gets the plain form, which most servers understand."""
    for pattern, accepts in FAMILIES:
        if re.fullmatch(pattern, model):
            return accepts
    return Accepts()
