"""One reader per format of raw file; none of them stops at a row that cannot be read."""

import csv
import gzip
import io
import json
import re
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

from llamaduo.service_llm.privacy import quote
from llamaduo.service_llm.text import parse_json

Record = tuple[int, dict[str, Any] | None, str]
"""Line (of tables in columns: row) from 1, the row, and why there is none."""

UTF_16 = (b"\xff\xfe", b"\xfe\xff")
GAP = re.compile(r"[ \t\r\n]*")
DECODER = json.JSONDecoder()
LONGEST_CELL = 2**31 - 1
"""The csv module's own limit, 131,072 characters, is less than a long document."""
BATCH = 1000
"""Rows."""


def read_json_lines(path: Path) -> Iterator[Record]:
    """One object per line."""
    yield from _objects_by_line(_text(path))


def read_json(path: Path) -> Iterator[Record]:
    """An array of objects, as of Alpaca; or lines, since many name those ``.json`` too.

    Raises:
        ValueError: The array breaks off, so that what follows cannot be told apart, or is not all.
    """
    text = _text(path)
    if not text.lstrip().startswith("["):
        yield from _objects_by_line(text)
        return
    line, counted, begin = 1, 0, _next_mark(text, text.index("[") + 1)
    while not text.startswith("]", begin):
        line, counted = line + text.count("\n", counted, begin), begin
        try:
            _, end = DECODER.raw_decode(text, begin)
        except (ValueError, RecursionError) as error:
            raise ValueError(f"the JSON array breaks off in line {line} ({error})") from error
        yield line, *_object(text[begin:end])
        mark = _next_mark(text, end)
        if not text.startswith((",", "]"), mark):
            raise ValueError(f"the JSON array breaks off after the object of line {line}")
        begin = _next_mark(text, mark + 1) if text.startswith(",", mark) else mark
    if rest := text[begin + 1 :].strip():
        raise ValueError(f"more stands after the end of the JSON array: {quote(rest, 40)}")


def read_csv(path: Path, delimiter: str = ",") -> Iterator[Record]:
    """A table with a header; quoted cells may hold line breaks.

    Raises:
        ValueError: The header cannot be that of a table of pairs.
    """
    csv.field_size_limit(LONGEST_CELL)
    records = csv_records(_text(path), delimiter)
    header: list[str] | None = None
    for line, cells, problem in records:
        if header is None:
            header = _header(cells, problem)
        elif problem:
            yield line, None, problem
        elif len(cells) != len(header):
            yield line, None, f"{len(cells)} cells where the header has {len(header)}"
        else:
            named = zip(header, cells, strict=True)
            yield line, {name: cell for name, cell in named if name}, ""


def read_parquet(path: Path) -> Iterator[Record]:
    """Any Parquet file; values keep their types."""
    from pyarrow.parquet import ParquetFile

    with ParquetFile(path) as file:
        for number, row in _rows_of_tables(file.iter_batches(BATCH)):
            yield number, row, ""


def read_saved_dataset(folder: Path) -> Iterator[tuple[str, Record]]:
    """A folder of ``save_to_disk``: the split, empty where there is one alone, and a row."""
    from datasets import ClassLabel, Dataset, load_from_disk

    saved = load_from_disk(str(folder))
    splits = {"": saved} if isinstance(saved, Dataset) else saved
    for name, split in splits.items():
        labels = {
            column: feature.names
            for column, feature in split.features.items()
            if isinstance(feature, ClassLabel)
        }
        for number, row in _rows_of_tables(split.with_format("arrow").iter(BATCH)):
            # A class is stored as its number; -1 is none.
            named = {
                column: names[row[column]] if row[column] >= 0 else None
                for column, names in labels.items()
                if row[column] is not None
            }
            yield name, (number, {**row, **named}, "")


def _next_mark(text: str, start: int) -> int:
    """Where what is no white space goes on."""
    gap = GAP.match(text, start)
    return gap.end() if gap else start


def _text(path: Path) -> str:
    """Bytes that are not UTF-8 become lone surrogates, which the check of the field finds."""
    with gzip.open(path) if path.suffix.lower() == ".gz" else path.open("rb") as file:
        content: bytes = file.read()
    if content.startswith(UTF_16) or b"\0" in content[:2]:
        raise ValueError("expected UTF-8, it begins like UTF-16; save it as UTF-8")
    return content.decode("utf-8-sig", errors="surrogateescape")


def _objects_by_line(text: str) -> Iterator[Record]:
    # Unlike splitlines, which also cuts at U+2028 and its like: JSON texts may hold them.
    for number, line in enumerate(text.split("\n"), start=1):
        if line.strip():
            yield number, *_object(line)


def _object(text: str) -> tuple[dict[str, Any] | None, str]:
    try:
        value = parse_json(text)
    except ValueError as error:
        return None, str(error)
    if not isinstance(value, dict):
        return None, f"no JSON object but {quote(text.strip(), 40)}"
    return value, ""


def csv_records(text: str, delimiter: str) -> Iterator[tuple[int, list[str], str]]:
    """First line, cells and problem of each record.

    After a broken quote the next line begins a record, so that a quote that is never closed costs
    its own line and not the rest of the file.
    """
    lines = list(io.StringIO(text, newline=""))
    first = 0
    while first < len(lines):
        reader = csv.reader(islice(lines, first, None), delimiter=delimiter, strict=True)
        begin = first
        try:
            for cells in reader:
                if cells:
                    yield begin + 1, cells, ""
                begin = first + reader.line_num
            return
        except csv.Error as error:
            yield begin + 1, [], f"a broken quote ({error})"
            first = begin + 1


def _header(cells: list[str], problem: str) -> list[str]:
    header = [cell.strip() for cell in cells]
    named = [name for name in header if name]
    if problem or not named:
        raise ValueError(f"expected a header in the first line {problem}".strip())
    for other in ";\t|":
        if len(header) == 1 and other in header[0]:
            raise ValueError(
                f"the header is a single cell, {quote(header[0], 80)}: name the delimiter, "
                f"{other!r}, in the catalog"
            )
    if twice := sorted({name for name in named if named.count(name) > 1}):
        raise ValueError(f"the column {quote(twice[0], 80)} stands twice in the header; rename one")
    return header


def _rows_of_tables(tables: Iterator[Any]) -> Iterator[tuple[int, dict[str, Any]]]:
    rows = (row for table in tables for row in table.to_pylist())
    return enumerate(rows, start=1)
