"""Text that goes to a service LLM and comes back."""

import json
import re
from typing import Any

PLACEHOLDER = re.compile(r"\{\{\s*(\w+)\s*\}\}")
FENCE = re.compile(r"\A\s*```(?:json)?\s*\n(.*)\n\s*```\s*\Z", re.DOTALL)


class PromptError(ValueError):
    """A prompt text names a placeholder that nothing fills."""


def fill(template: str, values: dict[str, str]) -> str:
    """Replace ``{{ name }}`` in one pass, so that placeholders inside the data stay data.

    Raises:
        PromptError: The text names an unknown placeholder, or leaves one out.
    """
    named = set(PLACEHOLDER.findall(template))
    if named != set(values):
        raise PromptError(
            f"the prompt text has the placeholders {sorted(named)}, expected {sorted(values)}"
        )
    return PLACEHOLDER.sub(lambda match: values[match.group(1)], template)


def json_object(text: str) -> dict[str, Any] | None:
    """Read a reply that is one JSON object, bare or in a code fence; None for anything else."""
    fenced = FENCE.match(text)
    try:
        value = json.loads(fenced.group(1) if fenced else text, parse_constant=_no_number)
    except ValueError:
        return None
    return value if isinstance(value, dict) else None


def _no_number(name: str) -> float:
    raise ValueError(f"{name} is no JSON number")
