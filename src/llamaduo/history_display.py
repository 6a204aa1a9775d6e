"""What a person sees of the loops."""

from collections.abc import Iterable, Iterator
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from llamaduo.history import SCORES, Compared, Iteration, LoopHistory
from llamaduo.pruning import Removal

WHAT_STAYS = """\
Stays: the best and the last iteration of each loop with all scores of the others; what a resume
reads, and what kedro run --pipelines=… reads to repeat the latest iteration; the journal, the
checkpoints, and what parts of the loop have written, which the ledger does not know."""
LEGEND = "* the best so far; lower bound: of the precision; cost: of the iteration alone"
LEAST_P = 0.001
DIGITS = 12
"""Of a digest."""
SHA256 = 64
MB = 1e6


def show_loops(histories: list[LoopHistory], run: str) -> None:
    """Print one row per iteration.

    Args:
        run: The command that starts a loop in this environment.
    """
    console = Console()
    if not histories:
        console.print(f"no loop yet; start one with: {run}")
        return
    for history in histories:
        table = Table(
            title=f"{history.loop}: {history.ended or 'unfinished'}",
            box=SIMPLE_HEAD,
            pad_edge=False,
            padding=(0, 1, 0, 0),
        )
        for column in ("iteration", "pairs", *SCORES, "lower bound", "cost", "size"):
            table.add_column(column, justify="right", no_wrap=column != "lower bound")
        table.add_column("verdict")
        for row in history.iterations:
            table.add_row(*_cells(row), _verdict(row))
        console.print(table)
        if history.ended is None:
            console.print(f"go on with: {run} --resume {history.loop}\n", soft_wrap=True)
    console.print(LEGEND)


def _cells(row: Iteration) -> Iterator[str]:
    yield f"{'* ' if row.best else ''}{row.iteration}"
    yield "–" if row.training_pairs is None else str(row.training_pairs)
    yield from (_mean(score) for score in (row.similarity, row.precision))
    yield "–" if row.precision is None else _shown(row.precision["lower_bound"])
    yield "–" if row.usd is None else f"${row.usd:.2f}"
    yield megabytes(row.bytes)


def _verdict(row: Iteration) -> str:
    words = {
        "open": "open",
        "pruned": "pruned",
        "gone": "its reports are gone",
        "complete": "",
    }
    parts = [words[row.state], "no verdict: " + row.obstacles[0] if row.obstacles else ""]
    return "; ".join(part for part in [*parts, row.reason or ""] if part)


def show_comparison(compared: Compared) -> None:
    """Print two iterations side by side, and what differs."""
    console = Console()
    one, other = compared.iterations
    for letter, row in (("A", one), ("B", other)):
        console.print(f"{letter}: {row.loop}/{row.iteration}")
    table = Table(title="Scores of the test set, 0–100", box=SIMPLE_HEAD, pad_edge=False)
    for column in ("", "A", "B", "B − A (95 % interval)", "p"):
        table.add_column(column, justify="right" if column else "left")
    for name in SCORES:
        first, second = (getattr(row, name) for row in (one, other))
        table.add_row(name, _mean(first), _mean(second), *_gain(compared.gains, name))
        bounds = [_shown(each["lower_bound"]) for each in (first, second)]
        table.add_row("  lower bound", *bounds)
    for title, figures in (
        ("training pairs", [str(row.training_pairs) for row in (one, other)]),
        ("cost", [f"${row.usd:.2f}" for row in (one, other)]),
        ("  tokens", [f"{row.tokens:.0f}" for row in (one, other)]),
        ("seconds", [_shown(row.seconds) for row in (one, other)]),
        ("  of the training", [_shown(row.training_seconds) for row in (one, other)]),
    ):
        table.add_row(title, *figures)
    console.print(table)
    if compared.gains is None:
        console.print(
            "The scores do not compare, since they were measured otherwise "
            f"({', '.join(compared.measured)}).",
            markup=False,
        )
    for title, differences in (
        ("measured", compared.measured),
        ("parameters", compared.parameters),
        ("versions", compared.versions),
        ("inputs", compared.inputs),
    ):
        _show_differences(console, title, differences)


def _show_differences(console: Console, title: str, differences: dict[str, list[Any]]) -> None:
    if not differences:
        console.print(f"{title}: the same")
        return
    console.print(f"{title}:")
    for key, (one, other) in differences.items():
        console.print(f"  {key}: {_value(one)} → {_value(other)}", markup=False, soft_wrap=True)


def show_removals(removals: Iterable[Removal]) -> None:
    """Print what pruning would take, with its size, and what stays."""
    console = Console(highlight=False)
    removals = list(removals)
    if not removals:
        console.print("nothing to prune: every loop has but its best and last iteration")
        return
    table = Table(title="To be removed", box=SIMPLE_HEAD, pad_edge=False)
    for column in ("loop", "iteration", "folders", "size"):
        table.add_column(column, justify="left" if column == "loop" else "right")
    for each in removals:
        size = megabytes(each.bytes)
        table.add_row(each.loop.name, str(each.iteration), str(len(each.folders)), size)
    total = megabytes(sum(each.bytes for each in removals))
    table.add_section()
    table.add_row("together", "", str(sum(len(each.folders) for each in removals)), total)
    console.print(table)
    console.print(WHAT_STAYS, markup=False, soft_wrap=True)


def megabytes(size: float) -> str:
    """A number of bytes for people."""
    return f"{size / MB:.1f} MB" if size < 1000 * MB else f"{size / MB / 1000:.1f} GB"


def _gain(gains: dict[str, dict[str, Any]] | None, name: str) -> tuple[str, str]:
    """The gain with its interval, and Wilcoxon's p."""
    if gains is None:
        return "not comparable", ""
    gain = gains[name]
    if gain["mean"] is None:
        return "too few prompts", ""
    low, high = (_shown(end) for end in gain["interval"])
    p_value = gain["p_value"]
    p = "–" if p_value is None else "< 0.001" if p_value < LEAST_P else f"{p_value:.3f}"
    return f"{gain['mean']:+.1f} ({low} to {high})", p


def _value(value: Any) -> str:
    text = "–" if value is None else str(value)
    return text[:DIGITS] if len(text) == SHA256 and " " not in text else text


def _mean(score: dict[str, Any] | None) -> str:
    if score is None:
        return "–"
    return f"{_shown(score['mean'])} ± {_shown(score['standard_error'])}"


def _shown(value: float | None) -> str:
    return "–" if value is None else f"{value:.1f}"
