"""How often the rule that stops the loop errs, and what its numbers are worth.

pytest tests/benchmarks/bench_stop_rule.py --override-ini python_files='bench_*.py' -s

Scores are arrays ``(loops, iterations, scores, prompts)``. Of the loop's true means only the
distance to the target matters, so that one set of loops serves many targets.
"""

from collections import namedtuple
from functools import lru_cache
from itertools import product

import numpy as np
import pandas as pd
import pytest
from rich.console import Console
from rich.table import Table
from scipy import stats

from llamaduo import statistics
from llamaduo.parameters import (
    EvaluationParameters,
    FairnessParameters,
    FineTuningParameters,
    LoopParameters,
)
from llamaduo.pipelines.evaluation import decision
from llamaduo.pipelines.evaluation.assessment import assess_scores
from llamaduo.pipelines.evaluation.judging import SCORES, score_prompts
from llamaduo.service_llm.failures import Failure

pytestmark = pytest.mark.timeout(900)

LOOPS = 10_000
EVALUATIONS = 2_000
LOOP = LoopParameters(max_iterations=10, carry={})
FINE_TUNING = FineTuningParameters(start="previous", learning_rate=1e-3, epochs=1)
FAIRNESS, FAIR = FairnessParameters(), {"alarms": []}
EVALUATION = EvaluationParameters(
    target_similarity=80, target_precision=80, judgements_per_response=3, decoding={}
)
PROMPTS = (50, 100, 200, 400)
SIZES_ASKED = (100, 200)
"""Those for which all is promised."""
CORRELATIONS = (0, 0.5, 0.8)
"""Between the two scores: of their prompts as of the judge's errors."""
PROMPT_SD = 20
STABLE = 0.5
"""Share of the prompts' variance that stays from iteration to iteration."""
JUDGE_SD = 8  # of one judgement
FLAT = (0,) * LOOP.max_iterations
RISING = tuple(range(0, 2 * LOOP.max_iterations, 2))
SATURATED = (-20, -13, -8, -4, -2, *FLAT[5:])
"""True means by iteration."""
ALL_GOOD = {"asked": 8, "kept": 8, "dropped": {}, "over_budget": 0}
TRAINED = {**dict.fromkeys(decision.TRAINING, 0), "tuning": "sft", "over_budget": 0}
PASSED = {
    "judges": [{"model": "judge", "failures": [], "spread": dict.fromkeys(SCORES, JUDGE_SD)}],
    "over_budget": 0,
}
"""The audit of a judge that can be trusted."""


def normals(rng, shape, correlation):
    """Standard normal draws of both scores: ``(…, n)`` to ``(…, 2, n)``."""
    one, other = rng.standard_normal((2, *shape))
    return np.stack([one, correlation * one + np.sqrt(1 - correlation**2) * other], axis=-2)


def draw(rng, shape, correlation, quality=None):
    """Scores of prompts: ``(loops, iterations, n)`` to ``(loops, iterations, 2, n)``.

    Normal around 0, or made by ``quality`` of standard normals, judgements cut off at 0 and 100.
    """
    stable = normals(rng, (shape[0], 1, shape[2]), correlation)
    prompts = np.sqrt(STABLE) * stable + np.sqrt(1 - STABLE) * normals(rng, shape, correlation)
    judgements = EVALUATION.judgements_per_response
    if quality is None:
        return PROMPT_SD * prompts + JUDGE_SD / judgements**0.5 * normals(rng, shape, correlation)
    scores, total = quality(prompts), 0.0
    for _ in range(judgements):
        total += np.clip(scores + JUDGE_SD * normals(rng, shape, correlation), 0, 100)
    return total / judgements


def beta(normal):
    """Beta(3.4, 0.6), which has many scores near 100 and a mean of 85."""
    grid = np.linspace(-6, 6, 4001)
    return np.interp(normal, grid, 100 * stats.beta.ppf(stats.norm.cdf(grid), 3.4, 0.6))


def clipped_normal(normal):
    return np.clip(95 + PROMPT_SD * normal, 0, 100)


def four_fields(normal):
    return 25.0 * np.searchsorted(stats.norm.ppf([0.03, 0.07, 0.15, 0.35]), normal)


Proven = namedtuple("Proven", "bounds holdout plateau regression")
"""By loop and iteration; bounds of both scores, those on the holdout as if it were open."""


def prove(values, holdout, curve):
    """The loop's own tests; ``values`` hold the true means of the curve, the holdout lacks them."""
    plateau, regression = np.zeros((2, *values.shape[:2]), dtype=bool)
    patience = EVALUATION.patience
    gained = values[:, patience:] - values[:, :-patience]
    plateau[:, patience:] = statistics.is_gain_unproven(gained).all(axis=2)
    losses = statistics.is_loss_proven(values[:, 1:] - values[:, :-1])
    regression[:, 2:] = (losses[:, 1:] & losses[:, :-1]).any(axis=2)
    bounds = statistics.lower_bound(values, EVALUATION.alpha / LOOP.max_iterations)
    on_holdout = statistics.lower_bound(holdout, EVALUATION.alpha) + np.array(curve)[:, None]
    return Proven(bounds, on_holdout, plateau, regression)


@lru_cache
def simulate(prompts, correlation, curve=FLAT, quality=None):
    rng = np.random.default_rng([prompts, int(10 * correlation)])
    many, parts = 100_000 // prompts, []  # so many fit into memory
    for start in range(0, LOOPS, many):
        shape = min(many, LOOPS - start), LOOP.max_iterations, prompts
        values = draw(rng, shape, correlation, quality) + np.array(curve)[:, None, None]
        parts.append(prove(values, draw(rng, (shape[0], 1, prompts), correlation, quality), curve))
    return Proven(*map(np.concatenate, zip(*parts, strict=True)))


def outcomes(proven, target):
    """The reason for which each loop ends, and the iteration."""
    met = (proven.bounds >= target).all(axis=2)
    confirmed = (proven.holdout >= target).all(axis=2)
    reasons = np.select(
        [met & confirmed, met, proven.regression, proven.plateau],
        ["target", "target_not_confirmed", "regression", "plateau"],
        "",
    )
    reasons[:, -1][reasons[:, -1] == ""] = "max_iterations"
    last = (reasons != "").argmax(axis=1)
    return reasons[np.arange(len(reasons)), last], last + 1


def declared(proven, target):
    """Percentages of the loops, as ``DECLARED``."""
    never = np.zeros_like(proven.plateau)
    rules = proven, proven._replace(plateau=never, regression=never)
    ends, met = [outcomes(rule, target)[0] for rule in rules], ["target", "target_not_confirmed"]
    return [100 * np.isin(end, which).mean() for end in ends for which in (met, met[:1])]


DECLARED = ("met", "confirmed", "met, all 10", "confirmed, all 10")
"""Met on the test set, and confirmed on the holdout; the same if nothing else ends a loop early."""


def show(title, columns, rows):
    table = Table(*columns, title=title, title_justify="left")
    for row in rows:
        table.add_row(*(f"{cell:.2f}" if isinstance(cell, float) else str(cell) for cell in row))
    Console(width=140).print("", table)


def test_the_stop_rule_errs_no_more_often_than_it_promises():
    truths = {
        "at the target": (0, 0, 5),
        "one at it, one 20 above": (0, 20, 5),
        "2 below": (-2, -2, 1),
        "one 2 below, one 20 above": (-2, 20, 1),
    }
    rows = []
    for prompts, correlation in product(PROMPTS, CORRELATIONS):
        for truth, (*above, limit) in truths.items():
            shares = declared(simulate(prompts, correlation), -np.array(above))
            rows.append((prompts, correlation, truth, limit, *shares))

    show("False stops, % of the loops", ("n", "r", "true means", "limit", *DECLARED), rows)
    assert all(max(shares) <= limit for _, _, _, limit, *shares in rows)


def test_200_prompts_prove_in_most_loops_what_is_5_points_above_the_target():
    rows = []
    for prompts, correlation in product(PROMPTS, CORRELATIONS):
        for above in (3, 5, 8):
            shares = declared(simulate(prompts, correlation), -above)
            rows.append((prompts, correlation, f"+{above}", *shares))
        if prompts in SIZES_ASKED:
            shares = declared(simulate(prompts, correlation, SATURATED), -5)
            rows.append((prompts, correlation, "+5 from the sixth iteration on", *shares))

    show("Power, % of the loops", ("n", "r", "true means", *DECLARED), rows)
    enough = [row for row in rows if row[0] == 200 and row[2] == "+5"]
    assert all(confirmed >= 85 and met_in_all >= 95 for *_, confirmed, met_in_all, _ in enough)


def test_a_flat_curve_ends_soon_and_a_rising_one_goes_on():
    rows = []
    for prompts, correlation in product(SIZES_ASKED, CORRELATIONS):
        reasons, last = outcomes(simulate(prompts, correlation), 1000)
        flat = 100 * ((reasons == "plateau") & (last <= 5)).mean()
        reasons, last = outcomes(simulate(prompts, correlation, RISING), 1000)
        rising = 100 * ((reasons == "plateau") & (last == EVALUATION.patience + 1)).mean()
        rows.append((prompts, correlation, flat, rising))

    columns = ("n", "r", "flat: by iteration 5", "+2 per iteration: in iteration 4")
    show("Ended as a plateau, % of the loops", columns, rows)
    assert all(flat >= 95 and rising <= 10 for *_, flat, rising in rows)


def test_false_stops_with_scores_that_pile_up_at_the_end_of_the_scale():
    rows = []
    for quality, prompts in product((beta, clipped_normal), SIZES_ASKED):
        sample = draw(np.random.default_rng(1), (1, 1, 1_000_000), 0, quality)
        shape = f"{sample.mean():.1f} ± {sample.std():.1f}, skew {stats.skew(sample.ravel()):.1f}"
        for truth, above in (("at the target", 0), ("one at it, one 20 above", 20)):
            target = sample.mean() - np.array([0, above])
            shares = declared(simulate(prompts, 0.8, FLAT, quality), target)
            rows.append((quality.__name__, shape, prompts, truth, shares))

    columns = ("scores", "mean", "n", "true means", *DECLARED)
    show("False stops, skewed, r = 0.8", columns, [(*r[:-1], *r[-1]) for r in rows])
    assert all(max(shares) <= 5 for *_, shares in rows)


def scores_of(values):
    """``Scores`` of one iteration: ``(2, n)``."""
    same = {"category": "", "full_marks": 0.0, "cut_off": 0, "judged": 3, "expected": 3}
    table = pd.DataFrame(values.T, columns=list(SCORES)).assign(**same, over_budget=0)
    return table.assign(id=[f"test-{n}" for n in table.index])


def assess(scores, history, evaluation):
    return assess_scores(
        scores, history, ALL_GOOD, TRAINED, PASSED, {}, evaluation, FINE_TUNING, LOOP
    )


def run_nodes(values, holdout):
    """One loop by the nodes of the real one: the reason and the iteration of its end."""
    history = []
    while True:
        scores = scores_of(values[len(history)])
        assessed = assess(scores, history, EVALUATION)
        opened = decision.open_holdout(assessed, scores_of(holdout[len(history)]))
        confirmation = decision.confirm(opened, EVALUATION)
        verdict = decision.reach_verdict(assessed, confirmation, FAIR, LOOP, FAIRNESS)
        if verdict["stop"]:
            return verdict["reason"], verdict["iteration"]
        history = decision.record_iteration(
            history, scores, ALL_GOOD, TRAINED, scores, assessed, PASSED, {}, verdict
        )


def test_the_simulated_rule_is_that_of_the_nodes():
    rng, found = np.random.default_rng(1), []
    for start, rise in ((80, 0), (83, 0), (85, 0), (70, 2), (40, 3), (80, -5)):
        curve = start + rise * np.arange(LOOP.max_iterations)
        values = draw(rng, (17, LOOP.max_iterations, 100), 0.5) + curve[:, None, None]
        holdout = draw(rng, (17, 1, 100), 0.5)
        for loop, end in enumerate(zip(*outcomes(prove(values, holdout, curve), 80), strict=True)):
            assert run_nodes(values[loop], holdout[loop] + curve[:, None, None]) == end
            found.append(end[0])

    print(f"\n{len(found)} loops end alike: {pd.Series(found).value_counts().to_dict()}")
    assert len(set(found)) == 5


def judge_all(rng):
    """Judgements of 100 prompts (K = M = 2), none failed."""
    index = pd.MultiIndex.from_product([range(100), (1, 2), (1, 2)])
    prompts, errors = normals(rng, (100, 1), 0.5), normals(rng, (100, 4), 0.5)
    values = np.clip(85 + PROMPT_SD * prompts + JUDGE_SD * errors, 0, 100)
    scores = pd.DataFrame(values.swapaxes(1, 2).reshape(400, 2), index, SCORES)
    return scores.reset_index(names=["id", "sample", "repeat"]).assign(judge="judge", failure=None)


def test_failures_of_the_judge_never_raise_the_bound():
    few = {"responses_per_prompt": 2, "judgements_per_response": 2}
    easy = {f"target_{name}": 10.0 for name in SCORES}
    evaluation = EVALUATION.model_copy(update={**few, **easy})
    pairs, names, rows = pd.DataFrame({"id": range(100), "category": ""}), list(SCORES), []
    responses = pairs.assign(finished=True)
    for percent, which in product((0, 1, 2, 2.25, 3, 5, 10, 20, 50), ("random", "hardest first")):
        rng, found = np.random.default_rng([int(4 * percent), len(which)]), []
        for _ in range(50):
            judgements = judge_all(rng)
            truth, hardest = judgements[names].mean(), judgements[names].sum(axis=1).argsort()
            order = rng.permutation(400) if which == "random" else hardest
            failed = judgements.index.isin(order[: int(4 * percent)])
            judgements.loc[failed, [*names, "failure"]] = [np.nan, np.nan, Failure.GAVE_UP]
            scores = score_prompts(judgements, responses, pairs, evaluation)
            assessment = assess(scores, None, evaluation)
            confirmation = decision.confirm(scores, evaluation)
            assert assessment["target_met"] == confirmation["confirmed"] == (percent <= 2)
            for summary, name in product((assessment, confirmation), names):
                assert summary["judged_share"] == pytest.approx(1 - percent / 100, abs=1e-12)
                found.append((summary[name]["lower_bound"], summary[name]["mean"]) - truth[name])
        rows.append((percent, which, *np.max(found, axis=0), percent <= 2))

    columns = ("failed %", "which", "highest bound − truth", "highest mean − truth", "concluded")
    show("Judge failures", columns, rows)
    assert all(bound <= 0.5 for _, _, bound, *_ in rows)


def test_95_percent_intervals_cover_the_truth_that_often():
    exact, rows = np.array([statistics.exact_interval(count, 120) for count in range(121)]), []
    for quality in (beta, clipped_normal, four_fields):
        rng = np.random.default_rng(1)
        everything = quality(rng.standard_normal(4_000_000))
        truth, covered = everything.mean(), (everything >= EVALUATION.threshold).mean()
        samples = quality(rng.standard_normal((EVALUATIONS, 120)))
        ends = np.array([statistics.bootstrap_interval(values) for values in samples])
        of_mean = 100 * ((ends[:, 0] <= truth) & (truth <= ends[:, 1])).mean()
        inside = (exact[:, 0] <= 100 * covered) & (100 * covered <= exact[:, 1])
        of_share = 100 * stats.binom.pmf(range(121), 120, covered) @ inside
        rows.append((quality.__name__, truth, of_mean, 100 * covered, of_share))

    columns = ("scores", "mean", "interval holds it, %", "coverage %", "interval holds it, %")
    show(f"95 % intervals, 120 prompts, {EVALUATIONS} evaluations", columns, rows)
    assert all(93 <= of_mean <= 97 and of_share >= 95 for _, _, of_mean, _, of_share in rows)
