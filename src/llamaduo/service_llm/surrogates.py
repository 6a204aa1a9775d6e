"""What takes the place of a personal detail: a value of the same form that belongs to nobody."""

import ipaddress
import re
from collections.abc import Callable
from random import Random
from string import ascii_lowercase, ascii_uppercase, digits
from typing import NamedTuple

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
NO_BANK = "99"
"""Check digits that pass ISO 7064, while those of banks are 02 to 98 (ISO 13616)."""
NO_AREA = "666"
"""The United States give no social security number that begins so."""
NORTH_AMERICA = "+1"
FICTION = re.compile(r"\+1\d{3}55501\d\d")
"""The North American plan keeps 555-01xx of each area for it."""
NO_PHONE = "000"
"""No plan of the world has a number that begins so, or with 00, which is what is left where
``phonenumbers`` takes the first 0 for a prefix."""
BEGINNINGS = (
    *("Bemu", "Corva", "Dalmi", "Emso", "Farno", "Gorva", "Halvu", "Jando", "Kemso", "Lundo"),
    *("Malvo", "Nandro", "Ormu", "Pelmo", "Quando", "Rasto", "Salmu", "Talvo", "Urvo", "Velmo"),
    *("Wando", "Xandu", "Yalmu", "Zendo"),
)
NAMES = [begin + end for begin in BEGINNINGS for end in ("drisk", "lvath", "ntrek", "rvusk")]
PLACES = [begin + end for begin in BEGINNINGS for end in ("fell", "holt", "marsh", "gard")]
"""Both are invented, so that they name nobody and are known again."""


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
    while True:  # one account of 97 has these check digits
        number = value[:2] + NO_BANK + _like(value[4:], rng)
        if iban.is_valid(number, check_country=False):
            return number


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
    if value.startswith(NORTH_AMERICA):
        return f"{rng.randint(200, 999)}55501{_like('00', rng)}"
    return NO_PHONE + _like(value[len(NO_PHONE) :], rng)


def _make_ssn(value: str, rng: Random) -> str:
    return f"{NO_AREA}{rng.randint(1, 99):02}{rng.randint(1, 9999):04}"


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


def _write_phone(surrogate: str, text: str) -> str:
    """A number that is written without its first 0 gets none: it may be one of JSON."""
    written = _write_laid_out(surrogate, text)
    return f"1{written[1:]}" if written[0] == "0" != text[0] else written


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


def _is_no_phone(value: str) -> bool:
    return value.startswith(NO_PHONE[1:]) or FICTION.fullmatch(value) is not None


def _is_invented(value: str) -> bool:
    """A model may take a name for a place."""
    return value.title() in {*NAMES, *PLACES}


class Kind(NamedTuple):
    """How one kind of detail is replaced; values are written as ``Detail.value`` is."""

    is_surrogate: Callable[[str], bool]
    """Whether a value lies in a range that belongs to nobody."""
    make: Callable[[str, Random], str]
    """A value that belongs to nobody; it tells no more of the given one than its form."""
    write: Callable[[str, str], str]
    """A surrogate as a text writes the value in its place: layout, case, short form."""


SECRET = Kind(_is_marked, _make_secret, _write_as_it_is)
KINDS = {
    "url": SECRET,
    "token": SECRET,
    "key": SECRET,
    "email": Kind(_is_reserved_email, _make_email, _write_email),
    "iban": Kind(lambda value: value[2:4] == NO_BANK, _make_iban, _write_laid_out),
    "card": Kind(lambda value: value.startswith(TEST_CARD), _make_card, _write_laid_out),
    "ip": Kind(lambda value: value.startswith((*NETWORKS, "2001:0db8:")), _make_ip, _write_ip),
    "ssn": Kind(lambda value: value.startswith(NO_AREA), _make_ssn, _write_laid_out),
    "phone": Kind(_is_no_phone, _make_phone, _write_phone),
    "name": Kind(_is_invented, lambda _, rng: rng.choice(NAMES), _write_word),
    "place": Kind(_is_invented, lambda _, rng: rng.choice(PLACES), _write_word),
}
