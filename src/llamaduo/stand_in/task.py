"""The one task that the stand-in knows: a support ticket in, its four labels as JSON out."""

import json
import random
import re
from dataclasses import dataclass
from importlib.resources import files
from typing import Any

import yaml

from llamaduo.stand_in.grammar import draw, draw_complaint, roughen, sentence

INSTRUCTION = "Triage this support ticket as JSON."
FIELDS = ("category", "priority", "product", "reference")
CATEGORIES = ("billing", "login", "delivery", "return", "bug", "cancel", "feature", "security")
# Near-balanced: where half of the tickets were "normal", a small model stayed on that label.
PRIORITIES = {"high": 0.33, "normal": 0.37, "low": 0.30}
CATALOGUE = ("Nimbra", "Quillow", "Daybly", "Pixoro", "Orbitel", "Auralo", "Glowra", "Kettra")


@dataclass(frozen=True)
class Ticket:
    """A customer's ticket and its labels by the policy."""

    text: str
    category: str
    priority: str
    product: str
    reference: str

    @property
    def labels(self) -> dict[str, str]:
        """The four fields in the order of the response."""
        return {field: getattr(self, field) for field in FIELDS}

    def pair(self) -> dict[str, str]:
        """The prompt and response of a coverage pair."""
        return {"prompt": f"{INSTRUCTION}\n{self.text}", "response": as_response(self.labels)}


def as_response(labels: dict[str, str]) -> str:
    """The labels in the compact form that the task asks for."""
    return json.dumps(labels, separators=(",", ":"))


def make_ticket(
    rng: random.Random, category: str | None = None, priority: str | None = None
) -> Ticket:
    """A new ticket of the grammar; a label that is not given is drawn."""
    category = category or rng.choice(CATEGORIES)
    priority = priority or rng.choices(list(PRIORITIES), list(PRIORITIES.values()))[0]
    complaint, product = draw_complaint(rng, category)
    reference = _make_reference(rng) if rng.random() < 0.38 else "none"
    body = " ".join(_sentences(rng, complaint, category, priority, reference))
    text = _greet(rng, body, reference)
    kept = {product, reference} - {"none"}
    return Ticket(roughen(rng, text, kept), category, priority, product, reference)


def _sentences(
    rng: random.Random, complaint: str, category: str, priority: str, reference: str
) -> list[str]:
    core, cue = complaint, _cue(rng, priority)
    apart = reference != "none" and rng.random() < 0.4
    if reference != "none" and not apart:
        core = draw(rng, "references", "joined", core=core, reference=reference)
    if priority != "normal" and rng.random() < 0.15:
        core, cue = draw(rng, "joins", priority, core=core, cue=cue), ""
    parts = [core]
    if rng.random() < 0.25:
        parts.append(draw(rng, "details", category))
    if rng.random() < 0.16:
        parts.insert(rng.choice([0, len(parts)]), draw(rng, "contexts", "any"))
    # Anger and waiting occur at every priority: they are no sign of it.
    if priority != "normal" and rng.random() < 0.15:
        parts.append(draw(rng, "cues", "normal"))
    if apart:
        parts.append(draw(rng, "references", "apart", reference=reference))
    if cue:
        parts.insert(0 if rng.random() < 0.25 else len(parts), cue)
    return [sentence(rng, part, may_ask=part is core) for part in parts]


def _cue(rng: random.Random, priority: str) -> str:
    if priority == "normal" and rng.random() < 0.4:
        return ""
    return draw(rng, "cues", priority)


def _make_reference(rng: random.Random) -> str:
    if rng.random() < 0.3:
        return f"#{rng.randint(100, 99999)}"
    letters = "".join(rng.choices("ABCDEFGHKLMNPRSTVXZ", k=rng.randint(2, 3)))
    prefix = rng.choice([draw(rng, "references", "prefixes"), letters])
    return f"{prefix}-{rng.randint(10, 99999)}"


def _greet(rng: random.Random, text: str, reference: str) -> str:
    if rng.random() < 0.4:
        opener, first = draw(rng, "openers", "any"), text.partition(" ")[0]
        fixed = first == "I" or first.startswith("I'") or (first.isupper() and len(first) > 1)
        if opener[-1] not in ".!" and not fixed and reference not in first:
            text = text[0].lower() + text[1:]
        text = f"{opener} {text}"
    return f"{text} {draw(rng, 'closers', 'any')}" if rng.random() < 0.35 else text


_RULES: dict[str, Any] = yaml.safe_load(
    files("llamaduo.stand_in").joinpath("rules.yml").read_text("utf-8")
)


def answer(ticket_text: str) -> dict[str, str]:
    """The labels of a ticket by the rules of ``rules.yml``."""
    text = ticket_text.replace("\u2019", "'")
    product = next((name for name in CATALOGUE if _found(rf"\b{name}\b", text)), "none")
    reference = re.search(_RULES["reference"], ticket_text)
    return {
        "category": _category(text),
        "priority": _priority(text),
        "product": product,
        "reference": reference[0] if reference else "none",
    }


def _found(pattern: str, text: str) -> bool:
    return re.search(pattern, text, re.IGNORECASE) is not None


def _category(text: str) -> str:
    points: dict[str, int] = {
        category: sum(
            worth
            for worth, patterns in signs.items()
            for pattern in patterns.splitlines()
            if _found(pattern, text)
        )
        for category, signs in _RULES["category"].items()
    }
    best = max(points, key=points.__getitem__)
    return best if points[best] else list(points)[-1]


def _priority(text: str) -> str:
    for moment in _RULES["priority"]["no_sign"].splitlines():
        text = re.sub(moment, " ", text, flags=re.IGNORECASE)
    for priority in ("low", "high"):
        if any(_found(sign, text) for sign in _RULES["priority"][priority].splitlines()):
            return priority
    return "normal"
