"""Where a text holds details by which a person, or somebody's account, can be known.

Only what has a form of its own is found here; names and places are for ``names.py``.
"""

import re
from collections.abc import Callable, Iterator, Sequence
from functools import cache, partial
from ipaddress import AddressValueError, IPv4Address, IPv6Address
from unicodedata import normalize

from stdnum import iban, luhn, numdb

from llamaduo.service_llm.credentials import find_keys, find_tokens, find_urls
from llamaduo.service_llm.details import TAKEN, Detail, set_apart, take
from llamaduo.service_llm.phones import LINK, THING, find_phones
from llamaduo.service_llm.surrogates import KINDS

Finder = Callable[[str], Iterator[Detail]]


def find_details(text: str, regions: Sequence[str]) -> tuple[list[Detail], str]:
    """Find the personal details of a text.

    What lies in a range that belongs to nobody is no detail.

    Args:
        text: As ``read`` gives it.
        regions: ISO 3166 codes of the countries whose phone numbers are known without a country
            code.

    Returns:
        The details by their place, none overlapping another; and the rest of the text in the same
        length, with ``TAKEN`` over details and reserved values.
    """
    rest = _without_surrogates(set_apart(text))
    details: list[Detail] = []
    phones: Finder = partial(find_phones, regions=regions)
    for finder in (*FINDERS, phones):
        found = list(finder(rest))
        rest = take(rest, found)
        details += [each for each in found if not KINDS[each.kind].is_surrogate(each.value)]
    rest = "".join(TAKEN if left == TAKEN else own for left, own in zip(rest, text, strict=True))
    return sorted(details, key=lambda each: each.start), rest


def _without_surrogates(text: str) -> str:
    """``TAKEN`` over them, since one with digits beside it may by chance be a valid number."""
    text = take(text, list(_ibans(text, KINDS["iban"].is_surrogate)))
    text = take(text, list(_cards(text, KINDS["card"].is_surrogate)))
    return take(text, [each for each in _ips(text) if KINDS["ip"].is_surrogate(each.value)])


EMAIL = re.compile(
    r"""(?<![\w\u0300-\u036f.+'&-])[.+'&-]*+([\w\u0300-\u036f.+'&-]++(?:@|%40)
    [^\W_][\w-]*(?:\.[^\W_][\w-]*)*\.(?:xn--[a-z0-9-]+|[^\W\d_]{2,}))(?![^\W_])""",
    re.IGNORECASE | re.VERBOSE,
)
# These look ahead, so that one that has swallowed the next hides none.
IBAN = re.compile(
    r"(?:(?<![^\W_])|(?<=iban))(?=([A-Z]{2}[ ._-]?\d\d(?:[ ._-]?[A-Z0-9]){11,30}))", re.IGNORECASE
)
CARD = re.compile(
    r"""(?<![\d+])(?<!\b\d\.)(?=((?:4\d|5\d|2[2-7]|3\d|6\d)\d\d
    (?:[ ._-]{0,2}\d{4,6}){1,3}(?:[ ._-]{0,2}\d{1,5})?(?!\d)))""",
    re.VERBOSE,
)
CARD_LENGTHS = {
    "4": (16, 19, 13),  # Visa
    "5[1-5]|2": (16,),  # Mastercard
    "3[47]": (15,),  # American Express
    "3[0689]": (14, 16, 19, 18, 17),  # Diners Club
    "35": (16, 19, 18, 17),  # JCB
    "6[37]|5[06-8]": (16, 19, 18, 17, 15, 14, 13, 12),  # Maestro
    "6": (16, 19, 18, 17),  # Discover, UnionPay
}
IPV4 = re.compile(r"(?<![\d\0])(?<!\d\.)(?:\d{1,3}\.){3}\d{1,3}(?![^\W_]|\.\d)")
SSN = re.compile(r"(?<![^\W_])(?<!\d-)(?!000|9)\d{3}-(?!00)\d\d-(?!0000)\d{4}(?![^\W_]|-\d)")
OF_A_THING = re.compile(rf"{THING}{LINK}\Z", re.IGNORECASE | re.VERBOSE)
IPV6 = re.compile(
    r"""(?:(?<![\w:\0])(?<!\d\.)|(?<=[g-z]:))
    (?:[0-9a-f]{0,4}:){2,7}(?:[0-9a-f]{1,4}|(?<=::))(?!\w)(?!:\w|\.\d)""",
    re.IGNORECASE | re.VERBOSE,
)
VERSION = re.compile(
    r"""(?:(?:§|\b(?:v|ver|version|release|build|firmware|section|chapter))[.\ :=]*|[<>=!~]=\s?
        |[a-z]-)
    (?:[\d.]+\ ?(?:,|-|and|to|or)\ ?)*\Z""",
    re.IGNORECASE | re.VERBOSE,
)
LONGEST_PART = 2
"""Digits of a version's parts; with more it is taken for an address whatever stands before it."""
LEAST_HEX = 5
"""Hexadecimal digits of an IPv6 address; with less it may be code, such as a::b1."""
REACH = 24
"""Characters before a number that say what it is."""


def _emails(text: str) -> Iterator[Detail]:
    if "@" in text or "%40" in text:
        for match in EMAIL.finditer(text):
            value = normalize("NFC", match[1].lower().replace("%40", "@"))
            yield Detail("email", *match.span(1), value)


def _ibans(text: str, is_wanted: Callable[[str], bool] = bool) -> Iterator[Detail]:
    def is_valid(value: str) -> bool:
        return is_wanted(value) and iban.is_valid(value, check_country=False)

    return _checked("iban", IBAN, _iban_lengths, is_valid, text)


def _cards(text: str, is_wanted: Callable[[str], bool] = bool) -> Iterator[Detail]:
    def is_valid(value: str) -> bool:
        return is_wanted(value) and luhn.is_valid(value)

    return _checked("card", CARD, _card_lengths, is_valid, text)


@cache
def _card_lengths(beginning: str) -> Sequence[int]:
    """The lengths that issuers give to cards with these first two digits, the usual one first."""
    return next(
        (lengths for issuer, lengths in CARD_LENGTHS.items() if re.match(issuer, beginning)), ()
    )


@cache
def _iban_lengths(country: str) -> Sequence[int]:
    """The one length of a country's IBANs, if it has any."""
    ((_, known),) = numdb.get("iban").info(country.upper())
    parts = re.findall(r"\d+", known.get("bban", ""))
    return [len("GB82") + sum(map(int, parts))] if parts else []


def _checked(
    kind: str,
    pattern: re.Pattern[str],
    lengths: Callable[[str], Sequence[int]],
    is_valid: Callable[[str], bool],
    text: str,
) -> Iterator[Detail]:
    """The beginning of each match that has one of the lengths and the right check digits."""
    end = 0
    for match in pattern.finditer(text):
        if match.start() < end:
            continue
        places = [place for place in range(*match.span(1)) if text[place].isalnum()]
        for length in lengths(text[match.start() : match.start() + 2]):
            value = "".join(text[place] for place in places[:length]).upper()
            rest = places[length : length + 1]
            is_whole = len(value) == length and rest != [places[length - 1] + 1]
            if is_whole and is_valid(value):
                end = places[length - 1] + 1
                yield Detail(kind, match.start(), end, value)
                break


def _ips(text: str) -> Iterator[Detail]:
    for match in IPV4.finditer(text) if "." in text else ():
        is_short = max(map(len, match[0].split("."))) <= LONGEST_PART
        is_version = is_short and _is_after(VERSION, text, match.start())
        if not is_version and _is_somebodys(match[0], IPv4Address):
            yield Detail("ip", *match.span(), match[0])
    for match in IPV6.finditer(text) if ":" in text else ():
        digits = match[0].replace(":", "")
        is_long = len(digits) >= LEAST_HEX and not digits.isalpha()
        if is_long and _is_somebodys(match[0], IPv6Address):
            yield Detail("ip", *match.span(), IPv6Address(match[0]).exploded)


def _ssns(text: str) -> Iterator[Detail]:
    for match in SSN.finditer(text):
        if not _is_after(OF_A_THING, text, match.start()):
            yield Detail("ssn", *match.span(), match[0].replace("-", ""))


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


FINDERS: tuple[Finder, ...] = (
    *(find_urls, find_tokens, find_keys, _emails),
    *(_ibans, _cards, _ips, _ssns),
)
"""In the order in which kinds win where they overlap; phone numbers come last."""
