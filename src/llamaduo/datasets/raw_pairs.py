"""The user's pairs as they came, in whichever format."""

import json
import zlib
from collections.abc import Callable, Iterator
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, NoReturn

import pandas as pd
from kedro.io import AbstractDataset, DatasetError
from kedro_datasets._typing import TablePreview

from llamaduo.datasets.raw_files import (
    Record,
    read_csv,
    read_json,
    read_json_lines,
    read_parquet,
    read_saved_dataset,
)
from llamaduo.service_llm.privacy import PrivacyGate

READERS: dict[str, Callable[[Path], Iterator[Record]]] = {
    "jsonl": read_json_lines,
    "json": read_json,
    "csv": read_csv,
    "tsv": partial(read_csv, delimiter="\t"),
    "parquet": read_parquet,
}
SUFFIXES = {f".{name}": name for name in READERS} | {".ndjson": "jsonl"}
DESCRIPTIONS = ("dataset_info.json", "dataset_infos.json")
COLUMNS = ["file", "line", "row", "problem"]


class RawPairsDataset(AbstractDataset[NoReturn, pd.DataFrame]):
    """A file, a folder of files or a dataset folder of Hugging Face.

    A line that cannot be read is a row that says why; what the rows hold is for the ``coverage``
    pipeline to check. Text files are UTF-8, may end in ``.gz``, and every cell of a table stays
    text.

    ```yaml
    raw_pairs:
      type: llamaduo.datasets.RawPairsDataset
      filepath: data/01_raw/export.csv
      delimiter: ";"
    ```

    Args:
        filepath: A file; a folder, whose files are read in the order of their names; or a folder
            that ``save_to_disk`` of the package datasets has written.
        format: ``jsonl``, ``json`` (an array of objects), ``csv``, ``tsv``, ``parquet`` or
            ``dataset``, where the suffix does not tell.
        delimiter: Of a CSV file, a comma by default.
    """

    def __init__(
        self,
        *,
        filepath: str,
        format: str | None = None,
        delimiter: str | None = None,
        metadata: dict[str, Any] | None = None,
    ) -> None:
        known = [*READERS, "dataset"]
        if format is not None and format not in known:
            raise DatasetError(f"raw_pairs: format is {format!r}, expected {', '.join(known)}")
        self._path = Path(filepath)
        self._format = format
        self._delimiter = delimiter
        self.metadata = metadata

    def load(self) -> pd.DataFrame:
        """Every row, readable or not.

        Returns:
            ``RawPairs``.

        Raises:
            DatasetError: There is no file, it holds no rows, or it cannot be read as a whole.
        """
        frame = pd.DataFrame(self._rows(), columns=COLUMNS)
        if frame.empty:
            raise DatasetError(f"{_shown(self._path)}: expected pairs, there are no rows")
        return frame

    def save(self, data: NoReturn) -> NoReturn:
        """The user's file is an input."""
        raise DatasetError("the raw pairs are never written")

    def preview(self, nrows: int = 5) -> TablePreview:
        """The first rows as text without their personal details, for Kedro-Viz."""
        protect = PrivacyGate().protect
        cells = [
            [
                file,
                line,
                *protect([json.dumps(row, default=str, ensure_ascii=False), problem]).texts,
            ]
            for file, line, row, problem in islice(self._rows(), nrows)
        ]
        return TablePreview({"index": list(range(len(cells))), "columns": COLUMNS, "data": cells})

    def _rows(self) -> Iterator[tuple[str, int, dict[str, Any] | None, str]]:
        if not self._path.exists():
            raise DatasetError(
                f"there is nothing at {_shown(self._path)}: put your pairs there, or name your own "
                "file or folder as the filepath of raw_pairs in the catalog"
            )
        if self._format == "dataset" or _is_saved_dataset(self._path):
            for split, record in read_saved_dataset(self._path):
                yield str(Path(_shown(self._path), split)), *record
            return
        for path in self._files():
            try:
                for record in self._read(path):
                    yield _shown(path), *record
            except (OSError, EOFError, ValueError, zlib.error) as error:
                raise DatasetError(f"{_shown(path)}: {error}") from error

    def _files(self) -> list[Path]:
        if self._path.is_file():
            return [self._path]
        return [
            path
            for path in sorted(self._path.rglob("*"))
            if path.is_file()
            and not _is_hidden(path.relative_to(self._path))
            and (self._format or _suffix(path) in SUFFIXES)
        ]

    def _read(self, path: Path) -> Iterator[Record]:
        name = self._format or SUFFIXES.get(_suffix(path))
        if name is None:
            raise ValueError(
                f"expected a file that ends in {', '.join(SUFFIXES)} (text also in .gz), or a "
                "folder; save it as one of these, or name its format in the catalog"
            )
        if name == "csv" and self._delimiter:
            return read_csv(path, self._delimiter)
        return READERS[name](path)

    def _exists(self) -> bool:
        return self._path.exists()

    def _describe(self) -> dict[str, Any]:
        return {"filepath": str(self._path), "format": self._format}


def _shown(path: Path) -> str:
    """As the user wrote it: Kedro makes it absolute."""
    return str(path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path)


def _suffix(path: Path) -> str:
    name = path.with_suffix("") if path.suffix.lower() == ".gz" else path
    return name.suffix.lower()


def _is_hidden(path: Path) -> bool:
    """Also what Spark and Hugging Face leave beside their files."""
    return path.name in DESCRIPTIONS or any(part.startswith((".", "_")) for part in path.parts)


def _is_saved_dataset(path: Path) -> bool:
    return (path / "state.json").exists() or (path / "dataset_dict.json").exists()
