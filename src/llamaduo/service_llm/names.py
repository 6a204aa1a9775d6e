"""Names of people and places, by a spaCy model behind Presidio (the extra ``pii``)."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

from llamaduo.service_llm.details import BREAK, TAKEN, Detail
from llamaduo.service_llm.repetitions import WORD
from llamaduo.service_llm.surrogates import KINDS

if TYPE_CHECKING:
    from presidio_analyzer import AnalyzerEngine

FOUND = {"PERSON": "name", "LOCATION": "place"}
"""Presidio's LOCATION is spaCy's GPE and LOC."""
LONGEST_ACRONYM = 5
LANGUAGE = "xx"
"""The name under which Presidio keeps the model, whose own language is in the model."""


def find_names(text: str, model: str) -> list[Detail]:
    """The words of each name, but for what may be an acronym, which models take for names.

    Args:
        text: What ``find_details`` has left.
        model: Name or folder of the spaCy model.
    """
    plain = text.replace(TAKEN, " ").replace(BREAK, " ")
    found = _analyzer(model).analyze(plain, language=LANGUAGE, entities=list(FOUND))
    details = {
        word.span(): Detail(kind, *word.span(), word[0].casefold())
        for each in found
        for word in WORD.finditer(text, each.start, each.end)
        if not KINDS[kind := FOUND[each.entity_type]].is_surrogate(word[0].casefold())
        and not (word[0].isupper() and len(word[0]) <= LONGEST_ACRONYM)
    }
    return list(details.values())


@cache
def _analyzer(model: str) -> AnalyzerEngine:
    """Presidio with the one recogniser that finds names; its other ones ask the net."""
    from presidio_analyzer import AnalyzerEngine, RecognizerRegistry
    from presidio_analyzer.nlp_engine import NlpEngineProvider
    from presidio_analyzer.predefined_recognizers import SpacyRecognizer

    models = [{"lang_code": LANGUAGE, "model_name": model}]
    engine = NlpEngineProvider(
        nlp_configuration={"nlp_engine_name": "spacy", "models": models}
    ).create_engine()
    registry = RecognizerRegistry(
        recognizers=[SpacyRecognizer(supported_language=LANGUAGE)], supported_languages=[LANGUAGE]
    )
    return AnalyzerEngine(nlp_engine=engine, registry=registry, supported_languages=[LANGUAGE])
