"""Further occurrences of details, where nothing gives them away."""

import re
from collections.abc import Iterable, Iterator

from llamaduo.service_llm.credentials import is_secret_like
from llamaduo.service_llm.details import Detail, set_apart, take
from llamaduo.service_llm.surrogates import NORTH_AMERICA

NUMBERS = ("phone", "card", "iban", "ssn")
SECRETS = ("key", "token", "url")
NAMES = ("name", "place")
LEAST_SECRET = 6
LEAST_NUMBER = 7
LEAST_NAME = 3
"""Characters of a value that is looked for."""
GAP = r'[^\w\n\0+"\\]{0,4}'
COUNTRY_CODE = rf"(?:\+{GAP})?(?:\d{GAP}){{0,4}}"
WORD = re.compile(r"[^\W\d_]+(?:['’-][^\W\d_]+)*")


def find_again(details: Iterable[Detail], rest: str) -> list[Detail]:
    """Where whole words or numbers of a text are the value of a detail once more.

    Args:
        details: Those of all texts that belong together.
        rest: What the finders have left of one of them.
    """
    found: list[Detail] = []
    values = {(each.kind, each.value) for each in details}
    text = set_apart(rest)
    squeezed = re.sub(r"[\W_]", "", rest).upper()
    for kind, value in sorted(values, key=lambda each: (-len(each[1]), each)):
        if kind in NUMBERS:
            again = _numbers(kind, value, text, squeezed)
        elif kind in SECRETS:
            again = _secrets(kind, value, text)
        else:
            continue
        if occurrences := list(again):
            text = take(text, occurrences)
            found += occurrences
    names = {value: kind for kind, value in values if kind in NAMES}
    return [*found, *_names(names, take(rest, found))]


def _numbers(kind: str, value: str, text: str, squeezed: str) -> Iterator[Detail]:
    digits = value.removeprefix(NORTH_AMERICA)
    if len(digits) < LEAST_NUMBER or digits not in squeezed:  # faster than the pattern
        return
    before = COUNTRY_CODE if kind == "phone" else ""
    pattern = rf"(?<![^\W_]){before}{GAP.join(digits)}(?![^\W_])"
    for match in re.finditer(pattern, text, re.IGNORECASE):
        yield Detail(kind, *match.span(), value)


def _secrets(kind: str, value: str, text: str) -> Iterator[Detail]:
    if value in text and len(value) >= LEAST_SECRET and is_secret_like(value):
        for match in re.finditer(rf"(?<![^\W_]){re.escape(value)}(?![^\W_])", text):
            yield Detail(kind, *match.span(), value)


def _names(kinds: dict[str, str], text: str) -> Iterator[Detail]:
    for word in WORD.finditer(text) if kinds else ():
        value = word[0].casefold()
        if value in kinds and len(value) >= LEAST_NAME and not word[0].islower():
            yield Detail(kinds[value], *word.span(), value)
