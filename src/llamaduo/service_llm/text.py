"""Text that goes to a service LLM and comes back."""

import json
import re
import unicodedata
from collections.abc import Callable
from typing import Any, TypeVar

T = TypeVar("T")

PLACEHOLDER = re.compile(r"\{\{\s*(\w+)\s*\}\}")
# A brace or bracket that begins JSON, unlike {project} or [1] in prose.
JSON_BEGINS = re.compile(r'\{\s*["}]|\[\s*[\[{"\]]')
STRING_OR_TRAILING_COMMA = re.compile(r'"(?:[^"\\]|\\.)*+"|,(?=\s*[}\]])', re.DOTALL)
HIGHEST_SCORE = 100
SCORE_TEXT = re.compile(r"([0-9]{1,3}(?:\.[0-9]+)?)(?: ?/ ?100)?")
"""A number in ASCII digits, with the scale of the judge prompt or without."""
# How assistants decline in English; a task may use the same words for other ends.
REFUSAL = re.compile(
    r"""\A\W*
    (?:(?:(?:i['’]m|i\ am)\ (?:\w+\ )?sorry|sorry|unfortunately|i\ apologi[sz]e)\W+(?:but\ )?)?
    (?:as\ an?\ (?:\w+\ ){0,2}(?:ai(?:\ assistant|\ model)?|language\ model),
     |i\ must\ decline\b
     |i(?:['’]m|\ am)?\ (?:can(?:['’]t|not|\ not)|unable\ to|not\ able\ to|won['’]t|will\ not)
      \ (?:\w+\ ){0,4}?(?:assist|help|comply|fulfill?|provide|create|generate|write|produce|answer
        |engage|discuss|continue|do)\b)""",
    re.IGNORECASE | re.VERBOSE,
)
UNSEEN = ("Zs", "Zl", "Zp", "Cc", "Cf")
"""Unicode categories."""
THOUGHT = re.compile(r"\A\s*<think>.*?(</think>|\Z)", re.DOTALL)


def placeholders_of(template: str) -> set[str]:
    """The names in ``{{ braces }}``."""
    return set(PLACEHOLDER.findall(template))


def fill(template: str, values: dict[str, str]) -> str:
    """Replace ``{{ name }}`` in one pass, so that placeholders inside the data stay data."""
    return PLACEHOLDER.sub(lambda match: values[match.group(1)], template)


def read_json(text: str, read: Callable[[dict[str, Any]], T | None]) -> T | None:
    """Read an answer that holds one JSON object of the right form.

    Code fences, prose around it, a thought before it and trailing commas are accepted.

    Args:
        read: The value of an object; None for one of another form.

    Returns:
        None where there is no such object, where two of them differ, and where any JSON in the text
        is broken, as it is when the answer was cut off.
    """
    values = json_values(THOUGHT.sub("", text))
    found = [read(value) for value in values or [] if isinstance(value, dict)]
    right = [value for value in found if value is not None]
    return right[0] if right and all(value == right[0] for value in right) else None


def json_values(text: str) -> list[Any] | None:
    """The JSON objects and arrays in a text, outermost ones; None if one of them is broken."""
    values, position = [], 0
    while begin := JSON_BEGINS.search(text, position):
        rest = text[begin.start() :]
        for candidate in (rest, _without_trailing_commas(rest)):
            try:
                value, length = DECODER.raw_decode(candidate)
                break
            except (ValueError, RecursionError):
                continue
        else:
            return None
        values.append(value)
        text, position = candidate, length
    return values


def read_score(value: Any) -> float | None:
    """A score as a number or as plain text, such as ``85`` or ``"85/100"``, if on the scale."""
    if isinstance(value, str) and (match := SCORE_TEXT.fullmatch(value.strip(" "))):
        value = float(match[1])
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    return float(value) if 0 <= value <= HIGHEST_SCORE else None


def parse_json(text: str) -> Any:
    """The value of a text that is JSON from its beginning to its end.

    Raises:
        ValueError: It is no JSON, nested too deeply, or a key stands twice; the message says where.
    """
    try:
        return DECODER.decode(text)
    except json.JSONDecodeError as error:
        raise ValueError(f"no JSON ({error.msg}, character {error.pos + 1})") from error
    except RecursionError as error:
        raise ValueError("no JSON that can be read (nested too deeply)") from error


def is_blank(text: str) -> bool:
    """Whether a text has nothing to see, such as white space and U+200B."""
    return all(unicodedata.category(character) in UNSEEN for character in text)


def declines(text: str) -> bool:
    """Whether a text begins as assistants decline a task."""
    return REFUSAL.match(text) is not None


def is_text(value: Any) -> bool:
    """Whether a value is text that all tools can store: no NUL, no half of a surrogate pair."""
    if not isinstance(value, str) or "\0" in value:
        return False
    try:
        value.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def _without_trailing_commas(text: str) -> str:
    return STRING_OR_TRAILING_COMMA.sub(lambda m: "" if m[0] == "," else m[0], text)


def _no_number(name: str) -> float:
    raise ValueError(f"{name} is no JSON number")


def _no_key_twice(items: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(items)
    if len(value) < len(items):
        raise ValueError("a key stands twice")
    return value


DECODER = json.JSONDecoder(parse_constant=_no_number, object_pairs_hook=_no_key_twice)
