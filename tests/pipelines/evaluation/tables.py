"""Tables as the nodes of evaluation take them."""

import json

import pandas as pd

from llamaduo.parameters import (
    EvaluationParameters,
    FairnessParameters,
    FineTuningParameters,
    LoopParameters,
)
from llamaduo.pipelines.evaluation.assessment import assess_scores, per_prompt
from llamaduo.pipelines.evaluation.judging import parse_judgements, score_prompts

LOOP = LoopParameters(max_iterations=4, carry={})
FINE_TUNING = FineTuningParameters(start="previous", learning_rate=1e-3, epochs=1)
PREFERRING = FineTuningParameters.model_validate(
    {**dict(FINE_TUNING), "preference": {"enabled": True}}
)
ALL_GOOD = {
    "asked": 8,
    "kept": 8,
    "dropped": {},
    "by_category": {"a": {"asked": 8, "aimed": 0, "kept": 8}},
    "coverage_left_out": {},
    "over_budget": 0,
    "ready_pairs": 0,
}
MEASUREMENT = {
    "judge": ["judge"],
    "judge_prompt": "1",
    "judge_temperature": 0.0,
    "responses_per_prompt": 1,
    "judgements_per_response": 1,
    "decoding": {"temperature": 0.7},
}
TRAINED = {
    "rows": 60,
    "validation": 6,
    "steps": 45,
    "best_step": 33,
    "validation_loss": 0.25,
    "seconds": 48.0,
    "tokens": 21000,
    "energy_wh": 0.321,
    "tokens_of_pairs": {"min": 60, "median": 90, "p95": 120, "max": 150},
    "too_long_share": 0.0,
    "learned_share": 0.36,
    "tuning": "sft",
    "preference_prompts": 0,
    "over_budget": 0,
    "reward_margin": None,
    "reward_accuracy": None,
    "kl": None,
    "preview": [{"masked": "<|im_start|>user", "learned": "yes<|im_end|>"}],
}
FAIR = {
    "pairs": {
        "gaps": [],
        "gaps_left": [],
        "left_out": 0,
        "balanced": [],
        "unmeasured": [],
        "alarms": [],
    },
    "student": {"gaps": [], "rewritten": [], "unmeasured": []},
    "alarms": [],
}
FAIR_ANSWERS = {"gaps": [], "unmeasured": [], "alarms": []}
FAIRNESS = FairnessParameters()
PASSED = {
    "judges": [
        {"model": "judge", "failures": [], "spread": {"similarity": None, "precision": None}}
    ],
    "over_budget": 0,
}


def parameters(**changes):
    targets = {"target_similarity": 80, "target_precision": 80, "min_prompts": 10}
    return EvaluationParameters(**{**targets, "decoding": {}, **changes})


def pairs(count, category="a"):
    return pd.DataFrame(
        {
            "id": [f"test-{n}" for n in range(count)],
            "category": category,
            "system": "",
            "prompt": [f"prompt {n}" for n in range(count)],
            "response": [f"reference {n}" for n in range(count)],
        }
    )


def replies(*texts):
    return pd.DataFrame(
        {
            "id": [f"test-{n}" for n in range(len(texts))],
            "sample": 1,
            "repeat": 1,
            "judge": "judge",
            "text": texts,
            "failure": None,
        }
    )


def scored(values, evaluation=None):
    """Scores of prompts that were each judged once; None is an unreadable judgement."""
    texts = [None if v is None else json.dumps({"similarity": v, "precision": v}) for v in values]
    judgements = parse_judgements(replies(*texts))
    responses = pairs(len(values)).assign(sample=1, finished=True)
    return score_prompts(judgements, responses, pairs(len(values)), evaluation or parameters())


def assessed(
    values,
    history=None,
    report=ALL_GOOD,
    audit=PASSED,
    measurement=MEASUREMENT,
    trained=TRAINED,
    fine_tuning=FINE_TUNING,
    **changes,
):
    evaluation = parameters(**changes)
    scores = scored(values, evaluation)
    return assess_scores(
        scores, history, report, trained, audit, measurement, evaluation, fine_tuning, LOOP
    )


def history(*curves, **changes):
    """One entry per iteration; a curve is the same for both scores."""
    entries = []
    for values in curves:
        assessment = assessed(values, entries or None, **changes)
        entries.append({"scores": per_prompt(scored(values)), "assessment": assessment})
    return entries
