"""Tables without the rows that are to be forgotten."""

import codecs
import csv
import gzip
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llamaduo.datasets.raw_files import LONGEST_CELL, csv_records
from llamaduo.forgetting.wanted import Wanted

if TYPE_CHECKING:
    import pyarrow as pa

Rest = tuple[bytes, int]
"""What is left of a table, and the number of rows that are not."""


def is_table(path: Path) -> bool:
    """Whether a file's name is that of a table, packed by gzip or not."""
    return _suffix(path) in FORMATS


def rest_of(path: Path, wanted: Wanted) -> Rest:
    """A file without the rows that hold a wanted text.

    Raises:
        ValueError: It holds no table of its format (or EOFError, OSError, RecursionError).
    """
    rest = FORMATS[_suffix(path)]
    content = path.read_bytes()
    if path.suffix.lower() != ".gz":
        return rest(content, wanted)
    kept, removed = rest(gzip.decompress(content), wanted)
    return gzip.compress(kept, mtime=0), removed


def _suffix(path: Path) -> str:
    name = path.with_suffix("") if path.suffix.lower() == ".gz" else path
    return name.suffix.lower()


def _rest_of_lines(content: bytes, wanted: Wanted) -> Rest:
    """JSON Lines; what stays, stays byte for byte."""
    lines = io.BytesIO(content).readlines()
    kept = [line for line in lines if not wanted.is_in_bytes(line)]
    return b"".join(kept), len(lines) - len(kept)


def _rest_of_json(content: bytes, wanted: Wanted) -> Rest:
    """An array of objects, or several lines of them, since many name those ``.json`` too."""
    try:
        rows = json.loads(content)
    except ValueError:
        for line in content.splitlines():
            json.loads(line or "{}")
        return _rest_of_lines(content, wanted)
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise ValueError("expected an array of objects")
    kept = [row for row in rows if not wanted.is_in(_as_text(row))]
    return json.dumps(kept, ensure_ascii=False, indent=1).encode(), len(rows) - len(kept)


def _rest_of_csv(content: bytes, wanted: Wanted) -> Rest:
    """A table with a header, separated by what its first line has most of."""
    csv.field_size_limit(LONGEST_CELL)
    mark = codecs.BOM_UTF8 if content.startswith(codecs.BOM_UTF8) else b""
    lines = io.StringIO(_decoded(content[len(mark) :]), newline="").readlines()
    delimiter = max(",;\t|", key=lines[0].count) if lines else ","
    records = list(csv_records("".join(lines), delimiter))
    if not records:
        return content, 0
    ends = [line - 1 for line, *_ in records[1:]] + [len(lines)]
    kept, begin = [], 0
    for (_, cells, _), end in zip(records, ends, strict=True):
        record = "".join(lines[begin:end])
        if not any(wanted.is_in_bytes(_encoded(text)) for text in (record, *cells)):
            kept.append(record)
        elif begin == 0:
            raise ValueError("its header holds the text")
        begin = end
    return mark + _encoded("".join(kept)), len(records) - len(kept)


def _rest_of_parquet(content: bytes, wanted: Wanted) -> Rest:
    from pyarrow import parquet

    table, removed = _rest_of_table(parquet.read_table(io.BytesIO(content)), wanted)
    written = io.BytesIO()
    parquet.write_table(table, written)
    return written.getvalue(), removed


def _rest_of_arrow(content: bytes, wanted: Wanted) -> Rest:
    """The stream in which ``save_to_disk`` of the package datasets writes."""
    from pyarrow import ipc

    with ipc.open_stream(content) as stream:
        table, removed = _rest_of_table(stream.read_all(), wanted)
    written = io.BytesIO()
    with ipc.new_stream(written, table.schema) as stream:
        stream.write_table(table)
    return written.getvalue(), removed


def _rest_of_table(table: "pa.Table", wanted: Wanted) -> "tuple[pa.Table, int]":
    import pyarrow as pa

    kept = [
        not wanted.is_in(_as_text(row)) for batch in table.to_batches() for row in batch.to_pylist()
    ]
    rest = table.filter(pa.array(kept, pa.bool_()))
    for place, field in enumerate(rest.schema):
        if pa.types.is_dictionary(field.type):  # which still names what no row has any more
            column = rest.column(place).cast(field.type.value_type).dictionary_encode()
            rest = rest.set_column(place, field.name, column)
    return rest, kept.count(False)


def _as_text(row: dict[str, Any]) -> str:
    return json.dumps(row, ensure_ascii=False, default=_plain)


def _plain(value: Any) -> str:
    return value.decode(errors="replace") if isinstance(value, bytes) else str(value)


def _decoded(content: bytes) -> str:
    return content.decode(errors="surrogateescape")


def _encoded(text: str) -> bytes:
    return text.encode(errors="surrogateescape")


FORMATS: dict[str, Callable[[bytes, Wanted], Rest]] = {
    ".jsonl": _rest_of_lines,
    ".ndjson": _rest_of_lines,
    ".json": _rest_of_json,
    ".csv": _rest_of_csv,
    ".tsv": _rest_of_csv,
    ".parquet": _rest_of_parquet,
    ".arrow": _rest_of_arrow,
}
