"""From responses to scores."""

import hashlib
import json
import logging
from typing import Any, cast

import pandas as pd

from llamaduo.parameters import EvaluationParameters, IterationParameters
from llamaduo.schemas import Judgements, JudgeReplies, Scores
from llamaduo.service_llm.answers import reply_columns
from llamaduo.service_llm.client import JUDGEMENT_TOKENS, JUDGING, Request
from llamaduo.service_llm.failures import Failure
from llamaduo.service_llm.jury import Judge
from llamaduo.service_llm.text import HIGHEST_SCORE, fill, read_json, read_score

logger = logging.getLogger(__name__)

SCORES = ("similarity", "precision")
SHOWN = ("system", "prompt", "reference", "response")
"""What the judge is shown of a case; no system message where there is none."""

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


def ask_judge(
    responses: pd.DataFrame,
    pairs: pd.DataFrame,
    judge_prompt: str,
    judge: Judge,
    evaluation: EvaluationParameters,
    iteration: IterationParameters,
) -> pd.DataFrame:
    """Let each member of the jury score each response M times against its reference.

    Returns:
        ``JudgeReplies``, raw.

    Raises:
        ServiceLLMError: Every request failed.
    """
    references = pairs.rename(columns={"response": "reference"})
    repeats = pd.DataFrame({"repeat": range(1, evaluation.judgements_per_response + 1)})
    cases = (
        responses[["id", "sample", "response"]]
        .merge(references[["id", "system", "prompt", "reference"]], on="id", how="left")
        .merge(repeats, how="cross")
    )
    return judge_cases(cases, judge_prompt, judge, evaluation, iteration, JUDGING)


def judge_cases(
    cases: pd.DataFrame,
    judge_prompt: str,
    judge: Judge,
    evaluation: EvaluationParameters,
    iteration: IterationParameters,
    what: str,
    *,
    needed: bool = True,
) -> pd.DataFrame:
    """Let each member of the jury score cases: ``id``, ``sample``, ``repeat`` and what is shown.

    Args:
        what: Names the work in the progress display and in the journal.
        needed: Whether nothing can go on where no member answers anything.

    Returns:
        ``JudgeReplies``: all cases of the first member, then all of the second, and so on.
    """
    if cases.empty:
        return JudgeReplies.empty()
    replies = [
        reply
        for member in judge.jury
        for reply in member.complete_all(
            _requests(member.gate.protect_rows(cases, [*SHOWN]), judge_prompt, evaluation),
            what,
            iteration.account,
        )
    ]
    asked = cases[["id", "sample", "repeat"]].assign(prompt_version=prompt_version(judge_prompt))
    table = pd.concat([asked.assign(judge=model) for model in judge.models], ignore_index=True)
    return table.assign(**reply_columns(replies, needed=needed))


def _requests(
    protected: pd.DataFrame, judge_prompt: str, evaluation: EvaluationParameters
) -> list[Request]:
    """The mark is a digest of the case, so that details must be replaced before it is made."""
    return [
        Request(
            messages=[{"role": "user", "content": request_text(judge_prompt, case)}],
            max_tokens=evaluation.judge_max_tokens,
            expected_tokens=JUDGEMENT_TOKENS,
            temperature=evaluation.judge_temperature,
            response_schema=JUDGEMENT_SCHEMA,
            repeat=case["repeat"],
            replaced=case["replaced"],
        )
        for case in protected.to_dict("records")
    ]


def request_text(judge_prompt: str, case: dict[Any, Any]) -> str:
    """The judge prompt around a case.

    The case is JSON, and the prompt fences it by a mark that nothing inside can hold: it is a
    digest of the whole case. Equal cases get equal marks, so that the journal knows them again.
    """
    data = json.dumps(
        {name: case[name] for name in SHOWN if case[name] or name != "system"}, ensure_ascii=False
    )
    nonce = hashlib.sha256(data.encode("utf-8")).hexdigest()[:16]
    return fill(judge_prompt, {"case": data, "nonce": nonce})


def prompt_version(judge_prompt: str) -> str:
    """A digest of the judge prompt: scores by another one do not compare."""
    return hashlib.sha256(judge_prompt.encode("utf-8")).hexdigest()[:12]


def parse_judgements(judge_replies: pd.DataFrame) -> pd.DataFrame:
    """Read the scores; a reply that cannot be read, or a score off the scale, is null.

    Returns:
        ``Judgements``, one row per reply.
    """
    if judge_replies.empty:
        return Judgements.empty()
    read = [read_judgement(text) for text in judge_replies["text"]]
    judgements = judge_replies[["id", "sample", "repeat", "judge", "text", "failure"]].join(
        pd.DataFrame(read, index=judge_replies.index, columns=list(SCORES), dtype=float)
    )
    unread = int(judgements["precision"].isna().sum())
    if unread:
        logger.warning("%d of %d judgements cannot be read", unread, len(judgements))
    return judgements


def read_judgement(text: Any) -> dict[str, float | None]:
    """Both scores (0–100) of one reply, or null for both."""
    found = read_json(text, _scores_of) if isinstance(text, str) else None
    return {name: found[name] if found else None for name in SCORES}


def score_prompts(
    judgements: pd.DataFrame,
    responses: pd.DataFrame,
    pairs: pd.DataFrame,
    evaluation: EvaluationParameters,
) -> pd.DataFrame:
    """Average the readable judgements of each prompt.

    Returns:
        ``Scores``, one row per prompt of ``pairs``, in their order.
    """
    if pairs.empty:
        return Scores.empty()
    full = judgements.assign(
        full_marks=(judgements["precision"] == HIGHEST_SCORE)
        .astype(float)
        .where(judgements["precision"].notna()),
        over_budget=judgements["failure"] == Failure.OVER_BUDGET,
    )
    by_prompt = full.groupby("id")[[*SCORES, "full_marks"]]
    per_judge = evaluation.responses_per_prompt * evaluation.judgements_per_response
    scores = by_prompt.mean().assign(
        judged=by_prompt.count()["precision"],
        over_budget=full.groupby("id")["over_budget"].sum(),
        cut_off=(~responses["finished"].astype(bool)).groupby(responses["id"]).sum(),
    )
    return (
        pairs[["id", "category"]]
        .merge(scores, on="id", how="left")
        .fillna({"judged": 0, "over_budget": 0, "cut_off": 0})
        .assign(expected=per_judge * max(1, judgements["judge"].nunique()))
    )


def _scores_of(value: dict[str, Any]) -> dict[str, float] | None:
    scores = {name: read_score(value.get(name)) for name in SCORES}
    return None if None in scores.values() else cast("dict[str, float]", scores)
