"""Secrets in a text; only the secret part is a detail, what goes before it stays."""

import re
from collections.abc import Iterator

from llamaduo.service_llm.details import Detail, take

LOGIN = re.compile(
    r"""://([^\s\0/:@"'<>]*):([^\s\0/"'<>]+)@ |://([^\s\0/:@"'<>]{16,})@
    |\bhooks\.slack\.com/(?:services|workflows|triggers)/([\w/]{16,}+)
    |(?<!\S)(?:-u|--user)[ =]["']?(?!\d+:)([^\s\0:"']+):(?=\S*[^\W\d_])([^\s\0"']{4,})   # curl""",
    re.VERBOSE,
)
QUERY = re.compile(
    r"""[?&;#](?=[\w.-]{0,64}(?:token|secret|passw|pwd|signature|session|credential
        |(?:(?<![a-z])|(?-i:(?=[A-Z]))|api|access|auth|private)(?:key|sig|auth)(?:id)?(?![a-z])))
    [\w.-]++=((?:(?!://)(?:[,;|](?=\w*\d)(?=\w*[^\W\d_])|[^\s\0&#"'<>,;|])){6,}
    (?<![.,:;|!?()\[\]{}]))""",
    re.IGNORECASE | re.VERBOSE,
)
"""Short names are parts of other words, such as keyword, design and author. Behind a comma a value
goes on where letters and digits follow, which the next field of CSV rarely has."""
JWT = re.compile(r"(?<![\w-])(?>[\w-]*?\beyJ)([\w-]{8,}\.[\w-]{8,}\.[\w-]{8,})")
"""Tried once a word, at its first ``eyJ``: many in one word would take the square of its length."""
BEARER = re.compile(
    r"""\b(?:bearer|authorization:[ ]?token)[ \n]+(?=[A-Za-z]*[\d+/=_-])
        ([\w.~+/=-]{11,}[\w~+/=-])(?![\w~+/=\0-])
    |\bbasic[ \n]+(?=[A-Za-z]*[\d+/=])([A-Za-z0-9+/]{10,}={0,2})(?![\w~+/=\0-])""",
    re.IGNORECASE | re.VERBOSE,
)
PRIVATE_KEY = re.compile(
    r"""-----BEGIN\ (?:[A-Z]+\ ){0,3}PRIVATE\ KEY(?:\ BLOCK)?-----
    (?:((?:[\s\w+/=:,.()]|-(?!----))++)(?=-----END) |((?:\s*[A-Za-z0-9+/=]{16,})++))""",
    re.VERBOSE,
)
KNOWN_KEY = re.compile(
    r"""(?<![^\W_])(?:
    sk-(?:[a-z]{2,8}[0-9]{0,2}-){0,2}(TAIL{16,}+)             # OpenAI, Anthropic and others
    |(?:[srp]k|rk)_(?:live|test)_(\w{10,}+)                   # Stripe
    |(?:AKIA|ASIA)([A-Z0-9]{16})                              # AWS
    |(?:gh[pousr]|github_pat|glpat|hf|npm|gsk|shpat|whsec|dop_v1)[_-](TAIL{16,}+)
    |xox[abeoprs]-([\w-]{10,}+)                               # Slack
    |AIza([\w-]{30,}+) |ya29\.([\w.-]{20,}+)                  # Google
    |SG\.([\w-]{16,}\.[\w-]{16,}+)                            # SendGrid
    )(?![\w-])""".replace("TAIL", r"(?=[\w-]{0,40}[A-Z0-9])[\w-]"),  # no words in small letters
    re.VERBOSE,
)
ASSIGNMENT = re.compile(
    r"""(?<!</)(?P<name>pass(?:word|phrase|wd|wort|code)|\bpass\b|pwd|\bpw\b|kennwort|mot\ de\ passe
        |contrase[nñ]a|secret|api[_ -]?key|access[_ -]?key|private[_ -]?key|account[_ -]?key
        |session[_ -]?id|token\b|credential)
    \w{0,16}(?:[ ]?\([^()\n]{0,20}\))?
    (?P<link>(?:[\s"'`*:=|<>„“]|-(?=[\s>])|\b(?:is|was|ist|war|lautet|now|to|jetzt)\b){1,12})
    (?P<value>(?<=["'])(?:(?!://)[^\s\0"']){4,}+|(?:(?!://)[^\s\0"'<>,;`]){4,}+)(?!\0)""",
    re.IGNORECASE | re.VERBOSE,
)
SIGN = re.compile(r"[:=|>]|\b(?:is|was|ist|war|lautet)\b", re.IGNORECASE)
"""Makes of what follows a name its value; white space, a dash or ``to`` may not."""
REFERENCE = re.compile(r"[A-Z]{2,}-\d+")
JSON_KEY = re.compile(r"[\"']\s*:\s*")
JSON_NUMBER = re.compile(r"-?\d+(?:\.\d+)?(?:[eE][+-]?\d+)?")
ASSIGNED = (
    "pass",
    "pw",
    "kennwort",
    "contrase",
    "secret",
    "key",
    "session",
    "token",
    "credential",
)
CODE = re.compile(
    r"[^\W\d][\w.]*\(|(?:u?int|float|utf|base|sha|md|aes|[hre]s|oauth)-?\d{1,3}\Z",
    re.IGNORECASE,
)
"""A call, or the name of a type or an algorithm."""
LINE_END = re.compile(r"[ \t]*(?:\n|\Z)")
"""A password on a line of its own; other lines go on with the text."""
SECRET_LIKE = re.compile(r"(?=[^([{]*[^\W\d_])(?:[^([{]*\d|[^([{]*[@$%^&*+!?#]\w)")
"""A letter, and a digit or a sign, before a bracket that could be one of code."""
PASSWORD_NAMES = ("pass", "pw", "kennwort", "mot de passe", "contrase")
LEAST_BARE = 6
"""Characters of a password that nothing but its name stands before."""


def _groups(kind: str, pattern: re.Pattern[str], text: str) -> Iterator[Detail]:
    """Each group of each match is a detail."""
    for match in pattern.finditer(text):
        for number in range(1, pattern.groups + 1):
            if match[number]:
                yield Detail(kind, *match.span(number), match[number])


def is_secret_like(value: str) -> bool:
    """Whether it can hardly be a word, a number or code."""
    return SECRET_LIKE.match(value) is not None and CODE.match(value) is None


def find_urls(text: str) -> Iterator[Detail]:
    """User and password of a URL, and secrets in its query or of a webhook."""
    logins = list(_groups("url", LOGIN, text))
    yield from logins
    yield from _groups("url", QUERY, take(text, logins))


def find_tokens(text: str) -> Iterator[Detail]:
    """JSON Web Tokens (RFC 7519), and what follows ``Bearer`` or ``Basic``."""
    tokens = list(_groups("token", JWT, text)) if "eyJ" in text else []
    yield from tokens
    yield from _groups("token", BEARER, take(text, tokens))


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
        value = match["value"].rstrip(".,:;!?)]}*“")
        if _is_secret(value, match):
            start = match.start("value")
            yield Detail("key", start, start + len(value), value)


def _is_secret(value: str, match: re.Match[str]) -> bool:
    is_password = match["name"].lower().startswith(PASSWORD_NAMES)
    if not SIGN.search(match["link"]):
        has_digit = any(character.isdigit() for character in value)
        is_likely = has_digit and len(value) >= LEAST_BARE and not REFERENCE.fullmatch(value)
        is_near = "\n" not in match["link"] or bool(LINE_END.match(match.string, match.end()))
        return is_password and is_likely and is_near and is_secret_like(value)
    if JSON_KEY.fullmatch(match["link"]) and JSON_NUMBER.fullmatch(value):  # and stays one
        return False
    return is_secret_like(value) or (is_password and value.isdigit())
