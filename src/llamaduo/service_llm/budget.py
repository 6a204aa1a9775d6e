"""What requests cost, what a loop may spend, and what it has spent."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import NamedTuple

from pydantic import BaseModel, ConfigDict, Field, NonNegativeFloat, NonNegativeInt

TOKENS_PER_BYTE = 0.26
"""Of English prose and JSON, about; SmolLM2's tokenizer gives 0.27 to 0.29 on the demo's prompts,
and larger vocabularies less."""


def expected_tokens(text: str) -> int:
    """About how many tokens a text has, whatever the tokenizer."""
    return round(TOKENS_PER_BYTE * len(text.encode("utf-8", "replace"))) + 1


class Caps(BaseModel):
    """Hard limits of one loop over teacher and judge, retries and resumes; None is no limit."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    usd: NonNegativeFloat | None = None
    """US dollars; the price of each model must be known."""
    tokens: NonNegativeInt | None = None
    """Prompt and completion tokens together."""
    requests: NonNegativeInt | None = None
    """Each attempt counts."""


class Account(BaseModel):
    """Who pays: a loop, or one run of a part of it."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str = ""
    """In the journal; the loop's."""
    caps: Caps = Caps()
    """The most that it may spend."""


class Price(BaseModel):
    """US dollars per million tokens; cached input is counted at the full price."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    input: NonNegativeFloat
    """Of prompts."""
    output: NonNegativeFloat
    """Of answers."""

    def of(self, prompt_tokens: float, completion_tokens: float) -> float:
        """US dollars."""
        return (self.input * prompt_tokens + self.output * completion_tokens) / 1e6


class PriceList(BaseModel):
    """The table in ``conf``, with where and when its prices were read."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    date: str
    """When the prices were read."""
    source: str
    """Where they were read."""
    usd_per_million_tokens: dict[str, Price] = Field(default_factory=dict)
    """Model id: its price."""


class Cost(NamedTuple):
    """Of one request or many."""

    usd: float = 0.0
    """0 where the price is unknown, which a cap in money refuses beforehand."""
    tokens: float = 0.0
    requests: int = 0

    def __add__(self, other: Cost) -> Cost:  # type: ignore[override]
        """Both together, not one after the other as tuples are."""
        return Cost(
            self.usd + other.usd, self.tokens + other.tokens, self.requests + other.requests
        )

    def __sub__(self, other: Cost) -> Cost:
        """Without the other."""
        return Cost(
            self.usd - other.usd, self.tokens - other.tokens, self.requests - other.requests
        )


@dataclass(frozen=True)
class Estimate:
    """What requests will about cost, before the first is sent."""

    requests: int
    tokens: float
    usd: float | None
    """None: the price is unknown."""
    seconds: float


class Budget:
    """What an account may still spend while many requests are under way.

    Args:
        spent: By the account so far, as the journal has it.
    """

    def __init__(self, caps: Caps, spent: Cost) -> None:
        self.spent = spent
        self._caps = caps
        self._reserved = Cost()
        self._settled = asyncio.Event()

    async def reserve(self, most: Cost) -> str | None:
        """Set aside the most that a request can cost; waits while others may still cost less.

        Returns:
            None, or which cap does not allow it.
        """
        while exceeded := self._exceeded(most):
            if not self._reserved.requests:
                return exceeded
            self._settled.clear()
            await self._settled.wait()
        self._reserved = self._reserved + most
        return None

    def settle(self, most: Cost, cost: Cost) -> None:
        """Replace what was set aside by what the request cost."""
        self._reserved = self._reserved - most
        self.spent = self.spent + cost
        self._settled.set()

    def _exceeded(self, most: Cost) -> str | None:
        total = self.spent + self._reserved + most
        for name, form in (("usd", "${:.4f}"), ("tokens", "{:.0f} tokens"), ("requests", "{}")):
            cap = getattr(self._caps, name)
            if cap is not None and getattr(total, name) > cap:
                spent, needed = getattr(self.spent, name), getattr(most, name)
                figures = [form.format(value) for value in (spent, cap, needed)]
                return (
                    f"budget.{name}: {figures[0]} of {figures[1]} spent, "
                    f"the request may cost {figures[2]}"
                )
        return None


class Rates:
    """Tokens as this job sees them, beginning with what the journal teaches."""

    def __init__(self, tokens_per_byte: float, tokens_per_expected: float) -> None:
        # The first guess weighs as much as some answers do.
        self._bytes, self._prompt = 10_000.0, 10_000.0 * tokens_per_byte
        self._expected, self._completion = 1_000.0, 1_000.0 * tokens_per_expected

    def tokens(self, prompt_bytes: float, expected_tokens: float) -> tuple[float, float]:
        """Prompt and completion tokens to be expected."""
        return (
            prompt_bytes * self._prompt / self._bytes,
            expected_tokens * self._completion / self._expected,
        )

    def learn(self, prompt_bytes: int, expected_tokens: int, tokens: tuple[int, int]) -> None:
        """Take an answer into account."""
        self._bytes += prompt_bytes
        self._prompt += tokens[0]
        self._expected += expected_tokens
        self._completion += tokens[1]
