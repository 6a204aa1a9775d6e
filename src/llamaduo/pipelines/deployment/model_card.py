"""What whoever takes the student over must know of it, as a model card of Hugging Face."""

from pathlib import Path
from typing import Any

import pandas as pd
from huggingface_hub import EvalResult, ModelCardData
from markupsafe import Markup

from llamaduo.cards import write_card
from llamaduo.languages import languages_of
from llamaduo.local_llm.base_model import BaseModelSpec, device
from llamaduo.parameters import DeploymentParameters, EvaluationParameters
from llamaduo.pipelines.data_synthesis.data_card import READ
from llamaduo.pipelines.evaluation.judging import SCORES
from llamaduo.pipelines.evaluation.sentences import (
    explain_verdict,
    notes_on_models,
    privacy_notes,
)

TEMPLATE = Path(__file__).with_name("templates") / "model_card.md"
STUDENT = "this model"
FAIRNESS = ("pairs", "student")
"""Parts of the fairness audit."""
HOLDOUT = "this model, on the holdout"


def write_model_card(
    provenance: dict[str, Any],
    parity: list[dict[str, Any]],
    format_scores: list[dict[str, Any]],
    iteration_history: list[dict[str, Any]],
    confirmation: dict[str, Any],
    known_baselines: dict[str, Any] | None,
    fairness_audit: dict[str, Any],
    privacy_report: dict[str, Any],
    base_model: BaseModelSpec,
    training_set: pd.DataFrame,
    deployment: DeploymentParameters,
) -> str:
    """Tell what the model was made for, what it scored beside whom, and what it cannot.

    Returns:
        Markdown with front matter (hub-docs, modelcard.md); it holds figures, no text of a pair.
    """
    evaluation = EvaluationParameters.model_validate(provenance["evaluation"])
    latest = iteration_history[-1]
    measured = latest["assessment"]["measured"]
    baselines = comparable_baselines(known_baselines, base_model, measured)
    teachers = sorted(set(training_set["teacher"]) - {""})
    languages = sorted(languages_of(training_set["prompt"].head(READ)))
    values = {
        "name": Markup(deployment.name),  # noqa: S704  # the parameters allow letters and hyphens
        "task": deployment.task,
        "base_model": base_model,
        "provenance": provenance,
        "sentences": explain_verdict(
            latest, confirmation, {"rows": baselines, "local_to_service_llm": None}, evaluation
        ),
        "notes": notes_of(teachers, measured["judge"]),
        "rows": score_rows(latest, confirmation, baselines),
        "baselines": baselines,
        "confirmation": confirmation,
        "evaluation": evaluation,
        "formats": format_scores,
        "parity": parity,
        "device": "GPU" if device().type == "cuda" else "CPU",
        "judges": latest["judge_audit"]["judges"],
        "prompts": latest["assessment"]["prompts"],
        "gaps": [gap for part in FAIRNESS for gap in fairness_audit[part]["gaps"]],
        "unmeasured": [each for part in FAIRNESS for each in fairness_audit[part]["unmeasured"]],
        "alarms": fairness_audit["alarms"],
        "privacy_notes": privacy_notes(privacy_report),
        "costs": latest["costs"],
        "training": spent_on_training(iteration_history),
        "pairs": len(training_set),
        "teachers": teachers,
        "languages": languages,
    }
    return _write(values, languages, base_model, latest, deployment)


def notes_of(teachers: list[str], judges: list[str]) -> list[str]:
    """What ``notes_on_models`` says of each teacher and of the judges, once."""
    setups = [{"service_llm": teacher, "judge": judges} for teacher in teachers]
    notes = [note for setup in setups for note in notes_on_models(setup, asked_teacher=True)]
    notes += notes_on_models({"service_llm": "", "judge": judges}, asked_teacher=False)
    return [*dict.fromkeys(notes)]


def comparable_baselines(
    known_baselines: dict[str, Any] | None, base_model: BaseModelSpec, measured: dict[str, Any]
) -> list[dict[str, Any]]:
    """The rows of baselines that were measured as the iteration was; none of others."""
    if known_baselines is None:
        return []
    setup = {"base_model": base_model.portable_name, **measured}
    alike = all(known_baselines["setup"].get(name) == value for name, value in setup.items())
    return known_baselines["rows"] if alike else []


def score_rows(
    latest: dict[str, Any], confirmation: dict[str, Any], baselines: list[dict[str, Any]]
) -> list[dict[str, Any]]:
    """Whose scores the card shows: ``name`` and the summary of each."""
    own = [{"name": STUDENT, **latest["assessment"]}]
    if confirmation:
        own.append({"name": HOLDOUT, **confirmation})
    return [*own, *baselines]


def spent_on_training(iteration_history: list[dict[str, Any]]) -> dict[str, float | None]:
    """Seconds and watt hours of all trainings so far; null where a part is unknown."""
    trainings = [entry["training"] for entry in iteration_history]
    return {
        name: None if None in (known := [each[name] for each in trainings]) else sum(known)
        for name in ("seconds", "energy_wh")
    }


def _write(
    values: dict[str, Any],
    languages: list[str],
    base_model: BaseModelSpec,
    latest: dict[str, Any],
    deployment: DeploymentParameters,
) -> str:
    is_on_hub = not Path(base_model.name_or_path).is_dir()
    results = [
        EvalResult(
            task_type="text-generation",
            dataset_type="private",
            dataset_name="coverage test set",
            metric_type=name,
            metric_name=f"{name} (0-100) by {', '.join(latest['assessment']['measured']['judge'])}",
            metric_value=latest["assessment"][name]["mean"],
        )
        for name in SCORES
    ]
    front_matter = ModelCardData(
        base_model=base_model.name_or_path if is_on_hub else None,
        model_name=deployment.name,
        language=languages or None,
        library_name="transformers",
        pipeline_tag="text-generation",
        # The base model's licence and the terms of the teacher's provider hold at once.
        license="other",
        license_name="base-model-and-terms-of-the-teacher",
        tags=["llamaduo", "lora", "synthetic"],
        eval_results=[each for each in results if each.metric_value is not None] or None,
    )
    return write_card(TEMPLATE, front_matter, values)
