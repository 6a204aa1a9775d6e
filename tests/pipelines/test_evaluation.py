import json

import numpy as np
import pandas as pd
import pytest
from pydantic import SecretStr
from scipy import stats

from llamaduo.local_llm.base_model import BaseModelSpec
from llamaduo.parameters import EvaluationParameters, LoopParameters
from llamaduo.pipelines.evaluation.decision import (
    assess_scores,
    confirm,
    is_plateau,
    is_regression,
    open_holdout,
    per_prompt,
    reach_verdict,
)
from llamaduo.pipelines.evaluation.nodes import parse_judgements, read_judgement, score_prompts
from llamaduo.pipelines.evaluation.reports import choose_baselines, describe_setup, write_report
from llamaduo.pipelines.evaluation.statistics import lower_bound
from llamaduo.service_llm.client import ServiceLLM

LOOP = LoopParameters(max_iterations=4, carry={})
ALL_GOOD = {"asked": 8, "kept": 8, "over_budget": 0}


def parameters(**changes):
    targets = {"target_similarity": 80, "target_precision": 80, "min_prompts": 10}
    return EvaluationParameters(**{**targets, "decoding": {}, **changes})


def pairs(count):
    return pd.DataFrame(
        {
            "id": [f"test-{n}" for n in range(count)],
            "category": "a",
            "system": "",
            "prompt": "p",
            "response": "r",
        }
    )


def replies(*texts):
    return pd.DataFrame(
        {
            "id": [f"test-{n}" for n in range(len(texts))],
            "sample": 1,
            "repeat": 1,
            "text": texts,
            "failure": None,
        }
    )


def scored(values, evaluation=None):
    """Scores of prompts that were each judged once; None is an unreadable judgement."""
    texts = [None if v is None else json.dumps({"similarity": v, "precision": v}) for v in values]
    judgements = parse_judgements(replies(*texts))
    return score_prompts(judgements, pairs(len(values)), evaluation or parameters())


def assessed(values, history=None, report=ALL_GOOD, **changes):
    evaluation = parameters(**changes)
    return assess_scores(scored(values, evaluation), history, report, evaluation, LOOP)


@pytest.mark.parametrize(
    ("text", "scores"),
    [
        ('{"similarity": 80, "precision": 99.5}', (80, 99.5)),
        ('```json\n{"similarity": 0, "precision": 100}\n```', (0, 100)),
        ('{"similarity": 105, "precision": 50}', None),
        ('{"similarity": -1, "precision": 50}', None),
        ('{"similarity": true, "precision": 50}', None),
        ('{"similarity": NaN, "precision": 50}', None),
        ('{"similarity": 80}', None),
        ('{"similarity": "N/A", "precision": 50}', None),
        ('{"similarity": "80", "precision": "99.5"}', (80, 99.5)),
        ('{"similarity": "80/100", "precision": "85 / 100"}', (80, 85)),
        ('{"similarity": "8/10", "precision": 50}', None),
        ('{"similarity": "80%", "precision": 50}', None),
        ('{"similarity": "\u0668\u0665", "precision": 50}', None),
        ('{"similarity": "8_5", "precision": 50}', None),
        ('{"similarity": "1,0", "precision": 50}', None),
        ('{"similarity": 1e999, "precision": 50}', None),
        ('{"similarity": 80, "precision": 90,}', (80, 90)),
        ('For {x}: {"similarity": 80, "precision": 90}. Hope this helps!', (80, 90)),
        ('{"similarity": 80, "precision": 90} {"similarity": 20, "precision": 20}', None),
        ('{"similarity": 80, "similarity": 90, "precision": 90}', None),
        ('{"verdict": {"similarity": 80, "precision": 90}}', None),
        ('{"similarity": 80, "precision": 90, "why": {"precision": 1}}', (80, 90)),
        ("On a scale of 0 to 100, I rate similarity 85 and precision 90.", None),
        ("I would give it 90 points.", None),
        ("", None),
        (None, None),
    ],
)
def test_a_judgement_is_read_whole_or_not_at_all(text, scores):
    similarity, precision = scores or (None, None)

    assert read_judgement(text) == {"similarity": similarity, "precision": precision}


def test_an_unreadable_judgement_is_null_and_keeps_its_text():
    judgements = parse_judgements(replies("no idea"))

    assert judgements["precision"].isna().all()
    assert list(judgements["text"]) == ["no idea"]


def test_a_prompt_scores_the_mean_of_its_readable_judgements():
    judgements = pd.DataFrame(
        {
            "id": "test-0",
            "sample": [1, 1, 2, 2],
            "repeat": [1, 2, 1, 2],
            "similarity": [50, 70, None, 90],
            "precision": [100, 50, None, 100],
            "failure": None,
        }
    )
    evaluation = parameters(responses_per_prompt=2, judgements_per_response=2)

    (row,) = score_prompts(judgements, pairs(1), evaluation).to_dict("records")

    assert (row["similarity"], row["judged"], row["expected"]) == (70, 3, 4)
    assert row["full_marks"] == pytest.approx(2 / 3)


def test_a_prompt_without_any_judgement_stays_in_the_table():
    scores = score_prompts(parse_judgements(replies("?", "?")).head(1), pairs(2), parameters())

    assert list(scores["judged"]) == [0, 0]
    assert scores["precision"].isna().all()


def test_the_lower_bound_is_student_s():
    values = pd.Series(np.random.default_rng(1).normal(80, 15, size=60))

    expected = stats.ttest_1samp(values, 0).confidence_interval(confidence_level=0.9).low

    assert lower_bound(values, 0.05) == pytest.approx(expected)


def test_the_level_is_shared_between_the_iterations_of_a_loop():
    assert assessed([90, 95] * 10)["alpha"] == pytest.approx(0.05 / 4)


def test_the_target_is_met_by_the_lower_bound_and_not_by_the_mean_alone():
    narrow, wide = [84, 86] * 20, [50, 100, 100] * 14

    assert assessed(narrow)["target_met"]
    assert np.mean(wide) > 80
    assert not assessed(wide)["target_met"]
    assert assessed(wide, verdict="mean")["target_met"]


def test_a_missing_judgement_counts_as_nothing_in_the_bound_but_not_in_the_mean():
    whole, holed = assessed([90, 91] * 50), assessed([90, 91] * 49 + [90, None])

    assert holed["precision"]["mean"] == pytest.approx(whole["precision"]["mean"], abs=0.1)
    assert holed["precision"]["lower_bound"] < whole["precision"]["lower_bound"] - 2
    assert holed["judged_share"] == 0.99


def test_with_too_few_judged_the_target_is_never_met():
    assert not assessed([100] * 97 + [None] * 3, verdict="mean")["target_met"]
    assert assessed([100] * 98 + [None] * 2, verdict="mean")["target_met"]


def test_few_prompts_make_the_verdict_advisory():
    assert assessed([90] * 9)["advisory"]
    assert not assessed([90] * 10)["advisory"]
    small = {"confirmed": True, "advisory": True}
    assert reach_verdict(assessed([90] * 10), small, None, LOOP)["advisory"]


def test_nothing_kept_of_what_was_asked_is_no_new_data():
    assert assessed([50] * 10, report={**ALL_GOOD, "kept": 0})["no_new_data"]
    assert not assessed([50] * 10, report={**ALL_GOOD, "asked": 0, "kept": 0})["no_new_data"]


def history(*curves):
    """One entry per iteration; a curve is the same for both scores."""
    return [
        {"scores": per_prompt(scored(values)), "assessment": {"iteration": n}}
        for n, values in enumerate(curves, start=1)
    ]


def noisy(mean, seed):
    return list(np.clip(np.random.default_rng(seed).normal(mean, 10, size=100), 0, 100))


def test_a_flat_curve_is_a_plateau_and_a_rising_one_is_not():
    flat = history(*(noisy(60, seed) for seed in range(4)))
    rising = history(*(noisy(50 + 10 * seed, seed) for seed in range(4)))

    assert is_plateau(flat, patience=3)
    assert not is_plateau(rising, patience=3)
    assert not is_plateau(flat[:3], patience=3)


def test_two_proven_losses_in_a_row_are_a_regression():
    falling = history(noisy(80, 1), noisy(60, 2), noisy(40, 3))
    once = history(noisy(40, 1), noisy(80, 2), noisy(60, 3))

    assert is_regression(falling)
    assert not is_regression(once)
    assert not is_regression(falling[:2])


def test_the_holdout_opens_only_when_the_target_is_met():
    holdout = pairs(3)

    assert len(open_holdout({"target_met": True}, holdout)) == 3
    assert open_holdout({"target_met": False}, holdout).empty


def test_the_confirmation_is_empty_without_holdout_scores():
    assert confirm(scored([90] * 20).head(0), parameters()) == {}
    assert confirm(scored([90, 91] * 20), parameters())["confirmed"]
    assert not confirm(scored([50, 51] * 20), parameters())["confirmed"]


@pytest.mark.parametrize(
    ("changes", "confirmation", "reason"),
    [
        ({}, {}, None),
        ({}, {"confirmed": True}, "target"),
        ({}, {"confirmed": False}, "target_not_confirmed"),
        ({"regression": True, "plateau": True}, {}, "regression"),
        ({"no_new_data": True}, {}, "no_new_data"),
        ({"plateau": True}, {}, "plateau"),
        ({"iteration": 4}, {}, "max_iterations"),
        ({"iteration": 4}, {"confirmed": True}, "target"),
    ],
)
def test_the_verdict_names_the_reason(changes, confirmation, reason):
    assessment = {**assessed([50, 60] * 20), "iteration": 2, **changes}

    verdict = reach_verdict(assessment, confirmation, None, LOOP)

    assert verdict["reason"] == reason
    assert verdict["stop"] == (reason is not None)
    assert verdict["target_reached"] == (reason == "target")


def test_the_best_iteration_is_the_one_with_the_highest_bound():
    earlier = [
        {"assessment": {**assessed([70, 72] * 20), "iteration": 1}},
        {"assessment": {**assessed([90, 92] * 20), "iteration": 2}},
    ]
    now = {**assessed([80, 82] * 20), "iteration": 3}

    assert reach_verdict(now, {}, earlier, LOOP)["best_iteration"] == 2


def report(judge):
    assessment = assessed([50, None] * 20)
    entry = {
        "training_pairs": 60,
        "assessment": assessment,
        "verdict": reach_verdict(assessment, {}, None, LOOP),
    }
    setup = {"service_llm": "gpt-4o", "judge": judge}
    return write_report([entry], {}, {"setup": setup, "rows": []}, SYNTHESIS, parameters())


SYNTHESIS = {
    "asked": 20,
    "kept": 12,
    "dropped": {"near_duplicate": 5, "refusal": 3},
    "coverage_left_out": {"too_long": 1},
}


def setup(judge="judge", test=None):
    models = [ServiceLLM("e", "u", name, SecretStr("k"), None) for name in ("teacher", judge)]
    return BaseModelSpec("base"), *models, pairs(2) if test is None else test


def test_baselines_of_another_setup_are_left_out():
    known = {"setup": describe_setup(*setup()), "rows": [{"name": "constant answer"}]}
    other_test = pairs(2).assign(response="another")

    assert choose_baselines(known, *setup())["rows"] == known["rows"]
    assert choose_baselines(known, *setup(judge="other"))["rows"] == []
    assert choose_baselines(known, *setup(test=other_test))["rows"] == []
    assert choose_baselines(None, *setup())["rows"] == []


def test_the_report_names_a_stand_in_and_says_what_is_missing():
    text = report("stand-in-triage")

    assert "The judge here was **stand-in-triage**, an embedded stand-in" in text
    assert "The service LLM here" not in text
    assert "No baselines with these models" in text
    assert "| iteration 1 | 60 | 50.0 ± 0.0 |" in text
    assert "| 50 % |" in text
    assert "stand-in" not in report("gpt-4o")


def test_the_report_counts_what_was_dropped_and_why():
    text = report("gpt-4o")

    assert "12 of 20 asked for; dropped: 5 near_duplicate, 3 refusal." in text
    assert "neither shown nor trained on: 1 too_long." in text


def over_budget(scores, count):
    return scores.assign(over_budget=[1] * count + [0] * (len(scores) - count))


def test_judgements_that_were_not_asked_for_are_counted():
    judgements = parse_judgements(replies(None, "?").assign(failure=["over budget", None]))

    assert list(score_prompts(judgements, pairs(2), parameters())["over_budget"]) == [1, 0]


@pytest.mark.parametrize("role", ["teacher", "judge"])
def test_a_spent_budget_ends_the_loop_for_that_reason(role):
    evaluation = parameters()
    scores = over_budget(scored([50] * 10), 4 if role == "judge" else 0)
    report = {**ALL_GOOD, "over_budget": 3 if role == "teacher" else 0}

    assessment = assess_scores(scores, None, report, evaluation, LOOP)
    verdict = reach_verdict(assessment, {}, None, LOOP)

    assert (verdict["stop"], verdict["reason"]) == (True, "budget")


def test_a_target_that_is_reached_counts_though_the_budget_is_spent():
    report = {**ALL_GOOD, "over_budget": 3}
    assessment = assess_scores(scored([95] * 10), None, report, parameters(), LOOP)

    confirmation = confirm(scored([95] * 10), parameters())

    assert reach_verdict(assessment, confirmation, None, LOOP)["reason"] == "target"


def test_a_holdout_that_the_budget_left_unjudged_is_no_refutation():
    assessment = assess_scores(scored([95] * 10), None, ALL_GOOD, parameters(), LOOP)
    holdout = over_budget(scored([None] * 10), 10)

    confirmation = confirm(holdout, parameters())

    assert reach_verdict(assessment, confirmation, None, LOOP)["reason"] == "budget"
