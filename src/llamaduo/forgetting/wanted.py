"""Whether a text holds one of the texts that are to be forgotten."""

import html
import re
import unicodedata
from collections.abc import Iterable, Iterator, Sequence

from rapidfuzz.distance import Indel

from llamaduo.errors import InputError

CODE_ESCAPE = re.compile(r"(?<!\\)\\+u([0-9a-fA-F]{4})")
CONTROL_ESCAPE = re.compile(r"(?<!\\)\\+[bfnrt]")
BACKSLASHES = re.compile(r"\\+")
SURROGATE = re.compile("[\ud800-\udfff]")
ESCAPED_BYTE = re.compile("[\udc80-\udcff]")
"""What ``surrogateescape`` makes of a byte that is no UTF-8."""
UTF_16 = (b"\xff\xfe", b"\xfe\xff")
SHORTEST = 3
"""Characters; what is shorter stands in every row."""
SHORTEST_PASSAGE = 20
"""Characters of a run of words; fewer may stand in the rows of others."""
SPACED_LETTER = r"[^\W_\u0590-\u1dff\u2000-\U0010ffff]"
"""A letter or digit of Latin, Greek, Cyrillic or Armenian. Other scripts write words without spaces
between them, or affixes without one."""
BETWEEN_PARTS = re.compile(r'[\s"<>]+')
PERHAPS_A_DETAIL = re.compile(r"[\d@]|://|[!-~]{16}")
WORD = re.compile(r"\w+")
Passage = tuple[str, ...]
"""Runs of the words of a row; what holds them all quotes it."""


class Wanted:
    """Texts to look for, whatever their case, white space, escapes and Unicode normal form are.

    Args:
        texts: As a person types them; they are found where they begin and end with a word.
        passages: Of rows; each has a run of words.

    Raises:
        InputError: One of the texts is too short.
    """

    def __init__(self, texts: Sequence[str], passages: Iterable[Passage] = ()) -> None:
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
        self._spellings = {
            unicodedata.normalize(form, case(text)).encode(encoding, "xmlcharrefreplace").lower()
            for text in texts
            for case in (str, str.lower, str.upper, str.title)
            for form in ("NFC", "NFD")
            for encoding in ("utf-8", "latin-1")
        }
        self._passages = list(passages)

    def is_in(self, text: str) -> bool:
        """Whether a text holds one of them, plain or escaped as in JSON or HTML."""
        return any(self._pattern.search(form) or self._has_passage(form) for form in _forms(text))

    def is_in_bytes(self, content: bytes) -> bool:
        """Whether a file's content does: UTF-8, UTF-16, Latin-1, or text in the midst of numbers.

        There no words can be told: a part of one counts, and white space and escapes as typed.
        """
        if is_text(content):
            return self.is_in(decoded(content))
        # Without the zeros UTF-16 is Latin-1, if all of its letters are.
        lower = content.replace(b"\0", b"").lower()
        return any(spelling in lower for spelling in self._spellings)

    def _has_passage(self, form: str) -> bool:
        words = words_of(form) if self._passages else ""
        return any(is_quoted(passage, words) for passage in self._passages)


def is_text(content: bytes) -> bool:
    """Whether a file's content is text: it has no zero bytes, or begins as UTF-16 does."""
    return content.startswith(UTF_16) or b"\0" not in content


def decoded(content: bytes) -> str:
    """The text of a file; a byte that is not of its encoding stays apart."""
    if content.startswith(UTF_16):
        return content.decode("utf-16", errors="replace")
    return content.decode(errors="surrogateescape")


def words_of(text: str) -> str:
    """The words of a text but for those with a digit, ``@`` or ``://``, and long ones in ASCII.

    Most of what the privacy gate replaces is left out so.
    """
    parts = BETWEEN_PARTS.split(_folded(text))
    plain = (part for part in parts if not PERHAPS_A_DETAIL.search(part))
    return " ".join(WORD.findall(" ".join(plain)))


def passage_of(text: str, sendable: str) -> Passage:
    """The runs of words that the privacy gate leaves, but for short ones."""
    before, after = (words_of(each).split() for each in (text, sendable))
    blocks = Indel.editops(before, after).as_matching_blocks()
    runs = (" ".join(before[each.a : each.a + each.size]) for each in blocks)
    return tuple(run for run in runs if len(run) >= SHORTEST_PASSAGE)


def is_quoted(passage: Passage, words: str) -> bool:
    """Whether the words of a text hold a passage."""
    return all(f" {run} " in f" {words} " for run in passage)


def _as_words(form: str) -> str:
    begin, end = (re.match(SPACED_LETTER, form[place]) for place in (0, -1))
    before = f"(?<!{SPACED_LETTER})" if begin else ""
    after = f"(?!{SPACED_LETTER})" if end else ""
    return before + re.escape(form) + after


def _forms(text: str) -> Iterator[str]:
    r"""A text as it is, without its escapes at any depth, and with a space for each backslash.

    A backslash and a letter may be an escape or, as in ``C:\Users\nora``, begin a name.
    """
    text = ESCAPED_BYTE.sub(lambda byte: chr(ord(byte[0]) - 0xDC00), text)  # Latin-1
    yield _folded(text)
    plain = text
    while (plainer := html.unescape(plain)) != plain:
        plain = plainer
    plain = CODE_ESCAPE.sub(lambda escape: chr(int(escape[1], 16)), plain)
    if SURROGATE.search(plain):  # two of them are one character
        plain = plain.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    if plain != text or "\\" in text:
        yield _folded(BACKSLASHES.sub("", CONTROL_ESCAPE.sub(" ", plain)))
        yield _folded(BACKSLASHES.sub(" ", plain))


def _folded(text: str) -> str:
    """Caseless (Unicode 3.13, D145), composed, and with one space for each white space."""
    caseless = unicodedata.normalize("NFD", text).casefold()
    return " ".join(unicodedata.normalize("NFC", caseless).split())
