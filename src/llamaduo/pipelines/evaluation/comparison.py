"""The scores beside those of others on the same test set."""

import hashlib
import logging
from typing import Any

import pandas as pd

from llamaduo.local_llm.base_model import BaseModelSpec
from llamaduo.local_llm.engines import InferenceEngine
from llamaduo.parameters import EvaluationParameters
from llamaduo.pipelines.evaluation.judging import SCORES, prompt_version
from llamaduo.service_llm.client import ServiceLLM
from llamaduo.service_llm.jury import Judge
from llamaduo.statistics import bootstrap_interval, rounded

logger = logging.getLogger(__name__)

SERVICE_LLM = "service LLM itself"
"""Name of the baseline that the local LLM is measured by."""
SHOWN = {
    "train_sha256": "coverage_train",
    "test_sha256": "coverage_test",
    "prompts": "coverage_test",
}
"""The entries of the catalog that parts of a setup stand for."""


def describe_measurement(
    judge: Judge,
    judge_prompt: str,
    inference: InferenceEngine,
    coverage_test: pd.DataFrame,
    evaluation: EvaluationParameters,
) -> dict[str, Any]:
    """What scores rest on; those that rest on something else do not compare.

    Of the decoding, batch size and seed are left out: they change single responses by chance alone.
    """
    return {
        "judge": judge.models,
        "judge_prompt": prompt_version(judge_prompt),
        "judge_temperature": evaluation.judge_temperature,
        "responses_per_prompt": evaluation.responses_per_prompt,
        "judgements_per_response": evaluation.judgements_per_response,
        "inference": inference.describe(),
        "decoding": evaluation.decoding.model_dump(exclude={"batch_size", "seed"}),
        "prompts": len(coverage_test),
        "test_sha256": _digest(coverage_test),
    }


def describe_setup(
    base_model: BaseModelSpec,
    service_llm: ServiceLLM,
    measurement: dict[str, Any],
    coverage_train: pd.DataFrame,
) -> dict[str, Any]:
    """What baselines rest on: the measurement, the models, and the pairs that they are shown."""
    return {
        "base_model": base_model.portable_name,
        "service_llm": service_llm.model,
        "train_sha256": _digest(coverage_train),
        **measurement,
    }


def compare_baselines(
    known_baselines: dict[str, Any] | None,
    base_model: BaseModelSpec,
    service_llm: ServiceLLM,
    measurement: dict[str, Any],
    coverage_train: pd.DataFrame,
    scores: pd.DataFrame,
) -> dict[str, Any]:
    """Keep the baselines that were measured as this iteration is.

    Returns:
        ``setup`` and ``rows``, no rows where none were measured, or with another setup;
        ``local_to_service_llm``, by score the ratio of the two means with its interval, over the
        prompts for which both have a score; null without that baseline. For the precision this is
        the P-Match of the LlamaDuo paper, as a share.
    """
    setup = describe_setup(base_model, service_llm, measurement, coverage_train)
    known = known_baselines or {"setup": setup, "rows": []}
    keys = {**setup, **known["setup"]}
    others = [SHOWN.get(key, key) for key in keys if known["setup"].get(key) != setup.get(key)]
    if others:
        logger.warning(
            "the baselines at hand were measured with another %s, so that they do not compare; "
            "kedro run --pipelines=baselines measures them anew",
            ", ".join(dict.fromkeys(others)),
        )
    rows = [] if others else known["rows"]
    service = next((row for row in rows if row["name"] == SERVICE_LLM), None)
    return {
        "setup": setup,
        "rows": [{key: row[key] for key in row if key != "scores"} for row in rows],
        "local_to_service_llm": service
        and {
            name: _ratio(scores.set_index("id")[name], service["scores"][name]) for name in SCORES
        },
    }


def _ratio(local: pd.Series, service: dict[str, float | None]) -> dict[str, Any]:
    both = pd.DataFrame({"local": local, "service": pd.Series(service, dtype=float)}).dropna()
    means = both.mean()
    return {
        "prompts": len(both),
        "ratio": rounded(means["local"] / means["service"]) if means["service"] else None,
        "interval": bootstrap_interval(both["local"].to_numpy(), both["service"].to_numpy()),
    }


def _digest(pairs: pd.DataFrame) -> str:
    text = pairs[["system", "prompt", "response"]].to_json(orient="values", force_ascii=False)
    return hashlib.sha256(text.encode("utf-8")).hexdigest()
