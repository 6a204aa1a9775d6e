"""Personal details of eleven kinds as people and other tools write them, each in a sentence.

Values are those of Faker and of libphonenumber's numbering plans, which know nothing of the gate.
Spellings and sentences were written beside its patterns.
"""

import base64
import json
import math
import random
import string
from functools import cache
from typing import NamedTuple
from urllib.parse import quote

import phonenumbers
from faker import Faker
from phonenumbers import PhoneNumberFormat

FORMATTED = ("email", "phone", "card", "iban", "ip", "ssn", "key", "token", "url")
KINDS = (*FORMATTED, "name", "place")
LEAST_PIECE = 8
HOME = ("US", "GB", "DE", "FR")
ABROAD = ("AT", "AU", "BR", "CH", "CN", "ES", "IN", "IT", "JP", "NL", "PL", "SE")
LOCALES = ("en_US", "en_GB", "de_DE", "fr_FR")
SENTENCES = {
    "email": "Write to {} please.|My address is {}|({})|from: <{}>|{}, thanks!|Mail {} or call.",
    "phone": "Call me on {}.|Tel.: {}|My number is {}, evenings|({})|{} is my mobile|Phone {} now!",
    "card": "My card is {}.|Card {}, please refund|{} was charged twice|card no. {} exp 09/29",
    "iban": "Refund to {} please.|IBAN: {}|{} is my account|my iban is {}, thanks",
    "ip": "Logged in from {}.|The address {} is not mine|IP={}|[{}] failed|{} is blocked, why?",
    "ssn": "My SSN is {}.|SSN {}|({})|social security number: {}",
    "key": "{} stopped working.|I use {}|config: {}|Is {} leaked?",
    "token": "{} is rejected.|It sends {}|curl -H '{}'|my token {}",
    "url": "See {} please.|It calls {}|{} does not load|link: {}",
    "name": "My name is {}.|{} here.|Please ask {} about it.|Regards, {}",
    "place": "I live in {}.|Ship it to {} please.|I moved to {} in May.|The shop in {} is closed.",
}
PLAIN = 0.5
"""Share of the sentences that have nothing around them."""
AROUND = (
    *(
        "10:30 {}",
        "{} 12:30",
        "No. 5: {}",
        "2 x {}",
        "24/7 {}",
        "10115 {}",
        "{} 2026-11-26",
        "7. {}",
    ),
    *("7,{},09/29", "id;value;n\n3;{};40", "3\t{}\t4", "0,{}", '12,"{}",2026'),
    *("**{}**", "`{}`", "| 12 | {} | 3 |", "1. {}\n2. none", "> {}", "# 3\n{}\n"),
)
"""Digits, CSV and Markdown beside a value or a sentence."""


class Planted(NamedTuple):
    """A detail, and the sentence that it stands in."""

    kind: str
    text: str
    secret: str
    """What must not be seen."""
    sentence: str


def is_left(secret: str, text: str) -> bool:
    """Whether a text shows a detail, or more than half of it, in any case and layout."""
    secret, text = ("".join(filter(str.isalnum, each.casefold())) for each in (secret, text))
    length = len(secret) // 2 + 1
    return any(secret[n : n + length] in text for n in range(len(secret) - length + 1))


def spellings(secret: str) -> set[str]:
    """A detail in small letters as JSON, a URL and a page may spell it, and most of it."""
    most = max(LEAST_PIECE, math.ceil(0.7 * len(secret)))
    written = {secret, json.dumps(secret)[1:-1], quote(secret), secret[:most], secret[-most:]}
    plain = "".join(filter(str.isalnum, secret))
    return {each.casefold() for each in (*written, *([plain] if len(plain) > LEAST_PIECE else []))}


def plant(kind: str, rng: random.Random) -> Planted:
    text, secret = MAKERS[kind](rng)
    sentence = rng.choice(SENTENCES[kind].split("|")).replace("{}", text)
    if rng.random() > PLAIN:
        sentence = rng.choice(AROUND).replace("{}", rng.choice([text, sentence]))
    return Planted(kind, text, secret, sentence)


@cache
def _faker(locale):
    return Faker(locale)


def _fake(rng, locale=None):
    faker = _faker(locale or rng.choice(LOCALES))
    faker.seed_instance(rng.getrandbits(64))
    return faker


def _drawn(rng, alphabet, length):
    return "".join(rng.choices(alphabet, k=length))


def _email(rng):
    fake = _fake(rng)
    user = fake.user_name()
    text = rng.choice(
        [
            fake.ascii_free_email(),
            fake.ascii_company_email(),
            fake.email(safe=False),
            f"{user}+{fake.word()}@{fake.domain_name()}".replace("é", "e"),
            f"{user.title()}_{rng.randint(1, 99)}@mail.{fake.domain_name()}",
            f"{user.upper()}@{fake.domain_name().upper()}",
            f"jörg.{user}@{fake.domain_name()}",
            f"{user[0]}-{user[1:]}@{fake.domain_word()}.co.uk",
            f"{user}&#64;{fake.domain_name()}",
        ]
    )
    return text, text


def _phone(rng):
    region = rng.choice(HOME if rng.random() < 0.7 else ABROAD)
    number = _number(rng, region)
    national, code = str(phonenumbers.national_significant_number(number)), number.country_code
    written = phonenumbers.format_number(number, PhoneNumberFormat.INTERNATIONAL)
    spellings = [
        written,
        phonenumbers.format_number(number, PhoneNumberFormat.E164),
        phonenumbers.format_number(number, PhoneNumberFormat.RFC3966),
        written.replace(" ", "-"),
        written.replace(" ", "."),
        written.replace(" ", "\u00a0"),
        f"+{code} ({national[:2]}) {national[2:]}",
        f"+{code} {' '.join(national[n : n + 2] for n in range(0, len(national), 2))}",
    ]
    if region in HOME:
        own = phonenumbers.format_number(number, PhoneNumberFormat.NATIONAL)
        digits = "".join(filter(str.isdigit, own))
        spellings += [own, own.replace(" ", "-"), own.replace(" ", "."), digits]
        if region == "US":
            area, office, line = national[:3], national[3:6], national[6:]
            spellings += [
                f"({area}) {office}-{line}",
                f"({area}){office}-{line}",
                f"1-{area}-{office}-{line}",
                f"{area}.{office}.{line}",
                f"{area} {office} {line}",
                f"{area}-{office}-{line} ext. {rng.randint(10, 999)}",
            ]
        else:
            spellings += [f"+{code} (0){national}", f"00{code} {national}", f"00{code}{national}"]
            spellings += [
                own.replace(" ", "/", 1),
                f"({own.split()[0]}) {''.join(own.split()[1:])}",
            ]
    text = rng.choice(spellings)
    return text, text


def _number(rng, region):
    kind = rng.choice(
        [phonenumbers.PhoneNumberType.MOBILE, phonenumbers.PhoneNumberType.FIXED_LINE]
    )
    like = phonenumbers.example_number_for_type(region, kind)
    national = phonenumbers.national_significant_number(like)
    while True:
        made = national[:-5] + _drawn(rng, string.digits, 5)
        number = phonenumbers.parse(f"+{like.country_code}{made}")
        if phonenumbers.is_valid_number(number) and "555" not in made:
            return number


def _card(rng):
    kinds = ["visa16", "visa19", "mastercard", "amex", "discover", "jcb16", "diners", "maestro"]
    number = _fake(rng).credit_card_number(rng.choice(kinds))
    groups = [4, 6, 5] if len(number) == 15 else [4, 4, 4, 4, 4]
    separator, parts, rest = rng.choice(["", "", " ", " ", "-", ".", "_", "\u00a0"]), [], number
    for size in groups:
        parts.append(rest[:size])
        rest = rest[size:]
    text = separator.join(filter(None, parts))
    return text, text


def _iban(rng):
    plain = _fake(
        rng, rng.choice(["en_GB", "de_DE", "fr_FR", "it_IT", "es_ES", "nl_NL", "pl_PL"])
    ).iban()
    grouped = [plain[n : n + 4] for n in range(0, len(plain), 4)]
    text = rng.choice([plain, " ".join(grouped), "-".join(grouped), "\u00a0".join(grouped)])
    text = text.lower() if rng.random() < 0.2 else text
    return text, text


def _ip(rng):
    fake = _fake(rng)
    network = rng.choice(["2a02:8108", "2001:4860", "fe80"])
    host = f"{rng.getrandbits(16) | 4096:x}"
    text = rng.choice(
        [
            fake.ipv4_public(),
            fake.ipv4_private(),
            fake.ipv6(),
            f"{network}::{host}",
            f"{network}:0:0:{host}::1".replace("fe80:0:0", "fe80:0"),
            fake.ipv6().upper(),
        ]
    )
    return text, text


def _ssn(rng):
    text = _fake(rng, "en_US").ssn()
    return text, text


def _secret(rng, length, alphabet=string.ascii_letters + string.digits):
    return _drawn(rng, alphabet, length - 1) + rng.choice(string.digits)


def _key(rng):
    secret, short = _secret(rng, rng.randint(24, 48)), _fake(rng).password(rng.randint(9, 14))
    short = "".join(filter(str.isalnum, short)) + "7!x"
    body = base64.b64encode(rng.randbytes(96)).decode()
    text, hidden = rng.choice(
        [
            (f"sk-proj-{secret}", secret),
            (f"sk-{secret}", secret),
            (f"sk_live_{secret}", secret),
            (f"ghp_{(secret * 2)[:36]}", (secret * 2)[:36]),
            (f"AKIA{secret.upper()[:16]}", secret.upper()[:16]),
            (f"AIza{(secret * 2)[:35]}", (secret * 2)[:35]),
            (f"xoxb-{secret}", secret),
            (f"hf_{secret}", secret),
            (f"password: {short}", short),
            (f"my password is {short}", short),
            (f"my password is: {short}", short),
            (f"**Password:** {short}", short),
            (f"Password: `{short}`", short),
            (f"Password - {short}", short),
            (f"password (new): {short}", short),
            (f"<password>{short}</password>", short),
            (f"Passwort lautet: {short}", short),
            (f"pw: {short}", short),
            (f"api_key={secret}", secret),
            (f'"apiKey": "{secret}"', secret),
            (f"DB_PASSWORD='{short}'", short),
            (f"X-Api-Key: {secret}", secret),
            (f"client_secret: {secret}", secret),
            (f"Passwort: {short}", short),
            (
                "-----BEGIN PRIVATE KEY-----\n" + body[:64] + "\n" + body[64:]
                + "\n-----END PRIVATE KEY-----",
                body[:40],
            ),
        ]
    )  # fmt: skip
    return text, hidden


def _token(rng):
    def part(value):
        raw = value if isinstance(value, bytes) else json.dumps(value).encode()
        return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()

    claims = {"sub": str(rng.getrandbits(32)), "name": _fake(rng).name(), "iat": 1764150000}
    jwt = ".".join([part({"alg": "HS256", "typ": "JWT"}), part(claims), part(rng.randbytes(32))])
    opaque = _secret(rng, rng.randint(24, 40), string.ascii_letters + string.digits + "-_")
    text, hidden = rng.choice(
        [
            (jwt, jwt),
            (f"Authorization: Bearer {jwt}", jwt),
            (f"Authorization: Bearer {opaque}", opaque),
            (f"bearer {opaque}", opaque),
        ]
    )
    return text, hidden


def _url(rng):
    fake = _fake(rng)
    host, user, secret = fake.domain_name(), fake.user_name(), _secret(rng, rng.randint(8, 32))
    text = rng.choice(
        [
            f"https://{user}:{secret}@{host}/shop",
            f"postgres://{user}:{secret}@{host}:5432/app",
            f"ftp://{user}:{secret}@{host}",
            f"https://{host}/reset?token={secret}",
            f"https://{host}/a?x=1&access_token={secret}&y=2",
            f"https://{host}/blob?sv=2024&sig={secret}%3D",
            f"https://{host}/v1?api_key={secret}",
            f"https://{host}/login?session_id={secret}#top",
            f"https://hooks.slack.com/services/T024BE7LD/B01FQ2VHE/{secret}",
        ]
    )
    return text, secret


def _name(rng):
    text = f"{_fake(rng).first_name()} {_fake(rng).last_name()}"
    return text, text


def _place(rng):
    text = _fake(rng, rng.choice(["de_DE", "fr_FR", "en_GB"])).city()
    return text, text


MAKERS = {
    "email": _email,
    "phone": _phone,
    "card": _card,
    "iban": _iban,
    "ip": _ip,
    "ssn": _ssn,
    "key": _key,
    "token": _token,
    "url": _url,
    "name": _name,
    "place": _place,
}
