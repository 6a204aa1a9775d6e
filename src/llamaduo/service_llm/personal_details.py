"""Where a text holds details by which a person, or somebody's account, can be known.

Only what has a form of its own is found here; names and places are for ``names.py``.
"""

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from ipaddress import AddressValueError, IPv4Address, IPv6Address

from stdnum import iban, luhn

from llamaduo.service_llm.credentials import find_keys, find_tokens, find_urls
from llamaduo.service_llm.details import TAKEN, Detail, take, without_escapes
from llamaduo.service_llm.surrogates import FICTIONAL_LINE, FICTIONAL_PHONE, is_surrogate

Finder = Callable[[str], Iterator[Detail]]


def find_details(text: str, regions: Sequence[str]) -> tuple[list[Detail], str]:
    """Find the personal details of a text, which may be JSON.

    What lies in a range that belongs to nobody is no detail.

    Args:
        regions: ISO 3166 codes of the countries whose phone numbers are known without a country
            code.

    Returns:
        The details by their place, none overlapping another; and the rest of the text in the same
        length, with ``TAKEN`` over details and reserved values, and ``BREAK`` over JSON escapes.
    """
    finders = [*FINDERS, lambda rest: _phones(rest, regions)]
    rest = _without_reserved(without_escapes(text))
    details: list[Detail] = []
    while found := _found_once(finders, rest):  # what is taken may uncover more
        rest = take(rest, found)
        details += [each for each in found if not is_surrogate(each.kind, each.value)]
    return sorted(details, key=lambda each: each.start), rest


def _without_reserved(text: str) -> str:
    """Numbers that are none, before by chance others around them are valid too."""
    text = take(text, list(_ibans(text, partial(is_surrogate, "iban"))))
    text = take(text, list(_cards(text, partial(is_surrogate, "card"))))
    text = take(text, [each for each in _ips(text) if is_surrogate("ip", each.value)])
    if not FICTIONAL_LINE.search(text):
        return text
    return FICTIONAL_PHONE.sub(lambda match: TAKEN * len(match[0]), text)


def _found_once(finders: Iterable[Finder], text: str) -> list[Detail]:
    """What each finder finds in what those before it have left."""
    details: list[Detail] = []
    for finder in finders:
        found = list(finder(text))
        text = take(text, found)
        details += found
    return details


EMAIL = re.compile(
    r"(?<![\w.+%-])\w(?:[\w.+%'&-]{0,62}[\w+-])?@[^\W_][\w-]*(?:\.[^\W_][\w-]*)*\.[^\W\d_]{2,}(?![^\W_])"
)
# These look ahead, so that one that has swallowed the next hides none.
IBAN = re.compile(r"(?<![^\W_])(?=([A-Z]{2}\d\d(?:[ \u00a0.-]?[A-Z0-9]){11,30}))", re.IGNORECASE)
IBAN_LENGTHS = range(34, 14, -1)
CARD = re.compile(
    r"(?<![\d+])(?<!\d[.,])(?<![^\W\d_]-)"
    r"(?=((?:4\d|5\d|2[2-7]|3[0-8]|6\d)\d\d(?:[ \u00a0.-]?\d){8,15}(?!\d)))"
)
CARD_LENGTHS = (16, 15, 14, 19, 18, 17, 13, 12)
IPV4 = re.compile(r"(?<![\w.\0])(?<![a-z]-)(?:\d{1,3}\.){3}\d{1,3}(?!\w)(?!\.\d)")
IPV6 = re.compile(
    r"(?<![\w:.\0])(?:[0-9a-f]{0,4}:){2,7}(?:[0-9a-f]{1,4}|(?<=::))(?!\w)(?![:.]\w)", re.IGNORECASE
)
VERSION = re.compile(
    r"(?:\b(?:v|ver|version|release|build|firmware|section|chapter)[. :=]*|[<>=!~]=\s?)\Z", re.I
)
LEAST_HEX = 5
"""Hexadecimal digits of an IPv6 address; with less it may be code, such as a::b1."""
ANY_NUMBER = re.compile(r"\d(?:[^\w\n\0]{0,4}\d){6}")
GAP = re.compile(r"\s{2}")
"""Of a table, not of a number."""
EXTENSION = re.compile(r"[^\w]*(?:[^\W\d]|#|;).*\Z", re.DOTALL)
NO_PHONE = re.compile(
    r"""(?<![\d./-])(?:\d{1,2}[./-]\d{1,2}[./-](?:\d{4}|\d\d)|\d{4}[./-]\d{1,2}[./-]\d{1,2})
        (?![./-]?\d)                                                            # a date
    |-(?:[0-9a-f]{4}-){3}[0-9a-f]{12}                                           # of a UUID
    |(?<![\d.,+])\d[.,]\d{2,}(?![\d.,])                                         # a fraction""",
    re.IGNORECASE | re.VERBOSE,
)
COUNTED = re.compile(
    r"""(?:\b(?-i:[A-Z]{2,})[-_]                                                 # INV-4402
    |(?:\#|\b(?:order|invoice|ticket|case|ref|reference|account|customer|serial|tracking|id|isbn)\b)
     [ ]?(?:(?:no|nr|number|id)\b)?[.:\#]*[ ]?)\Z""",
    re.IGNORECASE | re.VERBOSE,
)
"""What stands before a number that is no phone's."""
REACH = 24
"""Characters before a number that say what it is."""


def _emails(text: str) -> Iterator[Detail]:
    if "@" in text:
        for match in EMAIL.finditer(text):
            yield Detail("email", *match.span(), match[0].lower())


def _ibans(text: str, is_wanted: Callable[[str], bool] = bool) -> Iterator[Detail]:
    def is_valid(value: str) -> bool:
        return is_wanted(value) and iban.is_valid(value, check_country=False)

    return _checked("iban", IBAN, IBAN_LENGTHS, is_valid, text)


def _cards(text: str, is_wanted: Callable[[str], bool] = bool) -> Iterator[Detail]:
    def is_valid(value: str) -> bool:
        return is_wanted(value) and luhn.is_valid(value)

    return _checked("card", CARD, CARD_LENGTHS, is_valid, text)


def _checked(
    kind: str,
    pattern: re.Pattern[str],
    lengths: Iterable[int],
    is_valid: Callable[[str], bool],
    text: str,
) -> Iterator[Detail]:
    """The beginning of each match that has one of the lengths and the right check digits."""
    end = 0
    for match in pattern.finditer(text):
        if match.start() < end:
            continue
        places = [place for place in range(*match.span(1)) if text[place].isalnum()]
        for length in lengths:
            value = "".join(text[place] for place in places[:length]).upper()
            rest = places[length : length + 1]
            is_whole = len(value) == length and rest != [places[length - 1] + 1]
            if is_whole and is_valid(value):
                end = places[length - 1] + 1
                yield Detail(kind, match.start(), end, value)
                break


def _ips(text: str) -> Iterator[Detail]:
    for match in IPV4.finditer(text) if "." in text else ():
        is_version = _is_after(VERSION, text, match.start())
        if not is_version and _is_somebodys(match[0], IPv4Address):
            yield Detail("ip", *match.span(), match[0])
    for match in IPV6.finditer(text) if ":" in text else ():
        digits = match[0].replace(":", "")
        is_long = len(digits) >= LEAST_HEX and not digits.isalpha()
        if is_long and _is_somebodys(match[0], IPv6Address):
            yield Detail("ip", *match.span(), IPv6Address(match[0]).exploded)


def _is_somebodys(text: str, address: type[IPv4Address] | type[IPv6Address]) -> bool:
    """Whether it is an address of a host, and not of every host's own or of a net."""
    try:
        ip = address(text)
    except AddressValueError:
        return False
    is_mask = ip.version == 4 and ip >= IPv4Address("224.0.0.0")
    return not (ip.is_loopback or ip.is_unspecified or is_mask)


def _is_after(pattern: re.Pattern[str], text: str, place: int) -> bool:
    return pattern.search(text, max(0, place - REACH), place) is not None


def _phones(text: str, regions: Sequence[str]) -> Iterator[Detail]:
    """Any possible number with a country code, and the valid ones of the regions."""
    if not ANY_NUMBER.search(text):
        return
    text = NO_PHONE.sub(lambda match: TAKEN * len(match[0]), text)
    if not ANY_NUMBER.search(text):
        return
    for region in (None, *regions):
        found = list(_phones_of(region, text))
        yield from found
        text = take(text, found)


def _phones_of(region: str | None, text: str) -> Iterator[Detail]:
    from phonenumbers import (
        Leniency,
        PhoneNumberMatcher,
        national_significant_number,
        ndd_prefix_for_region,
    )

    # The library takes a German 1698 for a number; nobody writes one without its prefix.
    prefix = "0" if region and ndd_prefix_for_region(region, True) == "0" else ""
    leniency = Leniency.VALID if region else Leniency.POSSIBLE
    for match in PhoneNumberMatcher(text, region, leniency):
        written = EXTENSION.sub("", match.raw_string)
        is_whole = written.lstrip("(").startswith((prefix, "+")) and not GAP.search(written)
        is_plain = written.replace("-", "").isdigit()
        if is_whole and not (is_plain and _is_after(COUNTED, text, match.start)):
            value = national_significant_number(match.number)
            yield Detail("phone", match.start, match.start + len(written), value)


FINDERS: tuple[Finder, ...] = (find_urls, find_tokens, find_keys, _emails, _ibans, _cards, _ips)
"""In the order in which kinds win where they overlap; phone numbers come last."""
