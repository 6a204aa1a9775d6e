"""Whether a text holds one of the texts that are to be forgotten."""

import html
import re
import unicodedata
from collections.abc import Iterator, Sequence
from pathlib import Path

from llamaduo.errors import InputError

ESCAPE = re.compile(r'\\(?:u([0-9a-fA-F]{4})|(["\\/bfnrt]))')
SURROGATE = re.compile("[\ud800-\udfff]")
UTF_8 = (
    rb"[\t\n\r\x20-\x7e]|[\xc2-\xdf][\x80-\xbf]"
    rb"|[\xe0-\xef][\x80-\xbf]{2}|[\xf0-\xf4][\x80-\xbf]{3}"
)
"""One character."""
CONTROLS = dict(zip("bfnrt", "\b\f\n\r\t", strict=True))
DEPTH = 6
"""How often a text may be escaped: JSON in the JSON of an answer, in a row, in a report."""
SHORTEST = 3
"""Characters; what is shorter stands in every row."""
WINDOW = 2**20
"""Bytes of a large file that are looked at together."""
OVERLAP = 2**12
"""Bytes at the end of a window that the next one begins with."""


class Wanted:
    """Texts to look for, whatever their case, white space, escapes and Unicode normal form are.

    Args:
        texts: As a person types them.

    Raises:
        InputError: One of them is too short.
    """

    def __init__(self, texts: Sequence[str]) -> None:
        for text in texts:
            if len(_folded(text)) < SHORTEST:
                raise InputError(
                    f"--matching {text!r} is too short: with fewer than {SHORTEST} characters it "
                    "would match rows of everybody"
                )
        forms = {form for text in texts for form in _forms(text)}
        self._forms = {form for form in forms if len(form) >= SHORTEST}
        # One character may become three by folding.
        shortest = max(SHORTEST, min(map(len, self._forms)) // 3)
        self._stretches = re.compile(rb"(?:%b){%d,}" % (UTF_8, shortest))

    def is_in(self, text: str) -> bool:
        """Whether a text holds one of them, be it plain or escaped as in JSON or HTML."""
        return any(wanted in form for form in _forms(text) for wanted in self._forms)

    def is_in_bytes(self, content: bytes) -> bool:
        """The same of what is not decoded: UTF-8, Latin-1, or UTF-8 in the midst of numbers."""
        try:
            return self.is_in(content.decode())
        except UnicodeDecodeError:
            if b"\0" not in content and self.is_in(content.decode("latin-1")):
                return True
            stretches = b"\0".join(self._stretches.findall(content))
            return self.is_in(stretches.decode(errors="ignore"))

    def is_in_file(self, path: Path) -> bool:
        """The same of a file of any size and kind."""
        before = b""
        with path.open("rb") as file:
            while window := file.read(WINDOW):
                if self.is_in_bytes(before + window):
                    return True
                before = window[-OVERLAP:]
        return False


def _forms(text: str) -> Iterator[str]:
    """A text at each depth of its escapes, in the one form in which texts are compared."""
    yield _folded(text)
    for _ in range(DEPTH):
        plainer = _unescaped(text)
        if plainer == text:
            return
        text = plainer
        yield _folded(text)


def _folded(text: str) -> str:
    """Caseless (Unicode 3.13, D145), composed, and with one space for each white space."""
    caseless = unicodedata.normalize("NFD", text).casefold()
    return " ".join(unicodedata.normalize("NFC", caseless).split())


def _unescaped(text: str) -> str:
    """A text with one level of the escapes of JSON and HTML less."""
    text = ESCAPE.sub(_character, text)
    if SURROGATE.search(text):  # two of them are one character
        text = text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return html.unescape(text)


def _character(escape: re.Match[str]) -> str:
    code, letter = escape.groups()
    return chr(int(code, 16)) if code else CONTROLS.get(letter, letter)
