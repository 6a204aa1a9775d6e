"""What a person sees of a search; never the text of a row."""

from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Column, Table

from llamaduo.forgetting.findings import Search

WHAT_STAYS = """\
Texts of the journal go, what they cost stays. Whole files are reports made from such rows."""
RETRAIN = """\
They are not removed: what a model has learnt cannot be taken out of its weights. Start a new \
loop (kedro run), which trains without the rows, then delete these folders, and all that was \
exported or merged from them."""
BEYOND = """\
Not looked at: git history, backups, exports and other copies, shell history, and folders \
llamaduo-training-* that a killed training has left among the temporary files."""


def show(found: Search, remote: Sequence[str]) -> None:
    """Print the files, the adapters that have seen the rows, and what is left to a person."""
    console = Console(soft_wrap=True)
    if to_remove := found.to_remove():
        table = Table(Column("number", justify="right"), "removed", Column("from", overflow="fold"))
        for finding in to_remove:
            number = "" if finding.number is None else str(finding.number)
            table.add_row(number, finding.treatment, _shown(finding.path))
        console.print(table)
        console.print(WHAT_STAYS)
    else:
        console.print("nothing to remove: no file holds such a text where one can be removed")
    if adapters := found.tainted():
        console.print("\nAdapters that were trained on such rows:")
        _print_list(console, [_shown(path) for path in adapters])
        console.print(RETRAIN)
    if left := found.left():
        console.print("\nLeft as they are; look at them yourself:")
        _print_list(console, [f"{_shown(each.path)}: {each.reason}" for each in left])
    if remote:
        console.print("\nNot on this machine, and not looked at:")
        _print_list(console, remote)
    console.print(f"\n{BEYOND}")


def _print_list(console: Console, lines: Sequence[str]) -> None:
    for line in lines:
        console.print(f"  {line}", markup=False)


def _shown(path: Path) -> str:
    """As seen from the project's folder."""
    return str(path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path)
