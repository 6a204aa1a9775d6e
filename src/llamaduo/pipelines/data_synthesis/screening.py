"""What must not be trained on."""

from typing import Any

import numpy as np
import pandas as pd

from llamaduo.parameters import SynthesisParameters
from llamaduo.pipelines.data_synthesis.near_duplicates import Tokens, similarities


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
    tokens = Tokens(list(reserved))
    prompts = [tokens.of(prompt) for prompt in parsed_pairs["prompt"]]
    seeds = [tokens.of(prompt) for prompt in parsed_pairs["seed_prompt"]]
    dropped = np.array([""] * len(parsed_pairs), dtype=object)

    def drop(failing: Any, reason: str) -> None:
        dropped[(dropped == "") & np.asarray(failing, dtype=bool)] = reason

    drop(parsed_pairs["unreadable"] != "", "schema")
    drop(parsed_pairs["prompt"].str.strip() == "", "empty")
    drop(parsed_pairs["response"].str.strip() == "", "empty")
    if prompts:
        of_seed = [similarities([p], [s])[0, 0] for p, s in zip(prompts, seeds, strict=True)]
        drop(np.array(of_seed) >= synthesis.max_similarity, "copy_of_seed")
        of_test = similarities(prompts, [tokens.of(text) for text in reserved])
        drop(of_test.max(axis=1) >= synthesis.max_test_similarity, "near_copy_of_test")
        open_rows = [row for row in range(len(prompts)) if dropped[row] == ""]
        repeated = _near_duplicates(
            [prompts[row] for row in open_rows],
            [tokens.of(text) for text in known],
            synthesis.max_similarity,
        )
        dropped[[open_rows[position] for position in repeated]] = "near_duplicate"
    return parsed_pairs.drop(columns=["unreadable", "seed_prompt"]).assign(dropped=dropped)


def _near_duplicates(
    texts: list[list[int]], known: list[list[int]], max_similarity: float
) -> list[int]:
    """Positions of the texts that repeat a known text or an earlier one that is kept itself."""
    if not texts:
        return []
    among = similarities(texts, texts) >= max_similarity
    repeated = np.zeros(len(texts), dtype=bool)
    if known:
        repeated |= (similarities(texts, known) >= max_similarity).any(axis=1)
    for position in range(len(texts)):
        if not repeated[position]:
            repeated[position + 1 :] |= among[position, position + 1 :]
    return list(np.flatnonzero(repeated))
