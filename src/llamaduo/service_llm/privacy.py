"""The gate that every request to a service LLM passes: personal details become surrogates."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from random import Random
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from pydantic import BaseModel, ConfigDict, model_validator

from llamaduo.service_llm.details import BREAK, Detail, without_escapes
from llamaduo.service_llm.names import find_names
from llamaduo.service_llm.personal_details import find_details
from llamaduo.service_llm.surrogates import make_surrogate, write_like

if TYPE_CHECKING:
    import pandas as pd

MOST_DRAWS = 1000
"""Ranges are finite: the 762 IPv4 addresses of RFC 5737 can all be in use."""


class PrivacySettings(BaseModel):
    """What is replaced; ``off``, ``patterns`` or ``presidio`` alone stand for ``detect``."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    detect: Literal["patterns", "presidio", "off"] = "patterns"
    """``patterns``: e-mail addresses, phone and card numbers, IBANs, IP addresses, keys, tokens and
    URLs with credentials; ``presidio``: also names and places."""
    regions: tuple[str, ...] = ("US", "GB", "DE", "FR")
    """ISO 3166 codes of the countries whose phone numbers are known without a country code."""
    model: str = "en_core_web_sm"
    """The spaCy model that finds names and places: an installed package, or a folder."""
    language: str = "en"
    """ISO 639 code of that model's language."""

    @model_validator(mode="before")
    @classmethod
    def bare_word(cls, value: Any) -> Any:
        """YAML reads a bare ``off`` as False."""
        settings = value if isinstance(value, dict) else {"detect": value}
        return {**settings, "detect": "off"} if settings.get("detect") is False else settings


class Protected(NamedTuple):
    """Texts without personal details."""

    texts: list[str]
    replaced: list[str]
    """The kind of each detail that was replaced."""


@dataclass(frozen=True)
class PrivacyGate:
    """Replaces personal details by surrogates.

    Surrogates have the form of what they replace and come from ranges that belong to nobody, so
    that they are known again: protecting twice changes nothing. They are drawn by a digest of the
    texts with every detail left out, so that equal requests stay equal, and nobody who sees one can
    test a guess of the value against it.
    """

    settings: PrivacySettings = field(default_factory=PrivacySettings)

    def protect(self, texts: Sequence[str]) -> Protected:
        """Replace the details of texts that belong together, such as those of one request.

        The same value gets the same surrogate in all of them, however it is written.
        """
        found = [self._find(text) for text in texts]
        details = [each for own in found for each in own]
        if not details:
            return Protected(list(texts), [])
        surrogates = _draw(texts, found)
        protected = [
            _replaced(text, own, surrogates) for text, own in zip(texts, found, strict=True)
        ]
        return Protected(protected, [each.kind for each in details])

    def protect_rows(self, table: pd.DataFrame, columns: list[str]) -> pd.DataFrame:
        """Protect some columns of a table, each row on its own.

        Returns:
            The table, with the column ``replaced``: the kind of each detail that was replaced.
        """
        rows = [self.protect(row) for row in zip(*(table[name] for name in columns), strict=True)]
        protected: dict[str, Any] = {
            name: [row.texts[place] for row in rows] for place, name in enumerate(columns)
        }
        protected["replaced"] = [row.replaced for row in rows]
        return table.assign(**protected)

    def _find(self, text: str) -> list[Detail]:
        if self.settings.detect == "off":
            return []
        details, rest = find_details(text, self.settings.regions)
        if self.settings.detect == "presidio":
            names = find_names(rest, self.settings.model, self.settings.language)
            return sorted([*details, *names], key=lambda each: each.start)
        return details


def quote(value: object, most: int) -> str:
    """The first characters of a value, as a message to a person may show them."""
    return PrivacyGate().protect([repr(value)]).texts[0][:most]


def _draw(texts: Sequence[str], found: list[list[Detail]]) -> dict[tuple[str, str], str]:
    """A surrogate for each kind and value, in the order in which they first appear."""
    masked = [_masked(text, own) for text, own in zip(texts, found, strict=True)]
    digest = hashlib.sha256("\0".join(masked).encode("utf-8", "replace")).hexdigest()
    surrogates: dict[tuple[str, str], str] = {}
    values = dict.fromkeys((each.kind, each.value) for own in found for each in own)
    for number, (kind, value) in enumerate(values):
        rng = Random(f"{digest}/{number}")
        for _ in range(MOST_DRAWS):
            surrogate = make_surrogate(kind, value, rng)
            if surrogate not in surrogates.values():
                break
        surrogates[kind, value] = surrogate
    return surrogates


def _masked(text: str, details: list[Detail]) -> str:
    """A text with the kind of each detail in its place."""
    for each in reversed(details):
        text = f"{text[: each.start]}<{each.kind}>{text[each.end :]}"
    return text


def _replaced(text: str, details: list[Detail], surrogates: dict[tuple[str, str], str]) -> str:
    readable = without_escapes(text)
    for each in reversed(details):
        old = readable[each.start : each.end]
        new = write_like(each.kind, surrogates[each.kind, each.value], old)
        if BREAK in old:  # of a private key, whose lines end with JSON's \n
            kept = zip(new, old, text[each.start : each.end], strict=True)
            new = "".join(own if sign == BREAK else character for character, sign, own in kept)
        text = text[: each.start] + new + text[each.end :]
    return text
