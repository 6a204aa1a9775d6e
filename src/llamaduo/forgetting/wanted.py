"""Whether a text holds one of the texts that are to be forgotten."""

import html
import re
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from llamaduo.errors import InputError

ESCAPE = re.compile(r'\\(?:u([0-9a-fA-F]{4})|(["\\/bfnrt]))')
SURROGATE = re.compile("[\ud800-\udfff]")
BYTE = re.compile("[\udc80-\udcff]")
"""What ``surrogateescape`` makes of a byte that is no UTF-8."""
OCTETS = re.compile("(?:%[0-9a-fA-F]{2}|=[0-9A-F]{2})+")
"""Of URLs, and of e-mails in quoted-printable (RFC 2045)."""
SOFT_BREAK = re.compile("=\r?\n")
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
IN_WORD = r"[^\W_\u0590-\u1dff\u2000-\U0010ffff]"
"""A letter or digit of Latin, Greek, Cyrillic or Armenian. Other scripts write words without spaces
between them, or affixes without one."""
GAP = re.compile(r'[\s"<>]+')
DETAIL = re.compile(r"[\d@]|://|[!-~]{16}")
WORD = re.compile(r"\w+")
WINDOW = 2**20
"""Bytes of a large file that are looked at together."""
OVERLAP = 2**12
"""Bytes at the end of a window that the next one begins with."""


class Wanted:
    """Texts to look for, whatever their case, white space, escapes and Unicode normal form are.

    Args:
        texts: As a person types them; they are found where they begin and end with a word.
        rows: Texts of rows, each by its ``words``, which are the same before the privacy gate and
            after it.

    Raises:
        InputError: One of them is too short.
    """

    def __init__(self, texts: Sequence[str], rows: Iterable[str] = ()) -> None:
        for text in texts:
            if len(_folded(text)) < SHORTEST:
                raise InputError(
                    f"--matching {text!r} is too short: with fewer than {SHORTEST} characters it "
                    "would match rows of everybody"
                )
        self.texts = texts
        forms = {form for text in texts for form in _forms(text)}
        self._forms = {form for form in forms if len(form) >= SHORTEST}
        self._pattern = re.compile("|".join(map(_as_words, self._forms)))
        self._rows = [f" {row} " for row in rows]
        # One character may become three by folding.
        shortest = max(SHORTEST, min(map(len, self._forms)) // 3)
        self._stretches = re.compile(rb"(?:%b){%d,}" % (UTF_8, shortest))

    def is_in(self, text: str) -> bool:
        """Whether a text holds one of them, plain or escaped as in JSON, HTML, URLs or e-mails."""
        return any(self._pattern.search(form) or self._has_row(form) for form in _forms(text))

    def is_in_bytes(self, content: bytes) -> bool:
        """The same of what is not decoded: UTF-8, Latin-1, or UTF-8 in the midst of numbers."""
        if b"\0" not in content:
            return self.is_in(content.decode(errors="surrogateescape"))
        # Nothing need stand between two values there, so that words cannot be told.
        stretches = b"\0".join(self._stretches.findall(content)).decode(errors="ignore")
        return any(wanted in form for form in _forms(stretches) for wanted in self._forms)

    def is_in_file(self, path: Path) -> bool:
        """The same of a file of any size and kind."""
        before = b""
        with path.open("rb") as file:
            while window := file.read(WINDOW):
                if self.is_in_bytes(before + window):
                    return True
                before = window[-OVERLAP:]
        return False

    def _has_row(self, form: str) -> bool:
        if not self._rows:
            return False
        words = f" {words_of(form)} "
        return any(row in words for row in self._rows)


def words_of(text: str) -> str:
    """The words of a text but for those with a digit, ``@`` or ``://``, and long ones in ASCII.

    Among these is all that the privacy gate replaces, but for the names and places of ``presidio``.
    """
    plain = (part for part in GAP.split(_folded(text)) if not DETAIL.search(part))
    return " ".join(WORD.findall(" ".join(plain)))


def _as_words(form: str) -> str:
    begin, end = (re.match(IN_WORD, form[place]) for place in (0, -1))
    before, after = f"(?<!{IN_WORD})" if begin else "", f"(?!{IN_WORD})" if end else ""
    return before + re.escape(form) + after


def _forms(text: str) -> Iterator[str]:
    """A text at each depth of its escapes, in the one form in which texts are compared."""
    text = BYTE.sub(lambda byte: chr(ord(byte[0]) - 0xDC00), text)
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
    """A text with one level of its escapes less."""
    text = ESCAPE.sub(_character, text)
    if SURROGATE.search(text):  # two of them are one character
        text = text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return OCTETS.sub(_decoded, SOFT_BREAK.sub("", html.unescape(text)).replace("+", " "))


def _character(escape: re.Match[str]) -> str:
    code, letter = escape.groups()
    return chr(int(code, 16)) if code else CONTROLS.get(letter, letter)


def _decoded(octets: re.Match[str]) -> str:
    content = bytes.fromhex(octets[0].replace("%", "").replace("=", ""))
    try:
        return content.decode()
    except UnicodeDecodeError:
        return content.decode("latin-1")
