"""One personal detail in a text, and the text as the patterns read it."""

import re
from collections.abc import Iterable, Sequence
from typing import NamedTuple

TAKEN = "\0"
"""Stands where a detail was found."""
BREAK = "\n"
ESCAPE = re.compile(r'\\+(?:u([0-9a-fA-F]{4})|(["/bfnrt]))?')
"""Also of JSON inside JSON, whose backslashes are doubled."""
ESCAPED = {"t": "\t", '"': '"', "/": "/"}
UNREADABLE = re.compile(f"[{TAKEN}\ud800-\udfff]")
SPACES = re.compile("[\u00a0\u2000-\u200a\u202f]")
DASHES = re.compile("[\u2010-\u2015\u2212]")
CLOSE_LETTERS = re.compile("[\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af]")
"""Of Chinese, Japanese and Korean, which put no space around a word of another script."""


class Detail(NamedTuple):
    """One occurrence of a personal detail."""

    kind: str
    start: int
    end: int
    value: str
    """The same in all spellings; of a phone number the national significant number."""


class Readable(NamedTuple):
    """A text without JSON escapes and with plain white space and dashes.

    So a pattern sees the same in a text and in JSON that holds it.
    """

    text: str
    places: Sequence[int]
    """Where each character of ``text`` begins in the text as it was, and the end."""


def read(text: str) -> Readable:
    """Read a text, which may be JSON, or JSON inside JSON."""
    pieces: list[str] = []
    places: list[int] = []
    end = 0
    for escape in ESCAPE.finditer(text):
        pieces += text[end : escape.start()], _unescaped(escape)
        places += range(end, escape.start() + 1)
        end = escape.end()
    places += range(end, len(text) + 1)
    readable = UNREADABLE.sub(BREAK, "".join([*pieces, text[end:]]))
    return Readable(DASHES.sub("-", SPACES.sub(" ", readable)), places)


def take(text: str, details: Iterable[Detail]) -> str:
    """The text with ``TAKEN`` over the details."""
    characters = list(text)
    for each in details:
        characters[each.start : each.end] = TAKEN * (each.end - each.start)
    return "".join(characters)


def set_apart(text: str) -> str:
    """The text with a space for each letter of scripts that know none."""
    return CLOSE_LETTERS.sub(" ", text)


def _unescaped(escape: re.Match[str]) -> str:
    return chr(int(escape[1], 16)) if escape[1] else ESCAPED.get(escape[2], BREAK)
