"""What a person reads after an iteration and after the loop: one HTML file each, all inside."""

from collections import Counter
from pathlib import Path
from typing import Any

import pandas as pd
import plotly.graph_objects as go
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from llamaduo.parameters import EvaluationParameters, IterationParameters
from llamaduo.pipelines.evaluation.formats import FILTERS
from llamaduo.pipelines.evaluation.judging import SCORES
from llamaduo.pipelines.evaluation.sentences import (
    conclude,
    coverage_notes,
    explain_verdict,
    notes_on_models,
    privacy_notes,
    privacy_warnings,
    synthesis_notes,
)
from llamaduo.schemas import WorstResponses
from llamaduo.service_llm.answers import count_replaced
from llamaduo.service_llm.client import ServiceLLM
from llamaduo.service_llm.jury import Judge
from llamaduo.service_llm.privacy import strictest
from llamaduo.service_llm.tally import spent_by
from llamaduo.service_llm.text import HIGHEST_SCORE

MOST_SHOWN = 20
"""Responses in the report."""
CANARY_NAMES = {
    "empty": "no text",
    "flattering": "flattery in place of an answer",
    "commanding": "an order to give 100",
    "reference": "the reference itself",
    "other_reference": "the reference of another prompt",
}
TUNINGS = {"sft": "SFT", "preference": "preference"}
REWARD_NOTE = (
    "Rewards are DPO's: beta times the log ratio of the adapter and the one that it started from. "
    "Margin: of the preferred response over the rejected one; accuracy: share of the pairs with a "
    "margin above 0; KL: in nats a response, estimated on the rejected ones, and so rather too "
    "high. On the validation pairs where there are any, else on the pairs of the last step."
)


def count_costs(
    verdict: dict[str, Any],
    service_llm: ServiceLLM,
    judge: Judge,
    iteration: IterationParameters,
) -> dict[str, Any]:
    """What the loop, or the run of a part of it, has spent up to this verdict.

    Requests that the journal answered cost nothing.

    Returns:
        ``iteration`` and the fields of ``spent_by``.
    """
    costs = spent_by(iteration.account, [service_llm, *judge.jury])
    return {"iteration": verdict["iteration"], **costs}


def report_privacy(
    synthesis_report: dict[str, Any],
    preference_judge_replies: pd.DataFrame,
    judge_replies: pd.DataFrame,
    audit_replies: pd.DataFrame,
    holdout_judge_replies: pd.DataFrame,
    judge: Judge,
) -> dict[str, Any]:
    """Count the personal details that were replaced in what was sent and in what trains.

    Returns:
        ``service_llm``: ``privacy`` of the synthesis report; ``judge``: ``detect`` of each member,
        and ``requests``, the number of each kind, of those on new pairs too.
    """
    replies = pd.concat(
        [preference_judge_replies, judge_replies, audit_replies, holdout_judge_replies]
    )
    of_pairs = synthesis_report["privacy"]["judge_requests"]
    return {
        "service_llm": synthesis_report["privacy"],
        "judge": {
            "detect": [member.gate.settings.detect for member in judge.jury],
            "requests": dict(
                sorted((Counter(count_replaced(replies)) + Counter(of_pairs)).items())
            ),
        },
    }


def choose_worst_responses(
    responses: pd.DataFrame,
    judgements: pd.DataFrame,
    pairs: pd.DataFrame,
    service_llm: ServiceLLM,
    judge: Judge,
) -> pd.DataFrame:
    """The responses that scored lowest, beside their references.

    They pass the strictest gate of teacher and judges: privacy may be off for a local judge alone.

    Returns:
        ``WorstResponses``, the worst first, those without a score last; none with full marks.
    """
    own = judgements.groupby(["id", "sample"], as_index=False)[list(SCORES)].mean()
    references = pairs.rename(columns={"response": "reference"})
    table = (
        responses[["id", "sample", "response", "finished"]]
        .merge(own, on=["id", "sample"], how="left")
        .merge(references[["id", "category", "prompt", "reference"]], on="id")
        .sort_values(["precision", "similarity", "id", "sample"], kind="stable")
    )
    imperfect = table[(table[list(SCORES)] != HIGHEST_SCORE).any(axis=1)]
    worst = imperfect.head(MOST_SHOWN).reset_index(drop=True)
    gate = strictest(each.gate for each in (service_llm, *judge.jury))
    protected = gate.protect_rows(worst, ["prompt", "reference", "response"])
    return protected[list(WorstResponses.to_schema().columns)]


def follow_categories(
    iteration_history: list[dict[str, Any]], synthesis_report: dict[str, Any]
) -> dict[str, dict[str, Any]]:
    """By category: pairs asked for, aimed and kept, and the precision ``before`` and ``after``.

    Empty where nothing was asked for, or nothing was scored before; ``before`` is unknown where it
    was measured otherwise.
    """
    if len(iteration_history) < 2 or not synthesis_report["asked"]:
        return {}
    previous, latest = (entry["assessment"] for entry in iteration_history[-2:])
    is_alike = previous["measured"] == latest["measured"]
    before, after = previous["categories"] if is_alike else {}, latest["categories"]
    asked = synthesis_report["by_category"]
    nothing = {"asked": 0, "aimed": 0, "kept": 0}
    unknown = {"precision": {"mean": None, "standard_error": None}}
    return {
        name: {
            **asked.get(name, nothing),
            "before": before.get(name, unknown)["precision"],
            "after": after.get(name, unknown)["precision"],
        }
        for name in sorted(asked.keys() | after.keys())
    }


def write_iteration_report(
    iteration_history: list[dict[str, Any]],
    confirmation: dict[str, Any],
    baseline_comparison: dict[str, Any],
    synthesis_report: dict[str, Any],
    fairness_audit: dict[str, Any],
    privacy_report: dict[str, Any],
    training_report: dict[str, Any],
    worst_responses: pd.DataFrame,
    score_plot: go.Figure,
    category_plot: go.Figure,
    diversity_plot: go.Figure,
    training_curve: go.Figure,
    evaluation: EvaluationParameters,
) -> str:
    """One iteration as an HTML page that needs nothing beside itself."""
    latest = iteration_history[-1]
    return _render(
        "iteration.html",
        iteration_history,
        confirmation,
        baseline_comparison,
        synthesis_report,
        evaluation,
        kicker="report of one iteration",
        plots=_embedded(
            scores=score_plot,
            categories=category_plot,
            diversity=diversity_plot,
            training=training_curve,
        ),
        training=training_report,
        assessment=latest["assessment"],
        judges=latest["judge_audit"]["judges"],
        fairness_audit=fairness_audit,
        widest_gaps=choose_widest_gaps(fairness_audit),
        canary_names=CANARY_NAMES,
        synthesis_notes=synthesis_notes(synthesis_report),
        by_category=follow_categories(iteration_history, synthesis_report),
        privacy_notes=privacy_notes(privacy_report),
        worst=worst_responses.astype(object)
        .where(worst_responses.notna(), None)
        .to_dict("records"),
    )


def write_loop_report(
    iteration_history: list[dict[str, Any]],
    confirmation: dict[str, Any],
    baseline_comparison: dict[str, Any],
    synthesis_report: dict[str, Any],
    fairness_audit: dict[str, Any],
    privacy_report: dict[str, Any],
    score_plot: go.Figure,
    diversity_plot: go.Figure,
    evaluation: EvaluationParameters,
) -> str:
    """The loop so far as an HTML page that needs nothing beside itself."""
    return _render(
        "loop.html",
        iteration_history,
        confirmation,
        baseline_comparison,
        synthesis_report,
        evaluation,
        kicker="report of the loop",
        fairness_audit=fairness_audit,
        privacy_warnings=privacy_warnings(privacy_report),
        tunings=TUNINGS,
        by_preference=any(
            entry["training"]["tuning"] == "preference" for entry in iteration_history
        ),
        plots=_embedded(scores=score_plot, diversity=diversity_plot),
    )


def choose_widest_gaps(fairness_audit: dict[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    """Where and how: of each measure and two groups the widest gap, an alarm before any other."""
    widest: dict[tuple[str, ...], dict[str, Any]] = {}
    audits = {
        "pairs": fairness_audit["pairs"]["gaps"],
        "pairs, balanced": fairness_audit["pairs"]["gaps_left"],
        "local LLM": fairness_audit["student"]["gaps"],
    }
    for where, gaps in audits.items():
        for gap in gaps:
            key = where, gap["measure"], *gap["groups"]
            rivals = widest.get(key, gap), gap
            widest[key] = max(rivals, key=lambda each: (each["alarm"], abs(each["gap"])))
    return [(key[0], gap) for key, gap in widest.items()]


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
    synthesis_report: dict[str, Any],
    evaluation: EvaluationParameters,
    **values: Any,
) -> str:
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).with_name("templates"), encoding="utf-8"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
    )
    environment.filters.update(FILTERS)
    latest = history[-1]
    verdict = latest["verdict"]
    return environment.get_template(template).render(
        title=conclude(verdict),
        verdict=verdict,
        sentences=explain_verdict(latest, confirmation, baselines, evaluation),
        notes=notes_on_models(
            baselines["setup"], asked_teacher=not synthesis_report["ready_pairs"]
        ),
        coverage_notes=coverage_notes(synthesis_report),
        history=history,
        confirmation=confirmation,
        baselines=baselines,
        evaluation=evaluation,
        scores=SCORES,
        reward_note=REWARD_NOTE,
        **values,
    )
