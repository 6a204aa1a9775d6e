"""What a reader of the training set must know of it, as a dataset card of Hugging Face."""

from collections import Counter
from collections.abc import Hashable
from pathlib import Path
from typing import Any

import pandas as pd
from huggingface_hub import DatasetCardData

from llamaduo.cards import write_card
from llamaduo.languages import languages_of
from llamaduo.parameters import SynthesisParameters

TEMPLATE = Path(__file__).with_name("templates") / "data_card.md"
PROVENANCE = ["origin", "teacher", "model", "prompt_version", "iteration"]
READ = 2000
"""Prompts by which the languages are told."""

SIZES = {
    "n<1K": 10**3,
    "1K<n<10K": 10**4,
    "10K<n<100K": 10**5,
    "100K<n<1M": 10**6,
    "1M<n<10M": 10**7,
    "10M<n<100M": 10**8,
}
"""The Hub's name of a size: the pairs that are too many for it."""

MEANINGS = {
    "schema": "could not be read, or its request failed",
    "empty": "had no text",
    "refusal": "its response declined the task",
    "fails_check": "failed the task's own check",
    "too_long": "too long for the local LLM",
    "wrong_language": "in a language that the task does not use",
    "copy_of_seed": "repeated the pair that was shown",
    "near_duplicate": "repeated a known pair",
    "near_copy_of_test": "repeated or quoted a test or holdout prompt",
    "poor": "scored too low with the judge",
    "not_best": "the judge preferred another one",
    "unjudged": "got no score from the judge",
    "unbalanced": "would have tied a label to a group of people",
}


def write_data_card(
    training_set: pd.DataFrame,
    synthesis_report: dict[str, Any],
    previous_iteration_history: list[dict[str, Any]] | None,
    synthesis: SynthesisParameters,
) -> str:
    """Tell where the pairs come from, what was dropped, and what may stand against their use.

    Returns:
        Markdown with front matter (hub-docs, datasetcard.md); it holds counts, no text of a pair.
    """
    previous = [entry["synthesis"] for entry in previous_iteration_history or []]
    dropped: Counter[str] = Counter()
    for report in [*previous, synthesis_report]:
        dropped.update(report["dropped"])
    left_out = synthesis_report["coverage_left_out"]
    own = training_set[training_set["origin"] != "synthetic"]
    prompts = training_set["prompt"]
    languages = sorted(languages_of(prompts.sample(min(READ, len(prompts)), random_state=0)))
    teachers = sorted(set(training_set["teacher"]) - {""})
    values = {
        "pairs": len(training_set),
        "iteration": synthesis_report["iteration"],
        "stand_ins": [name for name in teachers if "stand-in" in name],
        "providers": [name for name in teachers if "stand-in" not in name],
        "shares": _counted(training_set, PROVENANCE),
        "columns": list(training_set.columns),
        "dropped": sorted(dropped.items()),
        "left_out": sorted(left_out.items()),
        "meanings": MEANINGS,
        "copies": dropped["near_copy_of_test"] + left_out.get("near_copy_of_test", 0),
        "max_test_similarity": synthesis.max_test_similarity,
        "languages": languages,
        "privacy": synthesis_report["privacy"],
        "licences": _counted(own, ["licence", "source"]),
    }
    front_matter = _front_matter(len(training_set), languages, own)
    return write_card(TEMPLATE, front_matter, values)


def _front_matter(pairs: int, languages: list[str], own: pd.DataFrame) -> DatasetCardData:
    """The metadata that the Hub reads; ``own`` are the pairs that no teacher wrote."""
    is_stated = bool((own["licence"] != "").all())
    several = "multilingual" if len(languages) > 1 else "monolingual"
    return DatasetCardData(
        pretty_name="Training set of a llamaduo loop",
        language=languages or None,
        # Several licences and a provider's terms may hold at once, so that none of the Hub's does.
        license="other" if is_stated else "unknown",
        license_name="stated-per-pair" if is_stated else None,
        multilinguality=several if languages else None,
        size_categories=[next(name for name, limit in SIZES.items() if pairs < limit)],
        task_categories=["text-generation"],
        tags=["synthetic", "llamaduo"],
    )


def _counted(rows: pd.DataFrame, columns: list[str]) -> list[dict[Hashable, Any]]:
    """How many rows have each combination of values, an empty one for what is null."""
    filled = rows[columns].astype(object).fillna("")
    counts = filled.value_counts(sort=False).sort_index().rename("pairs").reset_index()
    return counts.to_dict("records")
