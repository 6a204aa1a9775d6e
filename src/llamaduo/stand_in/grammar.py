"""Draws phrases from ``grammar.yml`` and roughens them as real tickets are."""

import random
import re
from importlib.resources import files
from typing import Any

import yaml

GRAMMAR: dict[str, Any] = yaml.safe_load(
    files("llamaduo.stand_in").joinpath("grammar.yml").read_text(encoding="utf-8")
)

_CHOICE = re.compile(r"\{([^{}]*)\}")
_PLACE = re.compile(r"<(\w+)>")
_QUESTION = re.compile(
    r"(how|where|why|what|when|which|can|could|is|does|do|are|would|will|may|might|have|has|did)\b",
    re.IGNORECASE,
)
# What a writer in a second language tends to leave out.
_SMALL_WORDS = {"the", "a", "an", "is", "are", "has", "have", "been", "to"}


def draw(rng: random.Random, *path: str, **parts: str) -> str:
    """One phrase of the table at ``path``, its choices drawn and its places filled."""
    table: Any = GRAMMAR
    for key in path:
        table = table[key]
    phrases = table.splitlines() if isinstance(table, str) else table
    return fill(rng, expand(rng, rng.choice(phrases)), parts)


def expand(rng: random.Random, pattern: str) -> str:
    """Draw one branch of every ``{a|b}``, the innermost first."""
    while found := _CHOICE.search(pattern):
        branch = rng.choice(found[1].split("|"))
        pattern = pattern[: found.start()] + branch + pattern[found.end() :]
    return pattern


def fill(rng: random.Random, text: str, parts: dict[str, str]) -> str:
    """Put the part ``name``, or else a word of the slot ``name``, in every ``<name>``."""

    def filling(place: re.Match[str]) -> str:
        return parts.get(place[1]) or str(rng.choice(GRAMMAR["slots"][place[1]]))

    return _PLACE.sub(filling, text)


def draw_complaint(rng: random.Random, category: str) -> tuple[str, str]:
    """A complaint of the category and the product that it names, or ``none``."""
    pattern = expand(rng, rng.choice(GRAMMAR["complaints"][category].splitlines()))
    places = GRAMMAR["mentions"].keys() & set(_PLACE.findall(pattern))
    product = _draw_product(rng, category, places)
    parts = {
        place: _mention(rng, product) if product != "none" else rng.choice(mention["generic"])
        for place, mention in GRAMMAR["mentions"].items()
    }
    parts["fault"] = rng.choice(GRAMMAR["faults"].get(product, GRAMMAR["faults"]["other"]))
    text = fill(rng, pattern, parts)
    if product == "none" or places:
        return text, product
    aside = {"core": text, "name": product, "mention": _mention(rng, product)}
    return draw(rng, "asides", "any", **aside), product


def _draw_product(rng: random.Random, category: str, places: set[str]) -> str:
    if rng.random() >= (0.6 if places else 0.2):
        return "none"
    if not places:
        return str(rng.choice(GRAMMAR["beside"][category]))
    fitting = [set(GRAMMAR["mentions"][place]["products"]) for place in places]
    # Sorted: the order of a set of strings changes from process to process.
    products = sorted(set.intersection(*fitting))
    return rng.choice(products) if products else "none"


def _mention(rng: random.Random, product: str) -> str:
    kind = rng.choice(GRAMMAR["kinds"][product])
    return draw(rng, "products", product, name=product, kind=kind)


def sentence(rng: random.Random, text: str, *, may_ask: bool = False) -> str:
    """The text with a capital and an end mark; ``may_ask`` lets that be a question mark."""
    text = " ".join(text.split()).strip(" ,")
    if text[-1] in ".!?":
        return text[0].upper() + text[1:]
    if may_ask and _QUESTION.match(text) and rng.random() < 0.8:
        return text[0].upper() + text[1:] + "?"
    mark = rng.choices([".", "!", "...", "!!"], [82, 11, 4, 3])[0]
    return text[0].upper() + text[1:] + mark


def roughen(rng: random.Random, text: str, kept: set[str]) -> str:
    """Add typos, abbreviations, lost small words and one-case writing.

    Words that hold something ``kept`` lose no letter; one with a digit (a reference) keeps its
    case too.
    """
    words = text.split(" ")
    safe = {word for word in words if any(part.lower() in word.lower() for part in kept)}
    if rng.random() < 0.07:
        words = [w for w in words if w in safe or w not in _SMALL_WORDS or rng.random() < 0.4]
    if rng.random() < 0.12:
        rate = rng.choice([0.04, 0.1])
        words = [w if w in safe or rng.random() > rate else _mistype(rng, w) for w in words]
    if rng.random() < 0.08:
        words = [w if w in safe else GRAMMAR["abbreviations"].get(w, w) for w in words]
    words = _recase(rng, words, {word for word in safe if any(c.isdigit() for c in word)})
    text = " ".join(words)
    return re.sub(r"[.,](?=\s|$)", "", text) if rng.random() < 0.08 else text


def _mistype(rng: random.Random, word: str) -> str:
    if len(word) < 4 or not word.isalpha():
        return word
    at = rng.randrange(1, len(word) - 1)
    dropped = word[:at] + word[at + 1 :]
    doubled = word[:at] + word[at] + word[at:]
    swapped = word[:at] + word[at + 1] + word[at] + word[at + 2 :]
    return rng.choice([dropped, doubled, swapped])


def _recase(rng: random.Random, words: list[str], codes: set[str]) -> list[str]:
    style = rng.random()
    if style < 0.14:
        return [word if word in codes else word.lower() for word in words]
    if style < 0.19:
        return [word if word in codes else word.upper() for word in words]
    return words
