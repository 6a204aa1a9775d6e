"""Which coverage pairs are shown to the service LLM: a walk through all of them, and an aim."""

from collections.abc import Mapping
from math import ceil
from typing import Any

import numpy as np
import pandas as pd

from llamaduo.errors import InputError
from llamaduo.parameters import SynthesisParameters
from llamaduo.pipelines.data_synthesis.reading import BEFORE_FIRST, pairs_to_ask
from llamaduo.schemas import Seeds, Yields
from llamaduo.service_llm.failures import Failure

AIMED = 0
"""The turn of a seed that was drawn by its weakness."""
EVIDENCE = 8
"""Pairs as good as the average that each seed and strategy begins with, so that one bad request
says little."""
LEAST_WEIGHT = 0.1
"""So that what has yielded nothing can still show that it has changed."""
NOT_ITS_FAULT = (Failure.GAVE_UP, Failure.OVER_BUDGET)
"""Failures of the endpoint or the budget."""


def choose_seeds(
    screened_coverage: pd.DataFrame,
    ready_pairs: pd.DataFrame,
    synthesis_prompts: dict[str, str],
    previous_synthesis_report: dict[str, Any] | None,
    previous_training_set: pd.DataFrame | None,
    previous_weak_spots: pd.DataFrame | None,
    previous_yields: pd.DataFrame | None,
    previous_verdict: dict[str, Any] | None,
    synthesis: SynthesisParameters,
) -> pd.DataFrame:
    """Choose the coverage-train pairs that this iteration shows to the service LLM.

    What is not trained on, as it was dropped or left out to balance the labels, is not shown.

    A share of the requests is aimed: seeds are drawn by their part of the points that the test
    prompts near them have missed. The others walk through one stratified order of the coverage
    set, from where the iteration before stopped: every pair is shown before any is shown again.
    Seeds and strategies whose pairs are dropped more often than others get less of both.

    Returns:
        ``Seeds``; empty in the first iteration, in one that tunes by preference, and where ready
        pairs stand in.

    Raises:
        InputError: A strategy has no prompt text, or no usable coverage pair was trained on.
    """
    if problem := synthesis.without_text(synthesis_prompts):
        raise InputError(problem)
    so_far = previous_synthesis_report or BEFORE_FIRST
    iteration, done = so_far["iteration"] + 1, so_far["requests_so_far"]
    new_pairs = pairs_to_ask(iteration, previous_verdict, synthesis)
    count = -(-new_pairs // synthesis.pairs_per_request)
    if len(ready_pairs) or not count:
        return Seeds.empty()
    usable = screened_coverage[screened_coverage["dropped"] == ""]
    if previous_training_set is not None:
        usable = usable[usable["id"].isin(previous_training_set["id"])]
    if usable.empty:
        raise InputError(
            f"none of the {len(screened_coverage)} pairs of coverage_train that may be shown is in "
            "the training set so far. Did the coverage file change? Then begin a new loop"
        )
    weights = usable["id"].map(_weights(previous_yields, "seed")).fillna(1.0).to_numpy(dtype=float)
    weakness = weights * _weakness(usable["id"], previous_weak_spots)
    rng = np.random.default_rng([synthesis.seed, iteration])
    aims = round(synthesis.aimed_share * count) if weakness.any() else 0
    order = _stratified_order(usable["category"], synthesis.seed)
    turns = _walk(weights[order], so_far["walked_so_far"], count - aims)
    is_aimed = rng.permutation(count) < aims
    places, turn = np.empty(count, dtype=int), np.full(count, AIMED)
    places[is_aimed] = _draw(weakness, aims, rng)
    places[~is_aimed], turn[~is_aimed] = order[turns % len(order)], turns + 1
    pairs = np.full(count, synthesis.pairs_per_request)
    pairs[-1] = new_pairs - pairs[:-1].sum()
    chosen = usable.iloc[places]
    return pd.DataFrame(
        {
            "request": np.arange(done, done + count) + 1,
            "strategy": mix(_adjusted(synthesis.strategies, previous_yields), done + count)[done:],
            "seed_id": chosen["id"].to_numpy(),
            "turn": turn,
            "system": chosen["system"].to_numpy(),
            "prompt": chosen["prompt"].to_numpy(),
            "response": chosen["response"].to_numpy(),
            "pairs": pairs,
        }
    )


def count_yields(
    seeds: pd.DataFrame,
    synthesis_replies: pd.DataFrame,
    selected_pairs: pd.DataFrame,
    previous_yields: pd.DataFrame | None,
) -> pd.DataFrame:
    """Count over the loop how many pairs each seed and strategy was asked for, and how many passed.

    A request that met a failure for which its seed is not to blame does not count.

    Returns:
        ``Yields``, one row per seed and strategy that has been asked for.
    """
    unlucky = synthesis_replies[synthesis_replies["failure"].isin(NOT_ITS_FAULT)]
    answered = seeds[~seeds["request"].isin(unlucky["request"])]
    kept = selected_pairs.loc[selected_pairs["dropped"] == "", "request"].value_counts()
    came = answered["request"].map(kept).fillna(0).astype(int)
    counted = answered.assign(asked=answered["pairs"], kept=came.clip(upper=answered["pairs"]))
    own = [
        counted.rename(columns={column: "name"})[["name", "asked", "kept"]].assign(what=what)
        for what, column in (("seed", "seed_id"), ("strategy", "strategy"))
    ]
    known = [] if previous_yields is None or previous_yields.empty else [previous_yields]
    yields = pd.concat([*known, *own], ignore_index=True)
    if yields.empty:
        return Yields.empty()
    return yields.groupby(["what", "name"], as_index=False)[["asked", "kept"]].sum()


def mix(shares: Mapping[str, float], count: int) -> list[str]:
    """So many names, such that each has about its share in every stretch from the first on."""
    total, taken = sum(shares.values()), dict.fromkeys(shares, 0)
    names = []
    for number in range(1, count + 1):
        due = max(shares, key=lambda name: shares[name] / total * number - taken[name])
        taken[due] += 1
        names.append(due)
    return names


def _adjusted(shares: dict[str, float], yields: pd.DataFrame | None) -> dict[str, float]:
    weights = _weights(yields, "strategy")
    return {name: share * weights.get(name, 1.0) for name, share in shares.items()}


def _weights(yields: pd.DataFrame | None, what: str) -> dict[str, float]:
    """By name: the share of its pairs that passed, over that of all; 1 where it is no worse."""
    if yields is None or yields.empty:
        return {}
    own = yields[yields["what"] == what].set_index("name")
    if not own["kept"].any():
        return {}
    average = own["kept"].sum() / own["asked"].sum()
    share = (own["kept"] + EVIDENCE * average) / (own["asked"] + EVIDENCE)
    weights = (share / average).clip(LEAST_WEIGHT, 1.0)
    return {str(name): float(weight) for name, weight in weights.items()}


def _weakness(ids: pd.Series, weak_spots: pd.DataFrame | None) -> np.ndarray:
    if weak_spots is None or weak_spots.empty:
        return np.zeros(len(ids))
    weights = weak_spots.set_index("seed_id")["weight"]
    return ids.map(weights).fillna(0.0).to_numpy(dtype=float)


def _draw(weights: np.ndarray, count: int, rng: np.random.Generator) -> np.ndarray:
    """Row positions, each about as often as its weight says (systematic sampling)."""
    if not count:
        return np.empty(0, dtype=int)
    marks = (rng.random() + np.arange(count)) / count * weights.sum()
    return rng.permutation(np.searchsorted(np.cumsum(weights), marks, side="right"))


def _walk(weights: np.ndarray, start: int, count: int) -> np.ndarray:
    """The next turns of a walk round and round, from 0.

    One of weight w keeps its first turn and a share w of all.
    """
    turns: list[int] = []
    turn = start
    while len(turns) < count:
        lap, place = divmod(turn, len(weights))
        if ceil((lap + 1) * weights[place]) > ceil(lap * weights[place]):
            turns.append(turn)
        turn += 1
    return np.array(turns, dtype=int)


def _stratified_order(categories: pd.Series, seed: int) -> np.ndarray:
    """Row positions, shuffled, such that every stretch holds the categories about evenly."""
    shuffled = np.random.default_rng(seed).permutation(len(categories))
    turn = categories.iloc[shuffled].groupby(categories.iloc[shuffled]).cumcount()
    return shuffled[np.argsort(turn.to_numpy(), kind="stable")]
