"""What must not be trained on."""

from typing import Any

import numpy as np
import pandas as pd

from llamaduo.near_duplicates import NearDuplicates, Tokenizer, Tokens, similarity
from llamaduo.parameters import SynthesisParameters


def screen_pairs(
    parsed_pairs: pd.DataFrame,
    previous_training_set: pd.DataFrame | None,
    coverage_test: pd.DataFrame,
    coverage_holdout: pd.DataFrame,
    synthesis: SynthesisParameters,
) -> pd.DataFrame:
    """Drop what must not be trained on.

    Returns:
        ``ScreenedPairs``: every row, with the reason for which it was dropped. A row that fails
        several checks carries the first: schema, empty, copy of its seed, near-copy of a test or
        holdout prompt, near-duplicate.
    """
    reserved = pd.concat([coverage_test["prompt"], coverage_holdout["prompt"]])
    known = [] if previous_training_set is None else list(previous_training_set["prompt"])
    tokenizer = Tokenizer(list(reserved))
    prompts = [tokenizer.tokens(prompt) for prompt in parsed_pairs["prompt"]]
    seeds = [tokenizer.tokens(prompt) for prompt in parsed_pairs["seed_prompt"]]
    dropped = np.array([""] * len(parsed_pairs), dtype=object)

    def drop(failing: Any, reason: str) -> None:
        dropped[(dropped == "") & np.asarray(failing, dtype=bool)] = reason

    drop(parsed_pairs["unreadable"] != "", "schema")
    drop(parsed_pairs["prompt"].str.strip() == "", "empty")
    drop(parsed_pairs["response"].str.strip() == "", "empty")
    of_seed = [similarity(p, s) for p, s in zip(prompts, seeds, strict=True)]
    drop(np.array(of_seed) >= synthesis.max_similarity, "copy_of_seed")
    tests = NearDuplicates(synthesis.max_test_similarity, map(tokenizer.tokens, reserved))
    drop([tests.has(prompt) for prompt in prompts], "near_copy_of_test")
    kept = NearDuplicates(synthesis.max_similarity, map(tokenizer.tokens, known))
    repeated = [not why and _is_repeated(p, kept) for p, why in zip(prompts, dropped, strict=True)]
    drop(repeated, "near_duplicate")
    return parsed_pairs.drop(columns=["unreadable", "seed_prompt"]).assign(dropped=dropped)


def _is_repeated(text: Tokens, kept: NearDuplicates) -> bool:
    """Whether a text was there before; one that was not is added."""
    if kept.has(text):
        return True
    kept.add(text)
    return False
