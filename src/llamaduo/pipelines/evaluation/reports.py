"""What a person reads after an iteration and after the loop: one HTML file each, all inside."""

from pathlib import Path
from typing import Any

import pandas as pd
import plotly.graph_objects as go
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from llamaduo.parameters import EvaluationParameters, IterationParameters
from llamaduo.pipelines.evaluation.judging import SCORES
from llamaduo.schemas import WorstResponses
from llamaduo.service_llm.client import ServiceLLM
from llamaduo.service_llm.jury import Judge
from llamaduo.service_llm.tally import spent_by
from llamaduo.service_llm.text import HIGHEST_SCORE

MOST_SHOWN = 20
"""Responses in the report."""
REASONS = {
    "target": "the target is reached, and the holdout confirms it",
    "budget": "the budget of the loop is spent; what was bought is kept",
    "judge_failed": "the judge cannot be relied on",
    "target_not_confirmed": "the test set meets the target, but the holdout does not confirm it",
    "regression": "a score has fallen twice in a row",
    "no_new_data": "the new pairs could not be used, or nearly all repeated known ones",
    "plateau": "the last iterations brought no proven gain",
    "max_iterations": "the last iteration that was allowed has ended without reaching the target",
    None: "the target is not reached yet",
}
STAND_IN_NOTE = (
    "The {role} here was {model}, an embedded stand-in that knows this one demo task; it stands "
    "for no real service LLM."
)
CANARY_NAMES = {
    "empty": "no text",
    "flattering": "flattery in place of an answer",
    "commanding": "an order to give 100",
    "reference": "the reference itself",
    "other_reference": "the reference of another prompt",
}


def count_costs(
    verdict: dict[str, Any],
    service_llm: ServiceLLM,
    judge: Judge,
    iteration: IterationParameters,
) -> dict[str, Any]:
    """What the loop has spent up to this verdict: ``usd``, ``tokens``, ``requests``, ``unpriced``.

    Requests that the journal answered cost nothing.
    """
    costs = spent_by(iteration.account, [service_llm, *judge.jury])
    return {"iteration": verdict["iteration"], **costs}


def choose_worst_responses(
    responses: pd.DataFrame, judgements: pd.DataFrame, pairs: pd.DataFrame
) -> pd.DataFrame:
    """The responses that scored lowest, beside their references.

    Returns:
        ``WorstResponses``, the worst first, those without a score last; none with full marks.
    """
    own = judgements.groupby(["id", "sample"], as_index=False)[list(SCORES)].mean()
    references = pairs.rename(columns={"response": "reference"})
    table = (
        responses[["id", "sample", "response"]]
        .merge(own, on=["id", "sample"], how="left")
        .merge(references[["id", "category", "prompt", "reference"]], on="id")
        .sort_values(["precision", "similarity", "id", "sample"], kind="stable")
    )
    imperfect = table[(table[list(SCORES)] != HIGHEST_SCORE).any(axis=1)]
    columns = list(WorstResponses.to_schema().columns)
    return imperfect.head(MOST_SHOWN)[columns].reset_index(drop=True)


def write_iteration_report(
    iteration_history: list[dict[str, Any]],
    confirmation: dict[str, Any],
    baseline_comparison: dict[str, Any],
    synthesis_report: dict[str, Any],
    worst_responses: pd.DataFrame,
    score_plot: go.Figure,
    category_plot: go.Figure,
    evaluation: EvaluationParameters,
) -> str:
    """One iteration as an HTML page that needs nothing beside itself."""
    latest = iteration_history[-1]
    setup = baseline_comparison["setup"]
    taught = setup["service_llm"] in latest["assessment"]["measured"]["models"]
    return _render(
        "iteration.html",
        iteration_history,
        confirmation,
        baseline_comparison,
        evaluation,
        kicker="report of one iteration",
        plots=_embedded(scores=score_plot, categories=category_plot),
        assessment=latest["assessment"],
        judges=latest["judge_audit"]["judges"],
        canary_names=CANARY_NAMES,
        same_model=setup["service_llm"] if taught else None,
        synthesis_notes=synthesis_notes(synthesis_report),
        worst=worst_responses.astype(object)
        .where(worst_responses.notna(), None)
        .to_dict("records"),
    )


def write_loop_report(
    iteration_history: list[dict[str, Any]],
    confirmation: dict[str, Any],
    baseline_comparison: dict[str, Any],
    score_plot: go.Figure,
    evaluation: EvaluationParameters,
) -> str:
    """The loop so far as an HTML page that needs nothing beside itself."""
    return _render(
        "loop.html",
        iteration_history,
        confirmation,
        baseline_comparison,
        evaluation,
        kicker="report of the loop",
        plots=_embedded(scores=score_plot),
    )


def explain_verdict(
    latest: dict[str, Any],
    confirmation: dict[str, Any],
    baseline_comparison: dict[str, Any],
    evaluation: EvaluationParameters,
) -> list[str]:
    """The verdict for whoever must decide, in plain sentences."""
    verdict, assessment = latest["verdict"], latest["assessment"]
    precision, target = assessment["precision"], evaluation.target_precision
    low, high = precision["interval"]
    within = "" if low is None else f" (95 % interval {low:.1f} to {high:.1f})"
    sentences = [
        "Yes: on the evidence of this loop the local LLM may take over."
        if verdict["target_reached"]
        else "No verdict: the scores of this iteration cannot be relied on."
        if verdict["obstacles"]
        else "Not proven: the local LLM may not take over yet."
        if precision["mean"] is not None and precision["mean"] >= target
        else "No: the local LLM is not good enough yet."
    ]
    sentences += [f"{each[0].upper()}{each[1:]}." for each in verdict["obstacles"]]
    if precision["mean"] is not None:
        sentences.append(
            f"On {assessment['prompts']} test prompts it gets {precision['mean']:.1f} of 100 "
            f"points for precision{within}; the target is {target:g}."
        )
    if confirmation and confirmation["precision"]["mean"] is not None:
        sentences.append(
            f"On {confirmation['prompts']} holdout prompts, which steered nothing, it gets "
            f"{confirmation['precision']['mean']:.1f}."
        )
    ratio = (baseline_comparison["local_to_service_llm"] or {}).get("precision", {}).get("ratio")
    if ratio is not None:
        sentences.append(f"That is {100 * ratio:.0f} % of what the service LLM itself gets.")
    if verdict["stop"]:
        sentences.append(f"The loop has ended: {REASONS[verdict['reason']]}.")
        if verdict["best_iteration"] != verdict["iteration"]:
            sentences.append(f"Its best iteration is number {verdict['best_iteration']}.")
    if verdict["advisory"]:
        sentences.append(
            f"Advisory only: fewer than {evaluation.min_prompts} prompts leave much to chance."
        )
    return sentences


def synthesis_notes(synthesis_report: dict[str, Any]) -> list[str]:
    """What became of the new pairs, and which coverage pairs are left out."""
    notes = []
    if synthesis_report["asked"]:
        dropped = _listed(synthesis_report["dropped"])
        notes.append(
            f"New pairs of this iteration: {synthesis_report['kept']} of "
            f"{synthesis_report['asked']} asked for{f'; dropped: {dropped}' if dropped else ''}."
        )
    if left_out := _listed(synthesis_report["coverage_left_out"]):
        notes.append(f"Coverage pairs that are neither shown nor trained on: {left_out}.")
    return notes


def _listed(counts: dict[str, int]) -> str:
    return ", ".join(f"{count} {reason}" for reason, count in counts.items())


def _embedded(**figures: go.Figure) -> dict[str, Markup]:
    """Plots as HTML, the first one with the whole of Plotly, which escapes their text itself."""
    return {
        name: Markup(  # noqa: S704  # made by Plotly
            figure.to_html(
                full_html=False,
                include_plotlyjs=number == 0,
                div_id=name,
                default_height="420px",
                config={"responsive": True, "displayModeBar": False},
            )
        )
        for number, (name, figure) in enumerate(figures.items())
    }


def _render(
    template: str,
    history: list[dict[str, Any]],
    confirmation: dict[str, Any],
    baselines: dict[str, Any],
    evaluation: EvaluationParameters,
    **values: Any,
) -> str:
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).with_name("templates"), encoding="utf-8"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
    )
    environment.filters.update(
        number=_number, signed=_signed, interval=_interval, percentages=_percentages, plain=_plain
    )
    latest = history[-1]
    verdict = latest["verdict"]
    roles = ("service LLM", "service_llm"), ("judge", "judge")
    return environment.get_template(template).render(
        title=f"Iteration {verdict['iteration']}: {REASONS[verdict['reason']]}",
        verdict=verdict,
        sentences=explain_verdict(latest, confirmation, baselines, evaluation),
        stand_in_notes=[
            STAND_IN_NOTE.format(role=role, model=baselines["setup"][key])
            for role, key in roles
            if "stand-in" in baselines["setup"][key]
        ],
        history=history,
        confirmation=confirmation,
        baselines=baselines,
        evaluation=evaluation,
        scores=SCORES,
        **values,
    )


def _number(value: float | None, digits: int = 1) -> str:
    return "–" if value is None else f"{value:.{digits}f}"


def _signed(value: float | None) -> str:
    return "–" if value is None else f"{value:+.1f}"


def _interval(ends: list[float | None]) -> str:
    low, high = ends
    return "–" if low is None else f"{low:.1f} to {high:.1f}"


def _percentages(ends: list[float | None]) -> str:
    return _interval([None if end is None else 100 * end for end in ends])


def _plain(value: Any) -> str:
    return "–" if value is None else f"{value:g}" if isinstance(value, float) else str(value)
