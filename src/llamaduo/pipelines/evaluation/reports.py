"""What a person reads after an iteration."""

import hashlib
from typing import Any

import pandas as pd
import plotly.graph_objects as go

from llamaduo.local_llm.base_model import BaseModelSpec
from llamaduo.parameters import EvaluationParameters
from llamaduo.pipelines.evaluation.nodes import SCORES
from llamaduo.service_llm.client import ServiceLLM

REASONS = {
    "target": "the target is reached, and the holdout confirms it",
    "budget": "the budget of the loop is spent; what was bought is kept",
    "target_not_confirmed": "the test set meets the target, but the holdout does not confirm it",
    "regression": "the precision has fallen twice in a row",
    "no_new_data": "none of the new pairs could be used, or none came",
    "plateau": "the last iterations brought no proven gain",
    "max_iterations": "the last iteration that was allowed has ended without reaching the target",
    None: "the target is not reached yet",
}
STAND_IN_NOTE = (
    "The {role} here was **{model}**, an embedded stand-in that knows this one demo task; it "
    "stands for no real service LLM."
)


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


def plot_scores(
    iteration_history: list[dict[str, Any]],
    comparable_baselines: dict[str, Any],
    evaluation: EvaluationParameters,
) -> go.Figure:
    """Both scores over the iterations, with standard errors, targets and baselines."""
    figure = go.Figure()
    iterations = [entry["assessment"]["iteration"] for entry in iteration_history]
    for name, target in zip(
        SCORES, (evaluation.target_similarity, evaluation.target_precision), strict=True
    ):
        figure.add_scatter(
            x=iterations,
            y=[entry["assessment"][name]["mean"] for entry in iteration_history],
            error_y={
                "array": [
                    entry["assessment"][name]["standard_error"] for entry in iteration_history
                ]
            },
            name=name,
            mode="lines+markers",
        )
        figure.add_hline(y=target, line_dash="dot", annotation_text=f"target {name} {target:g}")
    for row in comparable_baselines["rows"]:
        mean = row["precision"]["mean"]
        if mean is not None:
            label = f"precision of {row['name']}"
            figure.add_hline(y=mean, line_width=1, line_color="grey", annotation_text=label)
    figure.update_layout(
        title="Scores on the test set", xaxis_title="iteration", yaxis_title="score, 0–100"
    )
    figure.update_xaxes(dtick=1)
    figure.update_yaxes(range=[0, 100])
    return figure


def write_report(
    iteration_history: list[dict[str, Any]],
    confirmation: dict[str, Any],
    comparable_baselines: dict[str, Any],
    synthesis_report: dict[str, Any],
    evaluation: EvaluationParameters,
) -> str:
    """The loop so far, in Markdown."""
    verdict = iteration_history[-1]["verdict"]
    lines = [f"# Iteration {verdict['iteration']}: {REASONS[verdict['reason']]}", ""]
    setup = comparable_baselines["setup"]
    for role, model in (("service LLM", setup["service_llm"]), ("judge", setup["judge"])):
        if "stand-in" in model:
            lines += [STAND_IN_NOTE.format(role=role, model=model), ""]
    rule = "mean" if evaluation.verdict == "mean" else "lower bound"
    lines += [
        f"Targets: similarity {evaluation.target_similarity:g}, precision "
        f"{evaluation.target_precision:g} by the {rule}; scores are 0–100, ± standard error over "
        "prompts. A lower bound counts every prompt that was not judged as 0.",
        "",
        "| | pairs | similarity | lower bound | precision | lower bound | all right | judged |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for entry in iteration_history:
        assessment = entry["assessment"]
        label = f"iteration {assessment['iteration']}"
        lines.append(_row(label, str(entry["training_pairs"]), assessment))
    if confirmation:
        lines.append(_row("holdout", "", confirmation))
    lines += [_row(row["name"], "", row, bounds=False) for row in comparable_baselines["rows"]]
    lines += ["", *_baseline_note(comparable_baselines), *_synthesis_note(synthesis_report)]
    if verdict["advisory"]:
        lines += [
            f"Advisory: fewer than {evaluation.min_prompts} prompts leave much to chance.",
            "",
        ]
    lines += [
        "The test set steers this loop, so that its scores flatter; only the holdout is clean.",
        "",
    ]
    return "\n".join(lines)


def _baseline_note(comparable_baselines: dict[str, Any]) -> list[str]:
    setup = comparable_baselines["setup"]
    if not comparable_baselines["rows"]:
        return [
            "No baselines with these models and this test set: `kedro run --pipelines=baselines` "
            "measures the untouched base model, the constant answer and the service LLM itself.",
            "",
        ]
    return [
        f"Baselines: base model {setup['base_model']}, service LLM {setup['service_llm']}, "
        f"judge {setup['judge']}, {setup['prompts']} test prompts.",
        "",
    ]


def _synthesis_note(synthesis_report: dict[str, Any]) -> list[str]:
    notes = []
    if synthesis_report["asked"]:
        dropped = _listed(synthesis_report["dropped"])
        notes.append(
            f"New pairs of this iteration: {synthesis_report['kept']} of "
            f"{synthesis_report['asked']} asked for{f'; dropped: {dropped}' if dropped else ''}."
        )
    if left_out := _listed(synthesis_report["coverage_left_out"]):
        notes.append(f"Coverage pairs that are neither shown nor trained on: {left_out}.")
    return [line for note in notes for line in (note, "")]


def _listed(counts: dict[str, int]) -> str:
    return ", ".join(f"{count} {reason}" for reason, count in counts.items())


def _row(label: str, pairs: str, summary: dict[str, Any], *, bounds: bool = True) -> str:
    cells = [label, pairs]
    for name in SCORES:
        score = summary[name]
        cells.append(f"{_shown(score['mean'])} ± {_shown(score['standard_error'])}")
        cells.append(_shown(score["lower_bound"]) if bounds else "")
    cells.append(f"{_shown(summary['full_marks_percentage'])} %")
    cells.append(f"{100 * summary['judged_share']:.0f} %")
    return f"| {' | '.join(cells)} |"


def _shown(value: float | None) -> str:
    return "–" if value is None else f"{value:.1f}"
