"""How much the new pairs differ, and what of the task they reach: figures, not a word of a pair."""

from collections.abc import Sequence
from itertools import chain, pairwise
from typing import Any

import numpy as np
import pandas as pd
from rapidfuzz.distance import Indel
from rapidfuzz.process import cdist

from llamaduo.near_duplicates import Tokenizer, Tokens, signatures
from llamaduo.parameters import IterationParameters, SynthesisParameters

DRAWN = 50
"""Texts per draw: distinct-n falls with the amount of text, so that only equal amounts compare."""
DRAWS = 20
COMPARED = 200
"""New prompts whose nearest other is looked for."""
OTHERS = 20_000
"""Prompts among which it is looked for: about 40 s on 2 cores for prompts of 400 words."""
SEED = 1


def measure_diversity(
    training_set: pd.DataFrame,
    coverage_test: pd.DataFrame,
    synthesis: SynthesisParameters,
    iteration: IterationParameters,
) -> dict[str, Any]:
    """Measure how diverse the pairs of this iteration are; in the first they are the coverage set.

    Words are those of the near-duplicates: without the instruction that the prompts share.

    Returns:
        ``iteration``, ``new_pairs``, and figures from 0 to 1, null where too few pairs are new:
        ``prompt_distinct_1`` and ``_2``, ``response_distinct_1`` and ``_2``, see ``distinct``;
        ``nearest_distance``, see there; ``category_entropy`` (of the seeds: a new pair has no
        category of its own) and ``strategy_entropy``, see ``evenness``;
        ``test_reached`` and ``test_reached_if_alike``, of the whole training set, see ``reached``.
    """
    of_coverage = training_set[training_set["origin"] == "coverage"]
    tokenizer = Tokenizer.of_task(pd.concat([of_coverage, coverage_test]))
    prompts = [tokenizer.tokens(text) for text in training_set["prompt"]]
    is_new = (training_set["iteration"] == iteration.index).to_numpy()
    new = training_set[is_new]
    new_texts = {
        "prompt": [prompts[place] for place in np.flatnonzero(is_new)],
        "response": [tokenizer.tokens(text) for text in new["response"]],
    }
    test = signatures(tokenizer.tokens(text) for text in coverage_test["prompt"])
    return {
        "iteration": iteration.index,
        "new_pairs": len(new),
        **{
            f"{name}_distinct_{length}": distinct(texts, length)
            for name, texts in new_texts.items()
            for length in (1, 2)
        },
        "nearest_distance": nearest_distance(prompts, is_new),
        "category_entropy": evenness(training_set["category"], is_new),
        "strategy_entropy": evenness(_strategies(training_set["prompt_version"]), is_new),
        "test_reached": reached(test, signatures(prompts), synthesis.max_test_similarity),
        "test_reached_if_alike": reached_if_alike(len(test), len(prompts)),
    }


def distinct(texts: Sequence[Tokens], length: int) -> float | None:
    """Share of different ones among the words (length 1) or the pairs of words in a row (2).

    Distinct-n of Li et al. 2016, but per n-gram and not per word, so that 1 means that none occurs
    twice; over seeded draws of 50 texts. Null for fewer.
    """
    if len(texts) < DRAWN:
        return None
    rng = np.random.default_rng(SEED)
    different = total = 0
    for _ in range(DRAWS):
        drawn = [texts[place] for place in rng.choice(len(texts), DRAWN, replace=False)]
        runs = list(chain.from_iterable(text if length == 1 else pairwise(text) for text in drawn))
        different += len(set(runs))
        total += len(runs)
    return different / total if total else None


def nearest_distance(prompts: Sequence[Tokens], is_new: np.ndarray) -> float | None:
    """Mean distance, 1 − ROUGE-L F1, of a new prompt to the nearest other one of all.

    Of 200 seeded new prompts among 20,000 seeded others where there are more; the others are old
    and new, so that it falls as the set grows. Null without a new prompt or without another one.
    """
    places = np.flatnonzero(is_new)
    if not len(places) or len(prompts) < 2:
        return None
    rng = np.random.default_rng(SEED)
    chosen = rng.choice(places, min(COMPARED, len(places)), replace=False)
    others = rng.choice(len(prompts), min(OTHERS, len(prompts)), replace=False)
    texts, other_texts = ([prompts[place] for place in which] for which in (chosen, others))
    similarities = cdist(texts, other_texts, scorer=Indel.normalized_similarity, workers=-1)
    similarities[chosen[:, None] == others] = 0  # to itself
    return float(1 - similarities.max(axis=1).mean())


def evenness(kinds: pd.Series, is_new: np.ndarray) -> float | None:
    """Entropy of the new pairs over all kinds so far, divided by its maximum (Pielou 1966).

    1 means as many of each kind, 0 all of one. Null where nothing is new, or one kind is known.
    """
    from scipy.stats import entropy

    known = kinds[kinds != ""].unique()
    counts = kinds[is_new].value_counts().reindex(known, fill_value=0)
    if len(known) < 2 or not counts.any():
        return None
    return float(entropy(counts, base=len(known)))


def reached(test: np.ndarray, training: np.ndarray, copy_similarity: float) -> float | None:
    """Share of the test prompts whose neighbourhood the training prompts have reached.

    The neighbourhood of a test prompt ends at the nearest other test prompt: the coverage of Naeem
    et al. 2020 for k = 1, here by estimated Jaccard similarity. Of several prompts that are the
    nearest, those of the training set count in part. What may be a copy of the test prompt is no
    neighbour, since no copy is trained on either. Null where there is one test prompt.

    Args:
        test: MinHash signatures, one row a prompt, and so is ``training``.
        copy_similarity: ROUGE-L F1 from which a prompt is a copy.
    """
    if len(test) < 2:
        return None
    copy_jaccard = copy_similarity / (2 - copy_similarity)
    share = 0.0
    for signature in test:
        to_test, to_training = ((rows == signature).mean(axis=1) for rows in (test, training))
        to_test[to_test >= copy_jaccard] = 0  # to itself, too
        highest = max(to_test.max(), to_training.max())
        if highest > 0:
            of_test, of_training = ((to == highest).sum() for to in (to_test, to_training))
            share += of_training / (of_test + of_training)
    return float(share / len(test))


def reached_if_alike(test: int, training: int) -> float | None:
    """The share to expect if the training prompts were drawn as the test prompts were.

    Of all prompts but one, each is as likely as another to be the nearest to it (Naeem et al. 2020,
    for k = 1).
    """
    return training / (training + test - 1) if test > 1 else None


def _strategies(prompt_versions: pd.Series) -> pd.Series:
    return prompt_versions.str.rpartition("-")[0]
