"""The gate that every request to a service LLM passes: personal details become surrogates."""

from __future__ import annotations

import hashlib
import logging
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from random import Random
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, get_args

from pydantic import BaseModel, ConfigDict, field_validator, model_validator

from llamaduo.service_llm.details import Detail, Readable, read, take
from llamaduo.service_llm.names import find_names
from llamaduo.service_llm.personal_details import find_details
from llamaduo.service_llm.repetitions import find_again
from llamaduo.service_llm.surrogates import KINDS

if TYPE_CHECKING:
    import pandas as pd

logger = logging.getLogger(__name__)

MOST_DRAWS = 200
"""Ranges are finite: the 96 names can all be in use."""
MOST_ROUNDS = 4
"""What stands in the place of a detail may give away another beside it."""
ADDRESS = re.compile(r"(https?://(?:\d+(?:\.\d+){3}|\[[\da-f:.]+\])(?![\w@.]|:\D))")
"""Of an endpoint, by its number."""
ALIKE = {"token": "key", "url": "key", "place": "name"}
"""Kinds between which the words around a value decide."""
Detect = Literal["off", "patterns", "presidio"]
STRICTNESS: tuple[Detect, ...] = get_args(Detect)
"""Each replaces all that the one before it does."""


class PrivacySettings(BaseModel):
    """What is replaced; ``off``, ``patterns`` or ``presidio`` alone stand for ``detect``."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    detect: Detect = "patterns"
    """``patterns``: e-mail addresses, phone and card numbers, IBANs, IP addresses, social security
    numbers, keys, tokens and URLs with credentials; ``presidio``: also names and places."""
    regions: tuple[str, ...] = ("US", "GB", "DE", "FR")
    """ISO 3166 codes of the countries whose phone numbers are known without a country code."""
    model: str = "en_core_web_sm"
    """The spaCy model that finds names and places: an installed package, or a folder."""

    @model_validator(mode="before")
    @classmethod
    def bare_word(cls, value: Any) -> Any:
        """YAML reads a bare ``off`` as False."""
        settings = value if isinstance(value, dict) else {"detect": value}
        return {**settings, "detect": "off"} if settings.get("detect") is False else settings

    @field_validator("regions")
    @classmethod
    def have_phone_numbers(cls, regions: tuple[str, ...]) -> tuple[str, ...]:
        """An unknown code would leave the numbers of its country as they are."""
        from phonenumbers import SUPPORTED_REGIONS

        if unknown := [region for region in regions if region not in SUPPORTED_REGIONS]:
            raise ValueError(
                f"{', '.join(unknown)}: no known region, expected ISO 3166 codes in capitals, "
                "such as GB"
            )
        return regions


class Protected(NamedTuple):
    """Texts without personal details."""

    texts: list[str]
    replaced: list[str]
    """The kind of each detail that was replaced."""


@dataclass(frozen=True)
class PrivacyGate:
    """Replaces personal details by surrogates.

    Surrogates have the form of what they replace and come from ranges that belong to nobody, so
    that the gate takes none for a detail. They are drawn by a digest of the texts with every detail
    left out, so that equal requests stay equal, and nobody who sees one can test a guess of the
    value against it. What is found depends on the texts that are protected together.
    """

    settings: PrivacySettings = field(default_factory=PrivacySettings)

    def protect(self, texts: Sequence[str]) -> Protected:
        """Replace the details of texts that belong together, such as those of one request.

        The same value gets the same surrogate in all of them, however it is written.
        """
        protected = Protected(list(texts), [])
        for _ in range(MOST_ROUNDS):
            now, replaced = self._protect_once(protected.texts)
            if not replaced:
                break
            protected = Protected(now, protected.replaced + replaced)
        else:
            logger.error(
                "the privacy gate still found %s after %d rounds: personal details may be left, so "
                "please report the form of this text",
                ", ".join(sorted(set(replaced))),
                MOST_ROUNDS,
            )
        return protected

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

    def _protect_once(self, texts: list[str]) -> Protected:
        if self.settings.detect == "off":
            return Protected(texts, [])
        readable = [read(text) for text in texts]
        found = self._find([each.text for each in readable])
        surrogates = _draw(readable, found)
        protected = [
            _replaced(text, own, details, surrogates)
            for text, own, details in zip(texts, readable, found, strict=True)
        ]
        return Protected(protected, [each.kind for own in found for each in own])

    def _find(self, texts: list[str]) -> list[list[Detail]]:
        """The details of each text by their place; what is one in one of them is one in all."""
        found, rests = [], []
        for text in texts:
            details, rest = find_details(text, self.settings.regions)
            if self.settings.detect == "presidio":
                names = find_names(rest, self.settings.model)
                details, rest = [*details, *names], take(rest, names)
            found.append(details)
            rests.append(rest)
        every = [each for details in found for each in details]
        if every:
            again = (find_again(every, rest) for rest in rests)
            found = [[*details, *more] for details, more in zip(found, again, strict=True)]
        return [sorted(details, key=lambda each: each.start) for details in found]


def quote(value: object, most: int) -> str:
    """The first characters of a value as Python spells it, as a message to a person may show them.

    Bytes are read as UTF-8. Names, and numbers of other regions than the default ones, stay.
    """
    protect = PrivacyGate().protect
    text = value.decode("utf-8", "replace") if isinstance(value, bytes) else value
    if isinstance(text, str):
        return repr(protect([text]).texts[0])[:most]
    return protect([repr(text)]).texts[0][:most]


def strictest(gates: Iterable[PrivacyGate]) -> PrivacyGate:
    """The gate that replaces the most kinds, the first of equals."""
    return max(gates, key=lambda gate: STRICTNESS.index(gate.settings.detect))


def protect_message(message: str) -> str:
    """A message to a person without personal details; addresses of endpoints stay, to be found.

    Names, and numbers of other regions than the default ones, stay too.
    """
    pieces = ADDRESS.split(message)
    pieces[::2] = PrivacyGate().protect(pieces[::2]).texts
    return "".join(pieces)


def _draw(readable: list[Readable], found: list[list[Detail]]) -> dict[tuple[str, str], str]:
    """A surrogate for each value, in the order in which they first appear."""
    masked = [_masked(each.text, own) for each, own in zip(readable, found, strict=True)]
    digest = hashlib.sha256("\0".join(masked).encode("utf-8", "replace")).hexdigest()
    surrogates: dict[tuple[str, str], str] = {}
    taken: set[str] = set()
    for each in (each for own in found for each in own):
        if _key(each) in surrogates:
            continue
        rng = Random(f"{digest}/{len(surrogates)}")
        for _ in range(MOST_DRAWS):
            surrogate = KINDS[each.kind].make(each.value, rng)
            if surrogate not in taken:
                break
        taken.add(surrogate)
        surrogates[_key(each)] = surrogate
    return surrogates


def _key(detail: Detail) -> tuple[str, str]:
    """Equal for what must have one surrogate."""
    return ALIKE.get(detail.kind, detail.kind), detail.value


def _masked(text: str, details: list[Detail]) -> str:
    """A text with the kind of each detail in its place."""
    pieces: list[str] = []
    end = 0
    for each in details:
        pieces += text[end : each.start], f"<{each.kind}>"
        end = each.end
    return "".join([*pieces, text[end:]])


def _replaced(
    text: str, readable: Readable, details: list[Detail], surrogates: dict[tuple[str, str], str]
) -> str:
    pieces: list[str] = []
    end = 0
    for each in details:
        old = readable.text[each.start : each.end]
        new = KINDS[each.kind].write(surrogates[_key(each)], old)
        places = readable.places[each.start : each.end + 1]
        pieces += text[end : places[0]], _spelled(new, old, text, places)
        end = places[-1]
    return "".join([*pieces, text[end:]])


def _spelled(new: str, old: str, text: str, places: Sequence[int]) -> str:
    """What stays as it was, such as the line breaks of a key in JSON, is spelled as it was."""
    kept = [
        text[begin:end] if own == character else character
        for character, own, (begin, end) in zip(new, old, pairwise(places), strict=False)
    ]
    return "".join(kept) + new[len(old) :]
