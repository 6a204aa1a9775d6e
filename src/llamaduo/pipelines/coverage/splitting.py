"""Three splits of the user's pairs, with near-duplicates in one of them."""

import logging
from collections import Counter
from collections.abc import Iterator, Sequence

import numpy as np
import pandas as pd
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from llamaduo.errors import InputError
from llamaduo.near_duplicates import NearDuplicates, Quotations, Tokenizer
from llamaduo.parameters import CoverageParameters, EvaluationParameters, Shares

logger = logging.getLogger(__name__)

FAR_OFF = 0.1
"""Of what a split should get: a shortfall from which the user is told."""
SHOWN = 5
"""Categories that a warning names."""


def assign_splits(
    coverage_pairs: pd.DataFrame, coverage: CoverageParameters, evaluation: EvaluationParameters
) -> pd.DataFrame:
    """Share the pairs out among train, test and holdout.

    Near-duplicates and prompts that quote each other, also over several steps, stay together.
    Within each category, and over all, the splits are as near to their shares as whole groups
    allow.

    Returns:
        ``SplitPairs``.

    Raises:
        InputError: There are fewer than three groups, so that a split would be empty.
    """
    groups = group_near_duplicates(coverage_pairs, coverage.max_similarity)
    split = share_out(groups, list(coverage_pairs["category"]), coverage.shares, coverage.seed)
    split_pairs = coverage_pairs.assign(group=groups, split=[split[group] for group in groups])
    _say_what_came(split_pairs, coverage.shares, evaluation.min_prompts)
    return split_pairs


def group_near_duplicates(pairs: pd.DataFrame, max_similarity: float) -> list[int]:
    """The number of each prompt's group, from 1 in the order of their first prompts.

    A prompt that quotes another one is in its group too: in different splits they would be copies
    to the checks of data_synthesis.
    """
    tokenizer = Tokenizer.of_task(pairs)
    texts = [tuple(tokenizer.tokens(prompt)) for prompt in pairs["prompt"]]
    number = {text: n for n, text in enumerate(dict.fromkeys(texts))}
    known = NearDuplicates(max_similarity)
    quotations = Quotations([list(text) for text in number])
    links: list[tuple[int, int]] = []
    for text, n in number.items():
        links += [(n, other) for other in (*known.of(list(text)), *quotations.of(list(text)))]
        known.add(list(text))
    one, other = np.array(links, dtype=int).reshape(-1, 2).T
    graph = coo_array((np.ones(len(one)), (one, other)), shape=(len(number), len(number)))
    _, group = connected_components(graph, directed=False)
    return [int(group[number[text]]) + 1 for text in texts]


def share_out(
    groups: Sequence[int], categories: Sequence[str], shares: Shares, seed: int
) -> dict[int, str]:
    """The split of each group.

    Each category's pairs are owed to the splits by their shares. Group by group, large ones first,
    goes to the split that is owed most; what a category leaves owing passes on to the next.

    Raises:
        InputError: There are fewer than three groups.
    """
    sizes = Counter(groups)
    if len(sizes) < 3:
        raise InputError(
            f"{len(groups)} pairs of {len(sizes)} kind(s), expected 3 at least: train, test and "
            "holdout each need a prompt that is no near-duplicate of the others' "
            "(coverage.max_similarity)"
        )
    owed = dict.fromkeys(shares.of(1), 0.0)
    empty = list(owed)
    split: dict[int, str] = {}
    for stratum in _strata(groups, categories, seed):
        for name, due in shares.of(sum(sizes[group] for group in stratum)).items():
            owed[name] += due
        for group in stratum:
            last_chance = len(sizes) - len(split) <= len(empty)
            choice = max(empty if last_chance else owed, key=lambda name: owed[name])
            split[group] = choice
            owed[choice] -= sizes[group]
            empty = [name for name in empty if name != choice]
    return split


def _strata(groups: Sequence[int], categories: Sequence[str], seed: int) -> list[list[int]]:
    """The groups of each category in an order drawn anew by the seed, but large ones first."""
    of_group: dict[int, Counter[str]] = {}
    for group, category in zip(groups, categories, strict=True):
        of_group.setdefault(group, Counter())[category] += 1
    drawn = np.random.default_rng(seed).permutation(list(of_group)).tolist()
    strata: dict[str, list[int]] = {}
    for group in sorted(drawn, key=lambda group: -of_group[group].total()):
        (category, _), *_ = of_group[group].most_common(1)
        strata.setdefault(category, []).append(group)
    return list(strata.values())


def _say_what_came(split_pairs: pd.DataFrame, shares: Shares, min_prompts: int) -> None:
    sizes = split_pairs["split"].value_counts()
    wanted = shares.of(len(split_pairs))
    logger.info("pairs: %s", ", ".join(f"{sizes[name]} {name}" for name in wanted))
    if any(sizes[name] < count * (1 - FAR_OFF) - 1 for name, count in wanted.items()):
        logger.warning(
            "wanted were %s: prompts that are alike, or quote each other, stay together, and the "
            "largest group of them has %d pairs",
            ", ".join(f"{count:.0f} {name}" for name, count in wanted.items()),
            split_pairs["group"].value_counts().max(),
        )
    if short := list(_short_categories(split_pairs, shares)):
        more = f"; and {len(short) - SHOWN} more, see coverage_report" if short[SHOWN:] else ""
        logger.warning(
            "few of a category, which is shared out as evenly as its groups of prompts that are "
            "alike, or quote each other, allow: %s%s",
            "; ".join(short[:SHOWN]),
            more,
        )
    if sizes["test"] < min_prompts:
        logger.warning(
            "%d test prompts are fewer than %d (evaluation.min_prompts): every verdict will be "
            "advisory, since so few leave much to chance",
            sizes["test"],
            min_prompts,
        )


def _short_categories(split_pairs: pd.DataFrame, shares: Shares) -> Iterator[str]:
    """Categories of which a split got less than half of what it was to get."""
    for category, pairs in split_pairs.groupby("category"):
        came = pairs["split"].value_counts()
        missing = [
            f"{came.get(name, 0)} in {name} where {count:.0f} were wanted"
            for name, count in shares.of(len(pairs)).items()
            if round(count) and came.get(name, 0) < count / 2
        ]
        if missing:
            yield (
                f"{category!r} with {len(pairs)} pairs in {pairs['group'].nunique()} group(s) has "
                f"{' and '.join(missing)}"
            )
