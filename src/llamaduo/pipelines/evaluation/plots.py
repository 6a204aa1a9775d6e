"""Plots for the reports and for Kedro-Viz."""

from typing import Any

import plotly.graph_objects as go

from llamaduo.parameters import EvaluationParameters
from llamaduo.pipelines.evaluation.judging import SCORES

COLOURS = {"similarity": "#5b8def", "precision": "#c2410c"}
DIVERSITY = {
    "prompt_distinct_1": "distinct-1 of prompts",
    "prompt_distinct_2": "distinct-2 of prompts",
    "response_distinct_1": "distinct-1 of responses",
    "response_distinct_2": "distinct-2 of responses",
    "nearest_distance": "distance to the nearest prompt",
    "category_entropy": "entropy over the seeds' categories",
    "strategy_entropy": "entropy over strategies",
    "test_reached": "test neighbourhoods reached",
    "test_reached_if_alike": "the same, if drawn like the test set",
}


def plot_scores(
    iteration_history: list[dict[str, Any]],
    baseline_comparison: dict[str, Any],
    evaluation: EvaluationParameters,
) -> go.Figure:
    """Both scores over the iterations with their 95 % intervals, targets and baselines."""
    figure = go.Figure()
    assessments = [entry["assessment"] for entry in iteration_history]
    for name, target in evaluation.targets.items():
        means = [each[name]["mean"] for each in assessments]
        low, high = (
            [
                _length(mean, each[name]["interval"][end])
                for mean, each in zip(means, assessments, strict=True)
            ]
            for end in (0, 1)
        )
        figure.add_scatter(
            x=[each["iteration"] for each in assessments],
            y=means,
            error_y={"array": high, "arrayminus": low, "symmetric": False},
            name=name,
            mode="lines+markers",
            line_color=COLOURS[name],
        )
        figure.add_hline(
            y=target,
            line_dash="dot",
            line_color=COLOURS[name],
            annotation_text=f"target {name} {target:g}",
            annotation_position="top right" if name == "similarity" else "bottom right",
        )
    for row in baseline_comparison["rows"]:
        mean = row["precision"]["mean"]
        if mean is not None:
            figure.add_hline(
                y=mean,
                line_width=1,
                line_color="grey",
                annotation_text=f"precision of {row['name']}",
                annotation_position="top left",
            )
    figure.update_xaxes(title="iteration", dtick=1)
    return _finished(figure, "Scores on the test set")


def plot_categories(assessment: dict[str, Any], evaluation: EvaluationParameters) -> go.Figure:
    """Both scores by category, with standard errors and the number of prompts."""
    figure = go.Figure()
    categories = assessment["categories"]
    labels = [f"{name or 'no category'} ({own['prompts']})" for name, own in categories.items()]
    for name in SCORES:
        figure.add_bar(
            x=labels,
            y=[own[name]["mean"] for own in categories.values()],
            error_y={"array": [own[name]["standard_error"] or 0 for own in categories.values()]},
            name=name,
            marker_color=COLOURS[name],
        )
    figure.add_hline(y=evaluation.target_precision, line_dash="dot", line_color="grey")
    figure.update_xaxes(title="category (prompts)", tickangle=30)
    return _finished(figure, "Scores by category, iteration " + str(assessment["iteration"]))


def plot_diversity(iteration_history: list[dict[str, Any]]) -> go.Figure:
    """The figures of ``measure_diversity`` over the iterations; what is null is not drawn."""
    figure = go.Figure()
    measured = [entry["synthesis"]["diversity"] for entry in iteration_history]
    for key, name in DIVERSITY.items():
        figure.add_scatter(
            x=[each["iteration"] for each in measured],
            y=[each[key] for each in measured],
            name=name,
            mode="lines+markers",
            line_dash="dot" if key == "test_reached_if_alike" else "solid",
        )
    figure.update_xaxes(title="iteration", dtick=1)
    _finished(figure, "Diversity of the new pairs")
    figure.update_yaxes(title="0–1", range=[0, 1.05])
    # Beside the plot: above it nine names would cover the title.
    return figure.update_layout(legend={"orientation": "v", "y": 1, "yanchor": "top"})


def _length(mean: float | None, end: float | None) -> float | None:
    """Of one arm of an error bar; None, which draws no bar, where there is no interval."""
    return None if mean is None or end is None else abs(end - mean)


def _finished(figure: go.Figure, title: str) -> go.Figure:
    figure.update_yaxes(title="score, 0–100", range=[0, 105])
    return figure.update_layout(
        title=title,
        # At the right: in Kedro-Viz, whose margins are its own, the title is on the left.
        legend={"orientation": "h", "x": 1, "xanchor": "right", "y": 1.02, "yanchor": "bottom"},
        margin={"l": 50, "r": 20, "t": 80, "b": 50},
        template="plotly_white",
    )
