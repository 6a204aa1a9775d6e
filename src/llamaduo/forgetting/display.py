"""What a person sees of a search; never the text of a row."""

from collections.abc import Iterable
from pathlib import Path

import click

from llamaduo.forgetting.findings import Search

WHAT_STAYS = """\
Texts of the journal go, what they cost stays. Whole files are reports made from such rows."""
RETRAIN = """\
They are not removed: what a model has learnt cannot be taken out of its weights. Start a new \
loop (kedro run), which trains without the rows, then delete these folders, and all that was \
exported or merged from them."""
BEYOND = """\
Not looked at: git history, backups, exports and other copies, shell history, and folders \
llamaduo-training-* that a killed training has left among the temporary files. No loop runs \
meanwhile, but a part of one may (kedro run --pipelines=…), and would write rows back: end it \
first."""


def show(found: Search) -> None:
    """Print the files, the adapters that have seen the rows, and what is left to a person."""
    to_remove = [
        f"{_shown(each.path)}: {each.treatment}" + (f" ({each.number})" if each.number else "")
        for each in found.to_remove()
    ]
    if to_remove:
        _list("To be removed:", to_remove, WHAT_STAYS)
    else:
        click.echo("nothing to remove: no file holds such a text where one can be removed")
    _list("Adapters that were trained on such rows:", map(_shown, found.tainted()), RETRAIN)
    _list(
        "Unfinished loops that cannot go on, since they read a report that goes:",
        found.ended(),
        "Start a new one (kedro run).",
    )
    left = [f"{_shown(each.path)}: {each.reason}" for each in found.left()]
    _list("Left as they are; look at them yourself:", left)
    _list("Not on this machine, and not looked at:", found.places.remote)
    click.echo(BEYOND)


def _list(head: str, lines: Iterable[str], advice: str = "") -> None:
    """A paragraph; nothing where there are no lines."""
    if lines := list(lines):
        click.echo("\n  ".join([head, *lines]) + f"\n{advice}\n")


def _shown(path: Path) -> str:
    """As seen from the project's folder."""
    return str(path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path)
