"""One personal detail in a text, and the rest of the text without it."""

import re
from collections.abc import Iterable
from typing import NamedTuple

TAKEN = "\0"
"""Stands where a detail was found."""
BREAK = "\n"
"""Stands for a JSON escape; of the details only a private key goes on behind it."""
ESCAPE = re.compile(r'\\+(?:u([0-9a-fA-F]{4})|["/bfnrt])?')
"""Also of JSON inside JSON, whose backslashes are doubled."""


class Detail(NamedTuple):
    """One occurrence of a personal detail."""

    kind: str
    start: int
    end: int
    value: str
    """The same in all spellings; of a phone number the national significant number."""


def take(text: str, details: Iterable[Detail]) -> str:
    """The text with ``TAKEN`` over the details."""
    for each in details:
        text = text[: each.start] + TAKEN * (each.end - each.start) + text[each.end :]
    return text


def without_escapes(text: str) -> str:
    """A text in its own length with its JSON escapes as breaks, but for letters: as letters."""
    return ESCAPE.sub(_unescaped, text) if "\\" in text else text


def _unescaped(escape: re.Match[str]) -> str:
    character = chr(int(escape[1], 16)) if escape[1] else ""
    return (character if character.isalpha() else BREAK) * len(escape[0])
