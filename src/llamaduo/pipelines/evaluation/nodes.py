"""From an adapter to a verdict."""

import hashlib
import json
import logging
from collections.abc import Hashable
from pathlib import Path
from typing import Any

import pandas as pd

from llamaduo.local_llm.base_model import BaseModelSpec
from llamaduo.local_llm.chat import to_messages
from llamaduo.local_llm.inference import DecodingSettings, respond
from llamaduo.parameters import EvaluationParameters, LoopParameters
from llamaduo.pipelines.evaluation.statistics import is_gain_unproven, is_loss_proven, summarise
from llamaduo.schemas import Judgements, JudgeReplies, Responses, Scores
from llamaduo.service_llm.client import Request, ServiceLLM, reply_columns
from llamaduo.service_llm.text import fill, json_object

logger = logging.getLogger(__name__)

SCORES = ("similarity", "precision")
HIGHEST = 100

JUDGEMENT_SCHEMA = {
    "name": "judgement",
    "strict": True,
    "schema": {
        "type": "object",
        "properties": {name: {"type": "number"} for name in SCORES},
        "required": list(SCORES),
        "additionalProperties": False,
    },
}


def answer_prompts(
    base_model: BaseModelSpec,
    adapter: Path | None,
    pairs: pd.DataFrame,
    evaluation: EvaluationParameters,
) -> pd.DataFrame:
    """Let the local LLM answer each prompt K times.

    Args:
        adapter: None answers with the untouched base model.
        pairs: ``CoveragePairs``; may be empty.

    Returns:
        ``Responses``, K rows per prompt.
    """
    conversations = [to_messages(row["system"], row["prompt"]) for row in pairs.to_dict("records")]
    return answer_conversations(base_model, adapter, list(pairs["id"]), conversations, evaluation)


def answer_conversations(
    base_model: BaseModelSpec,
    adapter: Path | None,
    ids: list[str],
    conversations: list[list[dict[str, str]]],
    evaluation: EvaluationParameters,
) -> pd.DataFrame:
    """The same for conversations of any length."""
    if not conversations:
        return Responses.empty()
    samples = evaluation.responses_per_prompt
    decoding = DecodingSettings(**evaluation.decoding.model_dump())
    answered = respond(base_model, adapter, conversations, samples, decoding)
    rows = [
        {
            "id": prompt_id,
            "sample": sample,
            "response": response.text,
            "tokens": response.tokens,
            "finished": response.finished,
        }
        for prompt_id, responses in zip(ids, answered, strict=True)
        for sample, response in enumerate(responses, start=1)
    ]
    return pd.DataFrame(rows)


def ask_judge(
    responses: pd.DataFrame,
    pairs: pd.DataFrame,
    judge_prompt: str,
    judge: ServiceLLM,
    evaluation: EvaluationParameters,
) -> pd.DataFrame:
    """Let the judge score each response M times against its reference.

    Returns:
        ``JudgeReplies``, M rows per response, raw.

    Raises:
        ServiceLLMError: Every request failed.
    """
    if responses.empty:
        return JudgeReplies.empty()
    references = pairs.set_index("id")[["prompt", "response"]].to_dict("index")
    rows = [
        {**row, "repeat": repeat}
        for row in responses[["id", "sample", "response"]].to_dict("records")
        for repeat in range(1, evaluation.judgements_per_response + 1)
    ]
    requests = [
        Request(
            messages=[
                {
                    "role": "user",
                    "content": _judge_request(judge_prompt, references[row["id"]], row["response"]),
                }
            ],
            max_tokens=evaluation.judge_max_tokens,
            temperature=evaluation.judge_temperature,
            response_schema=JUDGEMENT_SCHEMA,
            repeat=row["repeat"],
        )
        for row in rows
    ]
    replies = judge.complete_all(requests, "judging")
    table = pd.DataFrame(rows).drop(columns="response")
    return table.assign(**reply_columns(replies))


def parse_judgements(judge_replies: pd.DataFrame) -> pd.DataFrame:
    """Read the scores; a reply that cannot be read, or a score off the scale, is null.

    Returns:
        ``Judgements``, one row per reply.
    """
    if judge_replies.empty:
        return Judgements.empty()
    read = [read_judgement(text) for text in judge_replies["text"]]
    judgements = judge_replies[["id", "sample", "repeat", "text"]].join(
        pd.DataFrame(read, index=judge_replies.index, columns=list(SCORES), dtype=float)
    )
    unread = int(judgements["precision"].isna().sum())
    if unread:
        logger.warning("%d of %d judgements cannot be read", unread, len(judgements))
    return judgements


def read_judgement(text: Any) -> dict[str, float | None]:
    """Both scores (0–100) of one reply, or null for both."""
    found = json_object(text) if isinstance(text, str) else None
    values = [found.get(name) for name in SCORES] if found else []
    if values and all(_is_score(value) for value in values):
        return {name: float(value) for name, value in zip(SCORES, values, strict=True)}  # type: ignore[arg-type]
    return dict.fromkeys(SCORES)


def score_prompts(
    judgements: pd.DataFrame, pairs: pd.DataFrame, evaluation: EvaluationParameters
) -> pd.DataFrame:
    """Average the readable judgements of each prompt.

    Returns:
        ``Scores``, one row per prompt of ``pairs``, in their order.
    """
    if pairs.empty:
        return Scores.empty()
    full = judgements.assign(
        full_marks=(judgements["precision"] == HIGHEST)
        .astype(float)
        .where(judgements["precision"].notna())
    )
    by_prompt = full.groupby("id")[[*SCORES, "full_marks"]]
    expected = evaluation.responses_per_prompt * evaluation.judgements_per_response
    scores = by_prompt.mean().assign(judged=by_prompt.count()["precision"])
    return (
        pairs[["id", "category"]]
        .merge(scores, on="id", how="left")
        .fillna({"judged": 0})
        .assign(expected=expected)
    )


def assess_scores(
    scores: pd.DataFrame,
    previous_iteration_history: list[dict[str, Any]] | None,
    synthesis_report: dict[str, Any],
    evaluation: EvaluationParameters,
    loop: LoopParameters,
) -> dict[str, Any]:
    """Say what the scores prove: is the target met, and does it go on upwards.

    Returns:
        The summaries of both scores, ``judged_share``, ``target_met``, ``advisory``, and
        ``plateau``, ``regression`` and ``no_new_data`` as reasons to stop without the target.
    """
    history = previous_iteration_history or []
    summary = summarise_scores(scores, evaluation, evaluation.alpha / loop.max_iterations)
    now = {"scores": per_prompt(scores)}
    asked_in_vain = synthesis_report["asked"] > 0 and synthesis_report["kept"] == 0
    return {
        "iteration": len(history) + 1,
        **summary,
        "target_met": meets_target(summary, evaluation),
        "plateau": is_plateau([*history, now], evaluation.patience),
        "regression": is_regression([*history, now]),
        "no_new_data": asked_in_vain,
    }


def summarise_scores(
    scores: pd.DataFrame, evaluation: EvaluationParameters, alpha: float
) -> dict[str, Any]:
    """Both scores over the prompts, with their lower bounds at a one-sided level."""
    judged_share = scores["judged"].sum() / scores["expected"].sum()
    return {
        "prompts": len(scores),
        "judged_share": round(float(judged_share), 4),
        **{name: summarise(scores[name], alpha, evaluation.threshold) for name in SCORES},
        "full_marks_percentage": round(float(100 * scores["full_marks"].mean()), 2)
        if scores["full_marks"].notna().any()
        else None,
        "alpha": alpha,
        "advisory": len(scores) < evaluation.min_prompts,
    }


def meets_target(summary: dict[str, Any], evaluation: EvaluationParameters) -> bool:
    """Whether both scores reach their target by the verdict's rule, with enough judged."""
    if summary["judged_share"] < evaluation.min_judged:
        return False
    what = "lower_bound" if evaluation.verdict == "lower_bound" else "mean"
    targets = {
        "similarity": evaluation.target_similarity,
        "precision": evaluation.target_precision,
    }
    values = {name: summary[name][what] for name in SCORES}
    return all(values[name] is not None and values[name] >= targets[name] for name in SCORES)


def per_prompt(scores: pd.DataFrame) -> dict[str, dict[str, float | None]]:
    """Score: prompt id: value, as the history carries them for paired comparisons."""
    return {
        name: {
            prompt_id: None if pd.isna(value) else float(value)
            for prompt_id, value in zip(scores["id"], scores[name], strict=True)
        }
        for name in SCORES
    }


def is_plateau(history: list[dict[str, Any]], patience: int) -> bool:
    """Whether no score has a proven gain over the last ``patience`` iterations."""
    if len(history) <= patience:
        return False
    now, before = history[-1]["scores"], history[-1 - patience]["scores"]
    return all(is_gain_unproven(now[name], before[name]) for name in SCORES)


def is_regression(history: list[dict[str, Any]]) -> bool:
    """Whether the precision has fallen provably twice in a row."""
    if len(history) < 3:
        return False
    steps = [(history[-1], history[-2]), (history[-2], history[-3])]
    return all(
        is_loss_proven(now["scores"]["precision"], before["scores"]["precision"])
        for now, before in steps
    )


def open_holdout(assessment: dict[str, Any], coverage_holdout: pd.DataFrame) -> pd.DataFrame:
    """The holdout when the target is met on the test set, no row of it before.

    Returns:
        ``CoveragePairs``, or an empty table.
    """
    if assessment["target_met"]:
        return coverage_holdout
    return coverage_holdout.head(0)


def confirm(holdout_scores: pd.DataFrame, evaluation: EvaluationParameters) -> dict[str, Any]:
    """Check the target once more on the holdout, at the undivided level: it is seen only once.

    Returns:
        The summary of the holdout and ``confirmed``; empty unless the target was met.
    """
    if holdout_scores.empty:
        return {}
    summary = summarise_scores(holdout_scores, evaluation, evaluation.alpha)
    return {**summary, "confirmed": meets_target(summary, evaluation)}


def reach_verdict(
    assessment: dict[str, Any],
    confirmation: dict[str, Any],
    previous_iteration_history: list[dict[str, Any]] | None,
    loop: LoopParameters,
) -> dict[str, Any]:
    """Decide whether the loop ends here, and why.

    Returns:
        ``iteration``; ``stop``; ``reason`` (target, target_not_confirmed, regression,
        no_new_data, plateau, max_iterations, or null); ``target_reached``; ``advisory``, where
        the test set is small; ``best_iteration``, the one with the highest lower bound of the
        precision.
    """
    reached = bool(confirmation.get("confirmed"))
    reasons = {
        "target": reached,
        "target_not_confirmed": bool(confirmation) and not reached,
        "regression": assessment["regression"],
        "no_new_data": assessment["no_new_data"],
        "plateau": assessment["plateau"],
        "max_iterations": assessment["iteration"] >= loop.max_iterations,
    }
    reason = next((name for name, holds in reasons.items() if holds), None)
    earlier = [entry["assessment"] for entry in previous_iteration_history or []]
    best = max([*earlier, assessment], key=lambda each: each["precision"]["lower_bound"] or 0.0)
    verdict = {
        "iteration": assessment["iteration"],
        "stop": reason is not None,
        "reason": reason,
        "target_reached": reached,
        "advisory": assessment["advisory"],
        "best_iteration": best["iteration"],
    }
    logger.info("verdict: %s", json.dumps(verdict))
    return verdict


def describe_setup(
    base_model: BaseModelSpec,
    service_llm: ServiceLLM,
    judge: ServiceLLM,
    coverage_test: pd.DataFrame,
) -> dict[str, Any]:
    """What a baseline rests on: models, and the test set with its hash."""
    text = coverage_test[["prompt", "response"]].to_json(orient="values", force_ascii=False)
    return {
        "base_model": base_model.portable_name,
        "service_llm": service_llm.model,
        "judge": judge.model,
        "prompts": len(coverage_test),
        "test_sha256": hashlib.sha256(text.encode("utf-8")).hexdigest(),
    }


def choose_baselines(
    known_baselines: dict[str, Any] | None,
    base_model: BaseModelSpec,
    service_llm: ServiceLLM,
    judge: ServiceLLM,
    coverage_test: pd.DataFrame,
) -> dict[str, Any]:
    """Keep the baselines that were measured with this iteration's models and test set.

    Returns:
        ``setup`` and ``rows``; no rows where none were measured, or with another setup.
    """
    setup = describe_setup(base_model, service_llm, judge, coverage_test)
    known = known_baselines or {"setup": None, "rows": []}
    return {"setup": setup, "rows": known["rows"] if known["setup"] == setup else []}


def record_iteration(
    previous_iteration_history: list[dict[str, Any]] | None,
    training_set: pd.DataFrame,
    scores: pd.DataFrame,
    assessment: dict[str, Any],
    verdict: dict[str, Any],
) -> list[dict[str, Any]]:
    """Add this iteration to the history, with its per-prompt scores for later comparisons."""
    entry = {
        "training_pairs": len(training_set),
        "assessment": assessment,
        "verdict": verdict,
        "scores": per_prompt(scores),
    }
    return [*(previous_iteration_history or []), entry]


def _judge_request(judge_prompt: str, pair: dict[Hashable, Any], response: str) -> str:
    case = {"prompt": pair["prompt"], "reference": pair["response"], "response": response}
    return fill(judge_prompt, {"case": json.dumps(case, ensure_ascii=False)})


def _is_score(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and 0 <= value <= HIGHEST
