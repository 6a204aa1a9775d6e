"""Cards as Hugging Face has them: Markdown with front matter."""

import re
from pathlib import Path
from typing import Any

from huggingface_hub import CardData
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

SPACE = re.compile(r"\s+")
MARKUP = re.compile(r"([\\`*_{}\[\]<>|&~$#!])")


def write_card(template: Path, front_matter: CardData, values: dict[str, Any]) -> str:
    """Fill a template of Markdown; values are shown as they are, and no markup."""
    environment = Environment(  # noqa: S701  # Markdown, which finalize escapes
        loader=FileSystemLoader(template.parent, encoding="utf-8"),
        undefined=StrictUndefined,
        finalize=_as_text,
        trim_blocks=True,
        keep_trailing_newline=True,
    )
    body = environment.get_template(template.name).render(values)
    return f"---\n{front_matter.to_yaml()}\n---\n\n{body}"


def _as_text(value: Any) -> str:
    """A value as Markdown shows it, on one line, whatever is in it; Markup is ours."""
    if isinstance(value, Markup):
        return str(value)
    return MARKUP.sub(r"\\\1", SPACE.sub(" ", str(value)))
