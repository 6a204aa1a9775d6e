"""What a person sees of the doctor's findings."""

from collections.abc import Iterable

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from llamaduo.doctor import Finding
from llamaduo.service_llm.privacy import protect_message

STYLES = {"ok": "green", "warning": "yellow", "problem": "bold red"}


def show(findings: Iterable[Finding]) -> int:
    """Print the table; the number of problems."""
    console = Console(highlight=False)
    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    for column in ("check", "", "found"):
        table.add_column(column, no_wrap=column == "")
    found = list(findings)
    for each in found:
        text = protect_message(each.found) + (f"\n→ {each.advice}" if each.advice else "")
        table.add_row(each.check, Text(each.status, STYLES[each.status]), Text(text))
    console.print(table)
    problems = sum(each.status == "problem" for each in found)
    console.print(f"{problems} to mend" if problems else "nothing to mend; go on with: kedro run")
    return problems
