"""Rows that make the loop's scores readable: what others reach on the same test set."""

import json
from collections import Counter
from typing import Any

import pandas as pd

from llamaduo.local_llm.base_model import BaseModelSpec
from llamaduo.local_llm.chat import to_messages
from llamaduo.local_llm.engines import InferenceEngine
from llamaduo.parameters import BaselineParameters, EvaluationParameters, IterationParameters
from llamaduo.pipelines.evaluation.answering import answer_conversations, answer_prompts
from llamaduo.pipelines.evaluation.assessment import per_prompt, summarise_scores
from llamaduo.pipelines.evaluation.comparison import (
    SERVICE_LLM,
    describe_measurement,
    describe_setup,
)
from llamaduo.pipelines.evaluation.judging import ask_judge, parse_judgements, score_prompts
from llamaduo.schemas import PAIR
from llamaduo.service_llm.answers import reply_columns
from llamaduo.service_llm.budget import expected_tokens
from llamaduo.service_llm.client import Request, ServiceLLM
from llamaduo.service_llm.jury import Judge

AGREEMENT = "service LLM with itself"
"""Name of the baseline in which its second answer is judged with its first as the reference: the
most that a model can be expected to reach."""


def answer_constantly(coverage_train: pd.DataFrame, coverage_test: pd.DataFrame) -> pd.DataFrame:
    """Give the same response to every prompt: the most frequent one of the coverage set.

    Of JSON objects with the same keys, it is the most frequent value of each key. What this scores
    can be had without a model.

    Returns:
        ``Responses``.
    """
    constant = most_frequent_response(list(coverage_train["response"]))
    return coverage_test[["id"]].assign(sample=1, response=constant, tokens=0, finished=True)


def most_frequent_response(responses: list[str]) -> str:
    """The response that is right most often, field by field where all are alike JSON objects."""
    try:
        objects = [json.loads(response) for response in responses]
    except json.JSONDecodeError:
        objects = []
    keys = [list(each) if isinstance(each, dict) else None for each in objects]
    if not objects or keys[0] is None or any(each != keys[0] for each in keys):
        return Counter(responses).most_common(1)[0][0]
    fields = {
        key: json.loads(Counter(json.dumps(each[key]) for each in objects).most_common(1)[0][0])
        for key in keys[0]
    }
    return json.dumps(fields, separators=(",", ":"), ensure_ascii=False)


def answer_zero_shot(
    inference: InferenceEngine,
    base_model: BaseModelSpec,
    coverage_test: pd.DataFrame,
    evaluation: EvaluationParameters,
) -> pd.DataFrame:
    """Let the untouched base model answer: ``Responses``."""
    return answer_prompts(inference, base_model, None, coverage_test, evaluation)


def answer_few_shot(
    inference: InferenceEngine,
    base_model: BaseModelSpec,
    coverage_train: pd.DataFrame,
    coverage_test: pd.DataFrame,
    evaluation: EvaluationParameters,
    baselines: BaselineParameters,
) -> pd.DataFrame:
    """Let the untouched base model answer after some coverage-train pairs: ``Responses``."""
    shots = [
        message
        for shot in coverage_train.iloc[:: max(1, len(coverage_train) // baselines.shots)]
        .head(baselines.shots)
        .to_dict("records")
        for message in (
            {"role": "user", "content": shot["prompt"]},
            {"role": "assistant", "content": shot["response"]},
        )
    ]
    conversations = []
    for row in coverage_test.to_dict("records"):
        *system, prompt = to_messages(row["system"], row["prompt"])
        conversations.append([*system, *shots, prompt])
    return answer_conversations(
        inference, base_model, None, list(coverage_test["id"]), conversations, evaluation
    )


def answer_by_service_llm(
    service_llm: ServiceLLM,
    coverage_test: pd.DataFrame,
    baselines: BaselineParameters,
    iteration: IterationParameters,
) -> pd.DataFrame:
    """Let the service LLM do the task itself, twice; what it is sent has no personal details.

    Returns:
        ``Responses``, two samples per prompt; a failed request is a missing row.
    """
    protected = service_llm.gate.protect_rows(coverage_test, PAIR)
    asked = protected.merge(pd.DataFrame({"sample": [1, 2]}), how="cross")
    requests = [
        Request(
            to_messages(row["system"], row["prompt"]),
            max_tokens=baselines.max_tokens,
            expected_tokens=expected_tokens(row["response"]),
            repeat=row["sample"],
        )
        for row in asked.to_dict("records")
    ]
    replies = reply_columns(
        service_llm.complete_all(requests, "asking the service LLM itself", iteration.account)
    )
    answered = asked[["id", "sample"]].assign(
        response=replies["text"], tokens=replies["completion_tokens"], finished=True
    )
    return answered[answered["response"].notna()]


def gather_responses(
    constant_responses: pd.DataFrame,
    zero_shot_responses: pd.DataFrame,
    few_shot_responses: pd.DataFrame,
    service_llm_responses: pd.DataFrame,
) -> pd.DataFrame:
    """One table, with the column ``baseline`` telling whose responses they are."""
    first = service_llm_responses["sample"] == 1
    named = {
        "constant answer": constant_responses,
        "base model, zero-shot": zero_shot_responses,
        "base model, few-shot": few_shot_responses,
        SERVICE_LLM: service_llm_responses[first],
        AGREEMENT: service_llm_responses[~first].assign(sample=1),
    }
    return pd.concat(
        [table.assign(baseline=name) for name, table in named.items()], ignore_index=True
    )


def judge_baselines(
    baseline_responses: pd.DataFrame,
    coverage_test: pd.DataFrame,
    judge_prompt: str,
    judge: Judge,
    service_llm: ServiceLLM,
    evaluation: EvaluationParameters,
    iteration: IterationParameters,
) -> list[dict[str, Any]]:
    """Judge and score each baseline as an iteration is.

    Returns:
        One summary per baseline, with its ``name`` and the ``scores`` of its prompts.
    """
    rows = []
    # Its answers are about the surrogates that it was sent, and so must their references be.
    asked = service_llm.gate.protect_rows(coverage_test, PAIR)
    for name, responses in baseline_responses.groupby("baseline", sort=False):
        pairs = asked if name in (SERVICE_LLM, AGREEMENT) else coverage_test
        if name == AGREEMENT:
            own = baseline_responses[baseline_responses["baseline"] == SERVICE_LLM]
            pairs = asked.drop(columns="response").merge(own[["id", "response"]], on="id")
        # Some answer once where the local LLM answers K times.
        samples = {"responses_per_prompt": int(responses["sample"].max())}
        sampled = evaluation.model_copy(update=samples)
        judged = responses[responses["id"].isin(pairs["id"])]
        replies = ask_judge(judged, pairs, judge_prompt, judge, sampled, iteration)
        scores = score_prompts(parse_judgements(replies), judged, pairs, sampled)
        summary = summarise_scores(scores, sampled, sampled.alpha)
        rows.append({"name": name, **summary, "scores": per_prompt(scores)})
    return rows


def describe_baselines(
    baseline_scores: list[dict[str, Any]],
    base_model: BaseModelSpec,
    service_llm: ServiceLLM,
    judge: Judge,
    judge_prompt: str,
    inference: InferenceEngine,
    coverage_train: pd.DataFrame,
    coverage_test: pd.DataFrame,
    evaluation: EvaluationParameters,
) -> dict[str, Any]:
    """Say what the baselines were measured with, so that nobody compares them with another setup.

    Returns:
        ``setup`` and ``rows``.
    """
    measurement = describe_measurement(judge, judge_prompt, inference, coverage_test, evaluation)
    setup = describe_setup(base_model, service_llm, measurement, coverage_train)
    return {"setup": setup, "rows": baseline_scores}
