"""What a person sees of the findings; never the text of a row."""

import os
from collections.abc import Iterable, Mapping
from pathlib import Path

import click

from llamaduo.forgetting.findings import Findings

WHAT_STAYS = """\
Texts of the journal go, what they cost stays. An unfinished loop that read a deleted report \
cannot go on; start a new one (kedro run)."""
TRAINED = "Adapters that were trained on such rows, and models that were made of them:"
RETRAIN = """\
They are not removed: what a model has learnt cannot be taken out of its weights. Write them down: \
once the rows are gone, no search finds them again. Start a new loop (kedro run), which trains \
without the rows, then delete these folders, and all copies of them."""
BEYOND = """\
Not looked at: git history, backups, exports and other copies, shell history, and folders \
llamaduo-training-* that a killed training has left among the temporary files. Not known again: \
another form of a name; what a service LLM or a judge wrote about a person without one of the \
texts, unless it answers a row of theirs; requests to judge a response to their prompt in which \
presidio has replaced names or places. No loop runs meanwhile, but a part of one may \
(kedro run --pipelines=…), and would write rows back: end it first."""


def show(found: Findings, remote: Iterable[str]) -> None:
    """Print what would be removed, the adapters that have seen it, and what is left to a person."""
    removed = [
        *_lines({path: f"texts ({n})" for path, n in found.journals.items() if n}),
        *_lines(dict.fromkeys(found.whole, "whole file, a report that was made from such rows")),
        *_lines({path: f"rows ({number})" for path, number in found.rows.items()}),
    ]
    if found.is_empty:
        click.echo("nothing to remove: no file holds such a text where one can be removed")
    for head, lines, advice in (
        ("To be removed:", removed, WHAT_STAYS),
        (TRAINED, map(os.path.relpath, found.adapters), RETRAIN),
        ("Left as they are; look at them yourself:", _lines(found.left), ""),
        ("Not on this machine, and not looked at:", remote, ""),
    ):
        if lines := list(lines):
            click.echo("\n  ".join([head, *lines]) + f"\n{advice}".rstrip() + "\n")
    click.echo(BEYOND)


def _lines(notes: Mapping[Path, str]) -> list[str]:
    return [f"{os.path.relpath(path)}: {note}" for path, note in notes.items()]
