"""What a run shows: each node as it begins, and the iterations so far."""

import logging
from typing import Any

from kedro.framework.hooks import hook_impl
from kedro.io import DataCatalog
from kedro.pipeline import Node, Pipeline
from rich.console import Console
from rich.table import Table

from llamaduo.parameters import EvaluationParameters, LoopParameters
from llamaduo.pipelines.evaluation.sentences import ADVISORY, doubt_service_llm, headline

logger = logging.getLogger(__name__)

REPORTS = {"evaluation_report": "report", "loop_report": "whole loop"}
COVERAGE = {"coverage_train", "coverage_test", "coverage_holdout"}


class Progress:
    """Shows each node as it begins, the iterations so far after each one, and where reports lie."""

    def __init__(self) -> None:
        self._environment = ""

    @hook_impl
    def before_pipeline_run(self, run_params: dict[str, Any]) -> None:
        """Keep what commands that are named later need."""
        env = run_params["env"]
        self._environment = f" --env={env}" if env and env != "local" else ""

    @hook_impl
    def before_node_run(self, node: Node) -> None:
        """One short line; Kedro's own names all inputs and outputs."""
        logger.info("%s", node.name)

    @hook_impl
    def after_iteration(self, verdict: dict[str, Any], catalog: DataCatalog) -> None:
        """Print the table and the verdict, from the catalog."""
        history = catalog.load("iteration_history")
        table = Table(title="Scores on the test set (0–100, ± standard error over prompts)")
        for column in (
            "iteration",
            "pairs",
            "similarity",
            "precision",
            "lower bound",
            "full marks",
        ):
            table.add_column(column, justify="right")
        for entry in history:
            assessment = entry["assessment"]
            similarity, precision = assessment["similarity"], assessment["precision"]
            table.add_row(
                str(assessment["iteration"]),
                str(entry["training_pairs"]),
                _mean(similarity),
                _mean(precision),
                _shown(precision["lower_bound"]),
                f"{_shown(assessment['full_marks_percentage'])} %",
            )
        console = Console()
        console.print(table)
        confirmation = catalog.load("confirmation")
        if confirmation:
            console.print(
                f"holdout: similarity {_mean(confirmation['similarity'])}, "
                f"precision {_mean(confirmation['precision'])}, "
                f"lower bound {_shown(confirmation['precision']['lower_bound'])}"
            )
        console.print(_spent(catalog.load("costs")))
        evaluation = EvaluationParameters.model_validate(catalog.load("params:evaluation"))
        console.print(headline(verdict, history[-1]["assessment"], evaluation))
        for obstacle in verdict["obstacles"]:
            console.print(f"- {obstacle}", markup=False)
        for alarm in verdict["alarms"]:
            console.print(f"fairness: {alarm}", markup=False)
        advice = f" ({ADVISORY})" if verdict["advisory"] else ""
        if verdict["target_reached"]:
            console.print(f"target reached in iteration {verdict['iteration']}{advice}")
        elif verdict["stop"]:
            console.print(f"stopped without reaching the target: {verdict['reason']}{advice}")
        if verdict["stop"]:
            _show_reports(console, catalog, set(REPORTS))
            console.print(f"lineage and plots: kedro viz run{self._environment}")
        if verdict["target_reached"]:
            console.print(f"release it: kedro run --pipelines=deployment{self._environment}")

    @hook_impl
    def after_pipeline_run(
        self, run_params: dict[str, Any], pipeline: Pipeline, catalog: DataCatalog
    ) -> None:
        """Print what a run that is no loop has made for people to read."""
        if "LoopRunner" in run_params["runner"]:
            return
        console = Console()
        if "baselines" in pipeline.all_outputs():
            self._show_baselines(console, catalog)
        if "release" in pipeline.all_outputs():
            self._show_release(console, catalog)
        _show_reports(console, catalog, pipeline.all_outputs())
        for name in sorted(COVERAGE & pipeline.all_outputs()):
            if place := catalog[name]._describe().get("filepath"):
                console.print(f"{name}: {place}", soft_wrap=True, markup=False)

    def _show_release(self, console: Console, catalog: DataCatalog) -> None:
        table = Table(title="Formats on the test set (0–100, ± standard error over prompts)")
        table.add_column("")
        for column in ("MB", "tokens/s", "similarity", "precision", "cost in precision"):
            table.add_column(column, justify="right")
        for row in catalog.load("format_scores"):
            cost = row["cost"] and row["cost"]["precision"]
            table.add_row(
                row["format"],
                f"{row['bytes'] / 1e6:.1f}",
                f"{row['tokens_per_s']:.0f}",
                _mean(row["similarity"]),
                _mean(row["precision"]),
                _with_interval(cost) if cost else "",
            )
        console.print(table)
        release: Any = catalog["release"]
        console.print(f"released: {release._get_load_path()}", soft_wrap=True, markup=False)
        console.print(f"next: kedro serve{self._environment} (docs/serving.md)")

    def _show_baselines(self, console: Console, catalog: DataCatalog) -> None:
        rows = catalog.load("baselines")["rows"]
        table = Table(title="Baselines on the test set (0–100, ± standard error over prompts)")
        table.add_column("")
        for column in ("similarity", "precision", "full marks"):
            table.add_column(column, justify="right")
        for row in rows:
            right = f"{_shown(row['full_marks_percentage'])} %"
            table.add_row(row["name"], _mean(row["similarity"]), _mean(row["precision"]), right)
        console.print(table)
        evaluation = EvaluationParameters.model_validate(catalog.load("params:evaluation"))
        for doubt in doubt_service_llm(rows, evaluation):
            console.print(doubt, markup=False)
        settings = LoopParameters.model_validate(catalog.load("params:loop"))
        if catalog.load(settings.ledger).last_complete():
            console.print(
                "into a report made before: kedro run --from-nodes=evaluation.compare_baselines "
                f"--params=at=best{self._environment}",
                soft_wrap=True,
            )


def _show_reports(console: Console, catalog: DataCatalog, made: set[str]) -> None:
    for name in [name for name in REPORTS if name in made]:
        report: Any = catalog[name]
        url = report._fs.unstrip_protocol(str(report._get_load_path()))
        console.print(f"{REPORTS[name]}: {url}", soft_wrap=True, markup=False)


def _spent(costs: dict[str, Any]) -> str:
    """What the loop has paid so far, over teacher and judge."""
    unpriced = ", ".join(costs["unpriced"])
    money = f"${costs['usd']:.2f}" + (f" (price of {unpriced} unknown)" if unpriced else "")
    return (
        f"spent by this loop: {money}, {costs['tokens']:.0f} tokens, {costs['requests']} requests"
    )


def _mean(score: dict[str, Any]) -> str:
    return f"{_shown(score['mean'])} ± {_shown(score['standard_error'])}"


def _with_interval(gain: dict[str, Any]) -> str:
    low, high = gain["interval"]
    within = "" if low is None else f" ({low:.1f} to {high:.1f})"
    return f"{_shown(gain['mean'])}{within}"


def _shown(value: float | None) -> str:
    return "–" if value is None else f"{value:.1f}"
