"""Tables: their rows, and the file that is left when some of them go."""

import io
import json
from collections.abc import Callable, Iterator, Sequence
from itertools import compress, pairwise
from pathlib import Path
from typing import Any, NamedTuple

from llamaduo.datasets.raw_files import Record, read_csv, read_json, read_json_lines, read_parquet
from llamaduo.forgetting.wanted import decoded

Row = dict[str, Any]
UNREADABLE = (ArithmeticError, NotImplementedError, OSError, ValueError)
"""What readers raise; of these pyarrow raises ArithmeticError for a date past the year 9999, and
NotImplementedError for a type or an encoding that it does not read."""


class Table(NamedTuple):
    """The content of a file."""

    rows: list[Row]
    """Values by column; none for a line that cannot be read."""
    others: dict[str, str]
    """What is no row, by what it is: the header, lines that cannot be read, names of columns."""
    content_of: Callable[[Sequence[bool]], bytes]
    """The file with some of its rows, which in text stay byte for byte."""


def is_table(path: Path, *, is_made: bool) -> bool:
    """Whether a file's name is that of a table; what runs make as JSON are reports."""
    suffix = path.suffix.lower()
    return suffix in FORMATS and not (is_made and suffix == ".json")


def read_table(path: Path) -> Table:
    """The rows of a file.

    Raises:
        ValueError: It holds no table of its format (or another of ``UNREADABLE``).
    """
    table = FORMATS[path.suffix.lower()](path)
    columns = dict.fromkeys(name for row in table.rows for name in row)
    return table._replace(others={**table.others, "the name of a column": "\n".join(columns)})


def rows_of(path: Path, *, is_made: bool) -> list[Row]:
    """The rows of a table; none of a file that cannot be read, which the search names."""
    try:
        return read_table(path).rows if is_table(path, is_made=is_made) else []
    except UNREADABLE:
        return []


def text_of(row: Row) -> str:
    """All values of a row, not the names of its columns."""
    return "\n".join(
        value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=_plain)
        for value in row.values()
    )


def _read_lines(path: Path) -> Table:
    return _cut(path, read_json_lines(path), "\n")


def _read_csv(path: Path) -> Table:
    """A table that is separated by what its first line has most of."""
    first, _, _ = decoded(path.read_bytes()).partition("\n")
    delimiter = max(",;\t|", key=first.count)
    return _cut(path, read_csv(path, delimiter), "")


def _cut(path: Path, records: Iterator[Record], newline: str) -> Table:
    """Cut a text where its records begin; what stands before the first one stays."""
    lines = io.StringIO(decoded(path.read_bytes()), newline).readlines()
    read = list(records)
    places = [0, *(line - 1 for line, *_ in read), len(lines)]
    head, *texts = ("".join(lines[begin:end]) for begin, end in pairwise(places))
    broken = "".join(compress(texts, (problem for _, _, problem in read)))
    others = {"the header": head, "a line that cannot be read": broken}

    def content_of(kept: Sequence[bool]) -> bytes:
        return "".join([head, *compress(texts, kept)]).encode(errors="surrogateescape")

    return Table([row or {} for _, row, _ in read], others, content_of)


def _read_json(path: Path) -> Table:
    """An array of objects, or lines of them."""
    if not decoded(path.read_bytes()).lstrip("\ufeff \t\r\n").startswith("["):
        return _read_lines(path)
    records = list(read_json(path))
    if any(problem for _, _, problem in records):
        raise ValueError("expected an array of objects")
    rows = [row or {} for _, row, _ in records]

    def content_of(kept: Sequence[bool]) -> bytes:
        text = json.dumps(list(compress(rows, kept)), ensure_ascii=False, indent=1)
        return text.encode(errors="surrogateescape")

    return Table(rows, {}, content_of)


def _read_parquet(path: Path) -> Table:
    import pyarrow as pa
    from pyarrow import parquet

    rows = [row or {} for _, row, _ in read_parquet(path)]

    def content_of(kept: Sequence[bool]) -> bytes:
        # Made anew, since a part of a table still names in its dictionaries what no row has.
        rest = pa.Table.from_pylist(list(compress(rows, kept)), schema=parquet.read_schema(path))
        file = io.BytesIO()
        parquet.write_table(rest, file)
        return file.getvalue()

    return Table(rows, {}, content_of)


def _plain(value: Any) -> str:
    return decoded(value) if isinstance(value, bytes) else str(value)


FORMATS: dict[str, Callable[[Path], Table]] = {
    ".jsonl": _read_lines,
    ".ndjson": _read_lines,
    ".json": _read_json,
    ".csv": _read_csv,
    ".tsv": _read_csv,
    ".parquet": _read_parquet,
}
