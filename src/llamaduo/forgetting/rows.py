"""Tables: their rows, and the file that is left when some of them go."""

import codecs
import csv
import io
import json
from collections.abc import Callable, Sequence
from itertools import compress, pairwise
from pathlib import Path
from typing import Any, NamedTuple

from llamaduo.datasets.raw_files import LONGEST_CELL, csv_records
from llamaduo.service_llm.text import parse_json

Row = dict[str, Any]
"""Values by column; what cannot be read has the column ``""``."""


class Table(NamedTuple):
    """The content of a file."""

    rows: list[Row]
    keep: Callable[[Sequence[bool]], bytes]
    """The file with the rows that are to be kept, which stay byte for byte where it is text."""


def is_table(path: Path, *, is_own: bool) -> bool:
    """Whether a file's name is that of a table; what runs write as JSON are reports."""
    suffix = path.suffix.lower()
    return suffix in FORMATS and (is_own or suffix != ".json")


def read_table(path: Path) -> Table:
    """The rows of a file.

    Raises:
        ValueError: It holds no table of its format (or OSError, NotImplementedError).
    """
    return FORMATS[path.suffix.lower()](path.read_bytes())


def text_of(row: Row) -> str:
    """All values of a row, not the names of its columns."""
    return "\n".join(
        value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=_plain)
        for value in row.values()
    )


def _read_lines(content: bytes) -> Table:
    lines = io.BytesIO(content).readlines()
    return Table([_object(line) for line in lines], lambda kept: b"".join(compress(lines, kept)))


def _object(line: bytes) -> Row:
    text = _decoded(line)
    try:
        value = parse_json(text.removeprefix("\ufeff"))
    except ValueError:
        return {"": text}
    return value if isinstance(value, dict) else {"": text}


def _read_json(content: bytes) -> Table:
    """An array of objects, or several lines of them, since many name those ``.json`` too."""
    table = _read_lines(content)
    if len(table.rows) > 1 and not any(row.get("", "").strip() for row in table.rows):
        return table
    rows = parse_json(_decoded(content))
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise ValueError("expected an array of objects")

    def keep(kept: Sequence[bool]) -> bytes:
        return _encoded(json.dumps(list(compress(rows, kept)), ensure_ascii=False, indent=1))

    return Table(rows, keep)


def _read_csv(content: bytes) -> Table:
    """A table with a header, separated by what its first line has most of; the header is a row."""
    csv.field_size_limit(LONGEST_CELL)
    mark = codecs.BOM_UTF8 if content.startswith(codecs.BOM_UTF8) else b""
    lines = io.StringIO(_decoded(content[len(mark) :]), newline="").readlines()
    delimiter = max(",;\t|", key=lines[0].count) if lines else ","
    records = list(csv_records("".join(lines), delimiter))
    begins = [0, *(line - 1 for line, *_ in records[1:]), len(lines)]
    texts = ["".join(lines[begin:end]) for begin, end in pairwise(begins)]
    header = records[0][1] if records else []
    rows: list[Row] = [
        {"": text, **dict(zip(header, cells, strict=False))}
        for text, (_, cells, _) in zip(texts, records, strict=False)
    ]

    def keep(kept: Sequence[bool]) -> bytes:
        if kept and not kept[0]:
            raise ValueError("its header holds the text")
        return mark + _encoded("".join(compress(texts, kept)))

    return Table(rows, keep)


def _read_parquet(content: bytes) -> Table:
    import pyarrow as pa
    from pyarrow import parquet

    table = parquet.read_table(io.BytesIO(content))

    def keep(kept: Sequence[bool]) -> bytes:
        rest = table.filter(pa.array(kept, pa.bool_()))
        for place, field in enumerate(rest.schema):
            if pa.types.is_dictionary(field.type):  # which still names what no row has any more
                column = rest.column(place).cast(field.type.value_type).dictionary_encode()
                rest = rest.set_column(place, field.name, column)
        file = io.BytesIO()
        parquet.write_table(rest, file)
        return file.getvalue()

    return Table(table.to_pylist(), keep)


def _plain(value: Any) -> str:
    return _decoded(value) if isinstance(value, bytes) else str(value)


def _decoded(content: bytes) -> str:
    return content.decode(errors="surrogateescape")


def _encoded(text: str) -> bytes:
    return text.encode(errors="surrogateescape")


FORMATS: dict[str, Callable[[bytes], Table]] = {
    ".jsonl": _read_lines,
    ".ndjson": _read_lines,
    ".json": _read_json,
    ".csv": _read_csv,
    ".tsv": _read_csv,
    ".parquet": _read_parquet,
}
