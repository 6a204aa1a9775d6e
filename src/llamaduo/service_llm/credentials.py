"""Secrets in a text; only the secret part is a detail, what goes before it stays."""

import re
from collections.abc import Iterator

from llamaduo.service_llm.details import Detail, take
from llamaduo.service_llm.surrogates import MARK

LOGIN = re.compile(r"://([^\s\0/:@\"'<>]+):([^\s\0/@\"'<>]+)@|://([^\s\0/:@\"'<>]{16,})@")
QUERY = re.compile(
    r"[?&;][\w.-]*(?:token|key|secret|passw|pwd|signature|sig|auth|session|credential)[\w.-]*="
    r"([^\s\0&#\"'<>]{6,})",
    re.IGNORECASE,
)
JWT = re.compile(r"\beyJ([\w-]{8,}\.[\w-]{8,}\.[\w-]{8,})")
BEARER = re.compile(
    r"\b(?:bearer|basic)[ \n]+(?=[A-Za-z]*[\d+/=_-])([\w.~+/=-]{11,}[\w~+/=-])(?![\w~+/=\0-])", re.I
)
PRIVATE_KEY = re.compile(
    r"-----BEGIN [A-Z ]*PRIVATE KEY-----([\s\w+/=:,-]+?)-----END [A-Z ]*PRIVATE KEY-----"
)
KNOWN_KEY = re.compile(
    r"""(?<![^\W_])(?:
    sk-(?:[a-z]{2,8}[0-9]{0,2}-)*([\w-]{16,})                 # OpenAI, Anthropic and others
    |(?:[srp]k|rk)_(?:live|test)_(\w{10,})                    # Stripe
    |(?:AKIA|ASIA)([A-Z0-9]{16})                              # AWS
    |(?:gh[pousr]|github_pat|glpat|hf|npm|gsk|shpat|whsec|dop_v1)[_-]([\w-]{16,})
    |xox[abeoprs]-([\w-]{10,})                                # Slack
    |AIza([\w-]{30,}) |ya29\.([\w.-]{20,})                    # Google
    |SG\.([\w-]{16,}\.[\w-]{16,})                             # SendGrid
    )(?![\w-])""",
    re.VERBOSE,
)
ASSIGNMENT = re.compile(
    r"""(?P<name>pass(?:word|phrase|wd|wort|code)|\bpass\b|pwd|kennwort|mot\ de\ passe|contrase[nñ]a
        |secret|api[_ -]?key|access[_ -]?key|private[_ -]?key|account[_ -]?key|token\b|credential)
    \w{0,16}(?P<before>[ ]?["'\n]{0,9})[ ]{0,2}(?:=>|:=|[:=]|\b(?:is|ist|lautet)\b)[ ]{0,2}
    (?P<quote>["'\n]{0,9})(?P<value>[^\s\0"'<>,;(){}\[\]`]{4,}+)(?!\0)""",
    re.IGNORECASE | re.VERBOSE,
)
ASSIGNED = ("pass", "pwd", "kennwort", "contrase", "secret", "key", "token", "credential")
SECRET_LIKE = re.compile(r"(?=.*[^\W\d_])(?:.*\d|.*[@$%^&*+!?#]\w)|" + MARK)
PASSWORD_NAMES = ("pass", "pwd", "kennwort", "mot de passe", "contrase")


def _groups(kind: str, pattern: re.Pattern[str], text: str) -> Iterator[Detail]:
    """Each group of each match is a detail."""
    for match in pattern.finditer(text):
        for number in range(1, pattern.groups + 1):
            if match[number]:
                yield Detail(kind, *match.span(number), match[number])


def find_urls(text: str) -> Iterator[Detail]:
    """User and password of a URL, and secrets in its query."""
    if "://" in text:
        yield from _groups("url", LOGIN, text)
        yield from _groups("url", QUERY, text)


def find_tokens(text: str) -> Iterator[Detail]:
    """JSON Web Tokens (RFC 7519), and what follows ``Bearer`` or ``Basic``."""
    if "eyJ" in text:
        yield from _groups("token", JWT, text)
        text = take(text, _groups("token", JWT, text))
    yield from _groups("token", BEARER, text)


def find_keys(text: str) -> Iterator[Detail]:
    """Private keys, keys of known services, and what a text says is a password or a key."""
    found = [
        *(_groups("key", PRIVATE_KEY, text) if "-----BEGIN" in text else ()),
        *_groups("key", KNOWN_KEY, text),
    ]
    yield from found
    lower = text.lower()  # looking for the words one by one is faster than the pattern
    if not any(word in lower for word in ASSIGNED):
        return
    for match in ASSIGNMENT.finditer(take(text, found)):
        value = match["value"].rstrip(".:!?")
        is_number = value.isdigit() and match["name"].lower().startswith(PASSWORD_NAMES)
        # What has no quotes behind a quoted name is a number of a JSON object, and stays one.
        is_json_number = match["before"].strip(" ") and not match["quote"]
        if not is_json_number and (is_number or SECRET_LIKE.match(value)):
            start = match.start("value")
            yield Detail("key", start, start + len(value), value)
