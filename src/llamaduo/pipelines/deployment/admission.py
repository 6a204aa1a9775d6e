"""Whether an iteration may be released."""

import hashlib
import json
from typing import Any

import pandas as pd

from llamaduo.errors import InputError
from llamaduo.ledger import Ledger
from llamaduo.local_llm.engines import InferenceEngine
from llamaduo.parameters import (
    DeploymentParameters,
    EvaluationParameters,
    IterationParameters,
)
from llamaduo.pipelines.evaluation.comparison import SHOWN, describe_measurement
from llamaduo.pipelines.evaluation.sentences import conclude
from llamaduo.service_llm.jury import Judge

SHA256 = 64
"""Digits; an input's fingerprint of another length describes it by its path."""


def admit_iteration(
    verdict: dict[str, Any],
    measurement: dict[str, Any],
    ledger: Ledger,
    judge: Judge,
    judge_prompt: str,
    inference: InferenceEngine,
    coverage_test: pd.DataFrame,
    evaluation: EvaluationParameters,
    deployment: DeploymentParameters,
    iteration: IterationParameters,
) -> dict[str, Any]:
    """Refuse an iteration that did not reach its target, unless it is forced.

    What a release says of its scores holds only where test set, judge and decoding are those of the
    iteration.

    Returns:
        Where the release comes from: ``loop``, ``iteration`` and its ``verdict`` as a sentence,
        ``target_reached`` and ``advisory``; of the start or resume in which it ran ``at`` (UTC),
        ``commit``, ``versions`` of packages, ``parameters_sha256``, the ``evaluation`` parameters
        and ``inputs``, the SHA-256 of its files; and the ``deployment`` parameters of now.

    Raises:
        InputError: It is refused.
    """
    said = conclude(verdict)
    if not (verdict["target_reached"] or deployment.force):
        raise InputError(
            f"nothing is released of {iteration.loop}/{iteration.index}. {said}. To release it all "
            "the same, with this in its model card: --params=deployment.force=true; to choose "
            "another iteration: --params=at=LOOP/ITERATION (kedro loops lists them)"
        )
    now = describe_measurement(judge, judge_prompt, inference, coverage_test, evaluation)
    if changed := [name for name, value in measurement.items() if now.get(name) != value]:
        raise InputError(
            f"nothing is released of {iteration.loop}/{iteration.index}: it was measured with "
            f"another {', '.join(dict.fromkeys(SHOWN.get(name, name) for name in changed))} than "
            "there is now, so that its scores would be held against those of other answers; put "
            "back what it was measured with"
        )
    began = ledger.start_of(iteration.loop, iteration.index)
    parameters = json.dumps(began["parameters"], sort_keys=True, ensure_ascii=False)
    return {
        "loop": iteration.loop,
        "iteration": iteration.index,
        "verdict": said,
        "target_reached": verdict["target_reached"],
        "advisory": verdict["advisory"],
        "at": began["at"],
        "commit": began["versions"]["commit"],
        "versions": {n: each for n, each in began["versions"].items() if n != "commit"},
        "parameters_sha256": hashlib.sha256(parameters.encode()).hexdigest(),
        "evaluation": began["parameters"]["evaluation"],
        "inputs": {name: found for name, found in began["inputs"].items() if len(found) == SHA256},
        "deployment": deployment.model_dump(mode="json"),
    }
