"""What takes the place of a personal detail: a value of the same form that belongs to nobody."""

import ipaddress
import re
from collections.abc import Callable
from random import Random
from string import ascii_lowercase, ascii_uppercase, digits

from stdnum import iban, luhn

MARK = "EXAMPLE"
"""The end of a secret that is none, as in the documentation of AWS."""
DOMAINS = ("example.com", "example.org", "example.net")
"""RFC 2606."""
NETWORKS = ("192.0.2.", "198.51.100.", "203.0.113.", "198.18.", "198.19.")
"""RFC 5737, and RFC 2544, whose net has addresses enough."""
GROUPS = (0x2001, 0x0DB8)
"""RFC 3849."""
TEST_CARD = "400000"
NO_BANK = re.compile(r"[0X]{4}")
FICTION = "55501"
"""With two more digits the end of a phone number: the North American plan keeps 555-01xx for it."""
_GAP = r"[^\w\n\0+]{0,4}"
_LINE = _GAP.join([*FICTION, r"\d", r"\d"])
FICTIONAL_PHONE = re.compile(rf"(?<!\d)[+(]?(?:\d{_GAP}){{0,11}}?{_LINE}(?!\d)")
BEGINNINGS = (
    *("Bemu", "Corva", "Dalmi", "Emso", "Farno", "Gorva", "Halvu", "Jando", "Kemso", "Lundo"),
    *("Malvo", "Nandro", "Ormu", "Pelmo", "Quando", "Rasto", "Salmu", "Talvo", "Urvo", "Velmo"),
    *("Wando", "Xandu", "Yalmu", "Zendo"),
)
NAMES = [begin + end for begin in BEGINNINGS for end in ("drisk", "lvath", "ntrek", "rvusk")]
PLACES = [begin + end for begin in BEGINNINGS for end in ("fell", "holt", "marsh", "gard")]
"""Both are invented, so that they name nobody and are known again."""


def is_surrogate(kind: str, value: str) -> bool:
    """Whether a value, written as ``Detail.value`` is, lies in a range that belongs to nobody."""
    return IS_SURROGATE[kind](value)


def make_surrogate(kind: str, value: str, rng: Random) -> str:
    """A value that belongs to nobody; it tells no more of the other one than its form."""
    return MAKERS[kind](value, rng)


def write_like(kind: str, surrogate: str, text: str) -> str:
    """Write a surrogate as a text writes the value in its place: layout, case, short form."""
    return WRITERS[kind](surrogate, text)


def _like(text: str, rng: Random) -> str:
    """Other letters and digits in the place of letters and digits."""
    return "".join(
        rng.choice(digits if c.isdigit() else ascii_uppercase if c.isupper() else ascii_lowercase)
        if c.isalnum()
        else c
        for c in text
    )


def _make_email(value: str, rng: Random) -> str:
    return f"{_like(value.rpartition('@')[0], rng)}@{rng.choice(DOMAINS)}"


def _make_secret(value: str, rng: Random) -> str:
    """White space stays, and so do the marks that some keys have between their parts."""
    filled = _like(re.sub(r"[^\w\s.-]", "x", value), rng)
    places = [place for place, character in enumerate(filled) if not character.isspace()]
    filled += _like("x" * (3 + len(MARK) - len(places)), rng)
    places += range(len(value), len(filled))
    characters = list(filled)
    for place, character in zip(places[-len(MARK) :], MARK, strict=True):
        characters[place] = character
    return "".join(characters)


def _make_iban(value: str, rng: Random) -> str:
    bank = "".join("0" if character.isdigit() else "X" for character in value[4:8])
    account = bank + _like(value[8:], rng)
    return value[:2] + iban.calc_check_digits(f"{value[:2]}00{account}") + account


def _make_card(value: str, rng: Random) -> str:
    number = TEST_CARD + _like(value[len(TEST_CARD) : -1], rng)
    return number + luhn.calc_check_digit(number)


def _make_ip(value: str, rng: Random) -> str:
    if "." in value:
        return f"198.{rng.randint(18, 19)}.{rng.randint(0, 255)}.{rng.randint(1, 254)}"
    groups = [int(group, 16) for group in value.split(":")[len(GROUPS) :]]
    drawn = [rng.randint(1 << group.bit_length() - 1, 0xFFFF) if group else 0 for group in groups]
    drawn[-1] = drawn[-1] or rng.randint(1, 0xFFFF)
    return ":".join(f"{group:04x}" for group in (*GROUPS, *drawn))


def _make_phone(value: str, rng: Random) -> str:
    area = _like(value[: -len(FICTION) - 2], rng)
    first = str(rng.randint(2, 9)) if area else ""
    return first + area[1:] + FICTION + _like("00", rng)


def _write_as_it_is(surrogate: str, text: str) -> str:
    return surrogate


def _write_email(surrogate: str, text: str) -> str:
    local, _, domain = surrogate.partition("@")
    cased = "".join(
        new.upper() if old.isupper() else new for new, old in zip(local, text, strict=False)
    )
    return f"{cased}@{domain.upper() if text.isupper() else domain}"


def _write_laid_out(surrogate: str, text: str) -> str:
    """Into the places of the text's last letters and digits; what finds none goes before them."""
    written, left = list(text), list(surrogate)
    places = [place for place, character in enumerate(text) if character.isalnum()]
    for place in reversed(places[-len(surrogate) :]):
        character = left.pop()
        written[place] = character.lower() if text[place].islower() else character
    first = places[-len(surrogate) :][0]
    return "".join(written[:first]) + "".join(left) + "".join(written[first:])


def _write_ip(surrogate: str, text: str) -> str:
    if ":" not in surrogate:
        return surrogate
    if "::" in text:
        written = ipaddress.IPv6Address(surrogate).compressed
    else:
        groups = zip(surrogate.split(":"), text.split(":"), strict=True)
        written = ":".join(new.lstrip("0").zfill(len(old)) for new, old in groups)
    return written.upper() if text.isupper() else written


def _write_word(surrogate: str, text: str) -> str:
    return surrogate.upper() if text.isupper() else surrogate


def _is_reserved_email(value: str) -> bool:
    return value.endswith((*(f"@{d}" for d in DOMAINS), *(f".{d}" for d in DOMAINS)))


def _is_marked(value: str) -> bool:
    return "".join(value.split()).endswith(MARK)


IS_SURROGATE: dict[str, Callable[[str], bool]] = {
    "url": _is_marked,
    "token": _is_marked,
    "key": _is_marked,
    "email": _is_reserved_email,
    "iban": lambda value: bool(NO_BANK.match(value, 4)),
    "card": lambda value: value.startswith(TEST_CARD),
    "ip": lambda value: value.startswith((*NETWORKS, "2001:0db8:")),
    "phone": lambda value: value[:-2].endswith(FICTION),
    # A model may take the one for the other.
    "name": lambda value: value.title() in {*NAMES, *PLACES},
    "place": lambda value: value.title() in {*NAMES, *PLACES},
}
MAKERS: dict[str, Callable[[str, Random], str]] = {
    "url": _make_secret,
    "token": _make_secret,
    "key": _make_secret,
    "email": _make_email,
    "iban": _make_iban,
    "card": _make_card,
    "ip": _make_ip,
    "phone": _make_phone,
    "name": lambda _, rng: rng.choice(NAMES),
    "place": lambda _, rng: rng.choice(PLACES),
}
WRITERS: dict[str, Callable[[str, str], str]] = {
    "url": _write_as_it_is,
    "token": _write_as_it_is,
    "key": _write_as_it_is,
    "email": _write_email,
    "iban": _write_laid_out,
    "card": _write_laid_out,
    "ip": _write_ip,
    "phone": _write_laid_out,
    "name": _write_word,
    "place": _write_word,
}
