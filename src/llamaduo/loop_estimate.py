"""What a whole loop will about take and cost, before it begins."""

import json
import time
from collections.abc import Iterable
from math import ceil
from typing import Any, NamedTuple

import pandas as pd

from llamaduo.history import entries_of, history_of
from llamaduo.iterations import Loop
from llamaduo.local_llm.chat import encode_pair, to_messages
from llamaduo.parameters import (
    EvaluationParameters,
    FairnessParameters,
    FineTuningParameters,
    LoopParameters,
    SynthesisParameters,
    for_iteration,
)
from llamaduo.service_llm.budget import Estimate, expected_tokens
from llamaduo.service_llm.client import ASKING, JUDGEMENT_TOKENS, JUDGING, Request, ServiceLLM

MEASURED_S = 0.2
"""For which a matrix product is repeated."""
WIDTH = 1024
TRAINING, DRAWING = 6, 2
"""Floating-point operations per parameter and token: forwards and backwards, or forwards alone."""
VARIANTS = 4.4
"""Counterfactuals per prompt of the fairness audit's sample, as on the demo."""
AUDITED = 55
"""Cases by which each judge is audited in each iteration: 25 canaries and 30 anchors."""
EFFICIENCY = 0.3
"""Share of a matrix product's speed that training and drawing reach, as on the demo."""
ELSE_S = 25.0
"""Of an iteration beside training and answers, as on the demo."""


class Plan(NamedTuple):
    """A loop that goes on to its last iteration."""

    loop: LoopParameters
    synthesis: SynthesisParameters
    fine_tuning: FineTuningParameters
    evaluation: EvaluationParameters
    fairness: FairnessParameters
    coverage: dict[str, pd.DataFrame]
    """``coverage_train``, ``coverage_test``, ``coverage_holdout``."""
    ready: int
    """Ready pairs, which are asked of nobody."""

    @property
    def new_pairs(self) -> list[int]:
        """Per iteration."""
        return [self.synthesis.new_pairs(n + 1) for n in range(self.loop.max_iterations)]

    @property
    def steps(self) -> list[int]:
        """Training steps per iteration, if all pairs that are asked for are kept."""
        tuning, known = self.fine_tuning, len(self.coverage["coverage_train"])
        replay = 1.0 if tuning.start == "base" else tuning.replay_share
        earlier, steps = 0.0, []
        for number, new in enumerate(self.new_pairs, start=1):
            rows = (known + new + replay * earlier) * (1 - tuning.validation_share)
            steps.append(tuning.steps(ceil(rows), for_iteration(tuning.epochs, number)))
            earlier += new
        return steps

    @property
    def drawn(self) -> int:
        """Responses of the whole loop: test set each time, holdout and fairness audit once."""
        each = self.evaluation.responses_per_prompt
        test, holdout = (len(self.coverage[f"coverage_{name}"]) for name in ("test", "holdout"))
        variants = VARIANTS * min(self.fairness.sample, test)
        return ceil(each * (self.loop.max_iterations * test + holdout) + variants)


class Lengths(NamedTuple):
    """Tokens of a pair in the mean, the chat template's included."""

    prompt: float
    response: float


def seconds_by(loop: Loop, plan: Plan) -> float | None:
    """The time of a loop, by how long an earlier one took on this machine with this model.

    Returns:
        None where the reports of the earlier one are gone.
    """
    entries = entries_of(loop)
    rows = [row for row in history_of(loop).iterations if row.seconds and row.iteration in entries]
    if not rows:
        return None
    trained = [entries[row.iteration]["training"] for row in rows]
    per_step = _total(trained, "seconds") / _total(trained, "steps")
    rest = sum((row.seconds or 0.0) - (row.training_seconds or 0.0) for row in rows) / len(rows)
    measured = entries[rows[0].iteration]["assessment"]["measured"]
    asked = len(plan.coverage["coverage_test"]) * plan.evaluation.responses_per_prompt
    share = asked / (measured["prompts"] * measured["responses_per_prompt"])
    return float(per_step * sum(plan.steps) + rest * share * plan.loop.max_iterations)


def _total(reports: list[dict[str, Any]], name: str) -> float:
    return float(sum(report[name] for report in reports))


def rough_seconds(plan: Plan, parameters: int, lengths: Lengths) -> float:
    """The time of a loop without its requests, by a matrix product on this machine."""
    tuning, decoding = plan.fine_tuning, plan.evaluation.decoding
    per_step = tuning.batch_size * tuning.gradient_accumulation_steps
    trained = sum(plan.steps) * per_step * (lengths.prompt + lengths.response)
    new_tokens = min(decoding.max_new_tokens, lengths.response)
    drawn = plan.drawn * new_tokens
    training = TRAINING * parameters * trained / flops(per_step * int(sum(lengths)))
    reading = DRAWING * parameters * plan.drawn * lengths.prompt / flops(WIDTH)
    drawing = DRAWING * parameters * drawn / flops(decoding.batch_size)
    return (training + reading + drawing) / EFFICIENCY + ELSE_S * plan.loop.max_iterations


def mean_lengths(tokenizer: Any, pairs: pd.DataFrame) -> Lengths:
    """Of pairs as the model reads them."""
    encoded = [
        encode_pair(tokenizer, to_messages(pair["system"], pair["prompt"]), pair["response"])
        for pair in pairs.to_dict("records")
    ]
    prompts, responses = zip(*encoded, strict=True)
    return Lengths(*(sum(map(len, part)) / len(encoded) for part in (prompts, responses)))


def flops(rows: int) -> float:
    """Floating-point operations per second in a matrix product of so many rows."""
    import torch

    from llamaduo.local_llm.base_model import compute_dtype, device

    left = torch.ones(max(1, rows), WIDTH, dtype=compute_dtype(), device=device())
    right = torch.ones(WIDTH, 4 * WIDTH, dtype=compute_dtype(), device=device())
    left @ right
    count, begun = 0, time.perf_counter()
    while (took := time.perf_counter() - begun) < MEASURED_S:
        product = left @ right
        product[0, 0].item()  # waits for a GPU
        count += 1
    return 2 * left.numel() * 4 * WIDTH * count / took


def estimate_requests(
    plan: Plan, prompts: dict[str, str], judge_prompt: str, models: dict[str, ServiceLLM]
) -> dict[str, Estimate]:
    """What a loop will about ask of each service LLM; baselines and preference left out.

    Requests are estimated by the texts of the coverage set.
    """
    train, test, holdout = (
        plan.coverage[f"coverage_{name}"] for name in ("train", "test", "holdout")
    )
    asked, evaluation = 0 if plan.ready else sum(plan.new_pairs), plan.evaluation
    per_request = plan.synthesis.pairs_per_request
    text = prompts[next(iter(plan.synthesis.strategies))]
    asking = [_request(text, pair, per_request * expected_tokens(pair)) for pair in _pairs(train)]
    judging = [_request(judge_prompt, pair, JUDGEMENT_TOKENS) for pair in _pairs(test)]
    repeats = evaluation.responses_per_prompt * evaluation.judgements_per_response
    judged = repeats * (plan.loop.max_iterations * len(test) + len(holdout))
    judged += AUDITED * plan.loop.max_iterations
    judged += asked if plan.synthesis.judging else 0
    return {
        name: _scaled(model.estimate(asking, ASKING), ceil(asked / per_request))
        if name == "service_llm"
        else _scaled(model.estimate(judging, JUDGING), judged)
        for name, model in models.items()
    }


def _pairs(table: pd.DataFrame) -> Iterable[str]:
    columns = ["system", "prompt", "response"]
    return (json.dumps(row, ensure_ascii=False) for row in table[columns].to_dict("records"))


def _request(prompt: str, pair: str, tokens: int) -> Request:
    messages: list[dict[str, Any]] = [{"role": "user", "content": prompt + pair}]
    return Request(messages, max_tokens=tokens, expected_tokens=tokens)


def _scaled(estimate: Estimate, requests: int) -> Estimate:
    share = requests / estimate.requests
    usd = None if estimate.usd is None else estimate.usd * share
    return Estimate(requests, estimate.tokens * share, usd, estimate.seconds * share)
