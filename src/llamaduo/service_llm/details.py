"""One personal detail in a text, and the text as the patterns read it."""

import html
import re
from collections.abc import Iterable, Sequence
from typing import NamedTuple
from unicodedata import decimal

TAKEN = "\0"
"""Stands where a detail was found."""
BREAK = "\n"
ESCAPE = re.compile(
    r"""(?:\\\\)+(?=\\uHHHH)                    # backslashes of the text itself, before an escape
    |\\+u([dD][89abAB]HH)\\+u([dD][c-fC-F]HH)
    |\\+(?:u(HHHH)|x(HH)|(["/bfnrt]))?
    |&(?:\#\d{1,7}|\#[xX]H{1,6}|commat|period|nbsp|amp|quot|apos|lt|gt);""".replace(
        "H", "[0-9a-fA-F]"
    ),
    re.VERBOSE,
)
"""Of JSON, also inside JSON, whose backslashes are doubled; of Python's ``repr`` and of HTML."""
ESCAPED = {"t": "\t", '"': '"', "/": "/"}
UNREADABLE = re.compile(f"[{TAKEN}\ud800-\udfff]")
PLAIN = {
    **{code: chr(code - 0xFEE0) for code in range(0xFF01, 0xFF5F)},  # full width
    **{code: str(decimal(chr(code))) for code in range(0x80, 0x20000) if chr(code).isdecimal()},
    **dict.fromkeys([0xA0, *range(0x2000, 0x200B), 0x202F, 0x3000], " "),
    **dict.fromkeys([*range(0x2010, 0x2016), 0x2212], "-"),
}
"""One character for another one, so that places stay."""
CLOSE_LETTERS = re.compile("[\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af]")
"""Of Chinese, Japanese and Korean, which put no space around a word of another script."""


class Detail(NamedTuple):
    """One occurrence of a personal detail."""

    kind: str
    start: int
    end: int
    value: str
    """The same in all spellings; of a phone number the national significant number, in North
    America with ``+1`` before it."""


class Readable(NamedTuple):
    """A text without escapes and with plain digits, white space and dashes.

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
    return Readable(readable if readable.isascii() else readable.translate(PLAIN), places)


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
    if escape[0].startswith("&"):
        return html.unescape(escape[0])[:1] or BREAK
    if escape[1]:
        return bytes.fromhex(escape[1] + escape[2]).decode("utf-16-be")
    code = escape[3] or escape[4]
    return chr(int(code, 16)) if code else ESCAPED.get(escape[5], BREAK)
