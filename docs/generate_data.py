"""Writes the reference of docs/data.md: each entry of the catalog, from the code that makes it.

    python docs/generate_data.py

Columns come from the pandera models, what they mean from the texts below the columns, the rest
from the pipelines and the catalog; a test tells when the page is older than these.
"""

import ast
import inspect
import textwrap
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pandera.pandas as pa
from kedro.framework.project import pipelines
from kedro.framework.session import KedroSession
from kedro.framework.startup import bootstrap_project
from kedro.io import DataCatalog
from kedro.pipeline import Node, Pipeline
from kedro.utils import load_obj

PAGE = Path(__file__).with_name("data.md")
BEGIN = "<!-- from here on written by docs/generate_data.py -->\n"
HEAD = "| entry | file | what it holds | written by | read by |\n|---|---|---|---|---|\n"
KINDS = {
    "object": "JSON",
    "int64": "integer",
    "float64": "number",
    "bool": "boolean",
    "str": "text",
    "string[pyarrow]": "text",
}
ORDER = ("data_synthesis", "fine_tuning", "evaluation", "coverage", "baselines", "deployment")


def main() -> None:
    """Rewrite the generated half of the page."""
    PAGE.write_text(page(PAGE.read_text(encoding="utf-8")), encoding="utf-8")


def page(text: str) -> str:
    """The page with its generated half made anew."""
    root = PAGE.parents[1]
    bootstrap_project(root)
    with KedroSession.create(root) as session:
        context = session.load_context()
        catalog, config = context.catalog, context.config_loader["catalog"]
    whole = sum((pipelines[name] for name in ORDER), Pipeline([]))
    free = [n for n in sorted(whole.inputs()) if n in config and not n.startswith("previous_")]
    sections = {"Inputs": free}
    for name in ORDER:
        made = [output for node in pipelines[name].nodes for output in node.outputs]
        sections[f"Written by {name}"] = made
    parts = [text.partition(BEGIN)[0], BEGIN]
    for title, names in sections.items():
        rows = "".join(_row(name, whole, catalog, config[name]) for name in names)
        parts.append(f"\n## {title}\n\n{HEAD}{rows}")
    used = {
        config[name]["validator"]
        for names in sections.values()
        for name in names
        if "validator" in config[name]
    }
    schemas = sorted((load_obj(each) for each in used), key=_line)
    parts.append("\n## Columns\n")
    parts += [f"\n### {each.__name__}\n\n" + "\n".join(_table(each)) + "\n" for each in schemas]
    return "".join(parts)


def _line(schema: type) -> int:
    return inspect.getsourcelines(schema)[1]


def _row(name: str, whole: Pipeline, catalog: DataCatalog, config: dict[str, Any]) -> str:
    writers = [node for node in whole.nodes if name in node.outputs]
    if "validator" in config:
        schema = load_obj(config["validator"])
        holds = f"[{schema.__name__}](#{schema.__name__.lower()}): {_first_paragraph(schema)}"
    elif writers:
        holds = _made_by(writers[0])
    else:
        holds = _first_paragraph(type(catalog.get(name)))
    file = f"`{config['filepath']}`" if "filepath" in config else ""
    read = _names(whole, name)
    if later := _names(whole, f"previous_{name}"):
        read += f"; in the next iteration {later}"
    written = ", ".join(f"`{node.short_name}`" for node in writers)
    cells = [f"`{name}`", file, holds, *([written] if writers else [""]), read.removeprefix("; ")]
    return f"| {' | '.join(cells)} |\n"


def _names(whole: Pipeline, entry: str) -> str:
    return ", ".join(f"`{n.short_name}`" for n in whole.nodes if entry in n.inputs)


def _first_paragraph(documented: object) -> str:
    return _plain(inspect.getdoc(documented).split("\n\n")[0])


def _plain(text: str) -> str:
    return " ".join(text.replace("``", "`").split())


def _made_by(node: Node) -> str:
    """What a node says of its result; of a node that says no more, what it does."""
    text = inspect.getdoc(node.func)
    head, _, rest = text.partition("\nReturns:\n")
    if not rest:
        return _first_paragraph(node.func)
    return _plain(f"{head.split(chr(10) * 2)[0]} {rest.split('Raises:')[0]}")


def _table(schema: type[pa.DataFrameModel]) -> Iterator[str]:
    yield _plain(inspect.getdoc(schema))
    yield ""
    yield "| column | type | |"
    yield "|---|---|---|"
    said = _said_of_columns(schema)
    for name, column in schema.to_schema().columns.items():
        kind = KINDS.get(str(column.dtype), str(column.dtype))
        null = " or null" if column.nullable else ""
        meaning = " ".join(filter(None, [said.get(name, ""), _limits(column)]))
        yield f"| `{name}` | {kind}{null} | {meaning} |"


def _limits(column: pa.Column) -> str:
    known: dict[str, Any] = {}
    for check in column.checks:
        known |= check.statistics or {}
    limits = []
    if "allowed_values" in known:
        limits.append("One of " + ", ".join(f"`{value}`" for value in known["allowed_values"]))
    elif "max_value" in known:
        limits.append(f"{known['min_value']} to {known['max_value']}")
    elif "min_value" in known:
        limits.append(f"At least {known['min_value']}")
    if column.unique:
        limits.append("Unique")
    return "".join(f"{each}. " for each in limits).rstrip()


def _said_of_columns(schema: type[pa.DataFrameModel]) -> dict[str, str]:
    """Column: the text below it, that of a subclass before that of its base."""
    said: dict[str, str] = {}
    for each in reversed(schema.__mro__):
        if not issubclass(each, pa.DataFrameModel) or each.__module__ != schema.__module__:
            continue
        body = ast.parse(textwrap.dedent(inspect.getsource(each))).body[0].body
        for field, text in pairwise(body):
            if isinstance(field, ast.AnnAssign) and isinstance(text, ast.Expr):
                said[field.target.id] = _plain(text.value.value)
    return said


if __name__ == "__main__":
    main()
