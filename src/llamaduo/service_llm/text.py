"""Text that goes to a service LLM and comes back."""

import json
import re
from typing import Any

PLACEHOLDER = re.compile(r"\{\{\s*(\w+)\s*\}\}")
FENCE = re.compile(r"\A\s*```(?:json)?\s*\n(.*)\n\s*```\s*\Z", re.DOTALL)


def placeholders_of(template: str) -> set[str]:
    """The names in ``{{ braces }}``."""
    return set(PLACEHOLDER.findall(template))


def fill(template: str, values: dict[str, str]) -> str:
    """Replace ``{{ name }}`` in one pass, so that placeholders inside the data stay data."""
    return PLACEHOLDER.sub(lambda match: values[match.group(1)], template)


def json_object(text: str) -> dict[str, Any] | None:
    """Read a reply that is one JSON object, bare or in a code fence; None for anything else."""
    fenced = FENCE.match(text)
    try:
        value = json.loads(fenced.group(1) if fenced else text, parse_constant=_no_number)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def is_text(value: Any) -> bool:
    """Whether a value is text that can be stored: half a surrogate pair cannot."""
    try:
        return isinstance(value, str) and value.encode("utf-8") is not None
    except UnicodeEncodeError:
        return False


def _no_number(name: str) -> float:
    raise ValueError(f"{name} is no JSON number")
