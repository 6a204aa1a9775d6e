"""Where the next synthesis should aim, said without a word of the test set."""

import numpy as np
import pandas as pd
from rapidfuzz.distance import Indel
from rapidfuzz.process import cdist

from llamaduo.near_duplicates import Tokenizer
from llamaduo.schemas import WeakSpots
from llamaduo.service_llm.text import HIGHEST_SCORE

NEIGHBOURS = 3
"""Coverage-train pairs that share the weight of a test prompt."""


def find_weak_spots(
    scores: pd.DataFrame, coverage_test: pd.DataFrame, coverage_train: pd.DataFrame
) -> pd.DataFrame:
    """Hand the points that each test prompt missed on to the coverage-train pairs nearest to it.

    Nearest by ROUGE-L of the prompts, in the test prompt's own category where coverage-train has
    it. A prompt that was not judged weighs nothing.

    Returns:
        ``WeakSpots``, one row per coverage-train pair that has any weight; empty where nothing was
        missed.
    """
    missed = coverage_test["id"].map(HIGHEST_SCORE - scores.set_index("id")["precision"])
    lost = missed.fillna(0.0).to_numpy(dtype=float)
    if not lost.any():
        return WeakSpots.empty()
    tokenizer = Tokenizer.of_task(pd.concat([coverage_train, coverage_test]))
    texts = [
        [tokenizer.tokens(text) for text in split["prompt"]]
        for split in (coverage_test, coverage_train)
    ]
    nearness = cdist(*texts, scorer=Indel.normalized_similarity, workers=-1)
    same = coverage_test["category"].to_numpy()[:, None] == coverage_train["category"].to_numpy()
    nearness += same  # a neighbour of the same category is nearer than any other
    nearest = np.argsort(-nearness, axis=1, kind="stable")[:, :NEIGHBOURS]
    points = np.zeros(len(coverage_train))
    np.add.at(points, nearest, lost[:, None] / nearest.shape[1])
    by_category = missed.groupby(coverage_test["category"]).mean()
    spots = pd.DataFrame(
        {
            "seed_id": coverage_train["id"],
            "category": coverage_train["category"],
            "category_weight": coverage_train["category"].map(by_category).fillna(0.0)
            / HIGHEST_SCORE,
            "weight": points / lost.sum(),
        }
    )
    return spots[spots["weight"] > 0].reset_index(drop=True)
