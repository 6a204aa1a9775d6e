"""What a run shows: each node as it begins, and the iterations so far."""

import logging
from typing import Any

from kedro.framework.hooks import hook_impl
from kedro.io import DataCatalog
from kedro.pipeline import Node
from rich.console import Console
from rich.table import Table

logger = logging.getLogger(__name__)


class Progress:
    """Shows each node as it begins, and the iterations so far after each one."""

    @hook_impl
    def before_node_run(self, node: Node) -> None:
        """One short line; Kedro's own names all inputs and outputs."""
        logger.info("%s", node.name)

    @hook_impl
    def after_iteration(self, verdict: dict[str, Any], catalog: DataCatalog) -> None:
        """Print the table and the verdict, from the catalog."""
        history = catalog.load("iteration_history")
        table = Table(title="Scores on the test set (0–100, ± standard error over prompts)")
        for column in ("iteration", "pairs", "similarity", "precision", "lower bound", "all right"):
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
        for obstacle in verdict["obstacles"]:
            console.print(f"no verdict on these scores: {obstacle}", markup=False)
        for alarm in verdict["alarms"]:
            console.print(f"fairness: {alarm}", markup=False)
        if verdict["target_reached"]:
            console.print(f"target reached in iteration {verdict['iteration']}")
        elif verdict["stop"]:
            console.print(f"stopped without reaching the target: {verdict['reason']}")
        if verdict["advisory"]:
            console.print("advisory only: so few test prompts leave much to chance")
        if verdict["stop"]:
            for name, title in (("evaluation_report", "report"), ("loop_report", "whole loop")):
                report: Any = catalog[name]
                url = report._fs.unstrip_protocol(str(report._get_load_path()))
                console.print(f"{title}: {url}", soft_wrap=True, markup=False)
            console.print("lineage and plots: kedro viz run")


def _spent(costs: dict[str, Any]) -> str:
    """What the loop has paid so far, over teacher and judge."""
    unpriced = ", ".join(costs["unpriced"])
    money = f"${costs['usd']:.2f}" + (f" (price of {unpriced} unknown)" if unpriced else "")
    return (
        f"spent by this loop: {money}, {costs['tokens']:.0f} tokens, {costs['requests']} requests"
    )


def _mean(score: dict[str, Any]) -> str:
    return f"{_shown(score['mean'])} ± {_shown(score['standard_error'])}"


def _shown(value: float | None) -> str:
    return "–" if value is None else f"{value:.1f}"
