"""Tables as JSON Lines."""

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
from kedro.io import DatasetError
from kedro.io.core import get_filepath_str
from kedro_datasets._typing import TablePreview
from kedro_datasets.pandas import JSONDataset

from llamaduo.service_llm.privacy import PrivacyGate, quote


class JSONLinesDataset(JSONDataset):
    """A table with one JSON object per line, in UTF-8.

    Values stay what they are: pandas' own reader makes a number of ``"007"`` and a date of
    ``"2024"``, and does not say in which line a file is broken.

    ```yaml
    coverage_train:
      type: llamaduo.datasets.JSONLinesDataset
      filepath: data/01_raw/coverage_train.jsonl
    ```
    """

    def load(self) -> pd.DataFrame:
        """The rows, in the order of the file.

        Raises:
            DatasetError: A line holds no JSON object; the message names file and line.
        """
        path = get_filepath_str(self._get_load_path(), self._protocol)
        limit = self._load_args.get("nrows")  # set by the preview
        rows: list[dict[str, Any]] = []
        with self._fs.open(path, "rb") as file:
            for number, line in enumerate(file, start=1):
                if limit is not None and len(rows) >= limit:
                    break
                if line.strip():
                    rows.append(_row(line, path, number))
        return pd.DataFrame(rows)

    def save(self, data: pd.DataFrame) -> None:
        """Write the rows; a missing value becomes ``null``.

        A file appears under its name when all of it is written, so that whatever ends the writing
        leaves the file of before.
        """
        path = get_filepath_str(self._get_save_path(), self._protocol)
        if self._protocol == "file":
            partial = str(Path(path).with_name(f".{Path(path).name}.partial"))
            with self._fs.open(partial, "wb") as file:
                file.writelines(_lines(data))
            os.replace(partial, path)
        else:
            # An error while an object is open would put the half of it.
            self._fs.pipe_file(path, b"".join(_lines(data)))
        self._invalidate_cache()

    def preview(self, nrows: int = 5) -> TablePreview:
        """The first rows without their personal details, for Kedro-Viz."""
        (shown,), _ = PrivacyGate().protect(
            [json.dumps(super().preview(nrows), ensure_ascii=False)]
        )
        return TablePreview(json.loads(shown))


def _lines(data: pd.DataFrame) -> Iterator[bytes]:
    plain = data.astype(object).where(data.notna(), None)
    for row in plain.to_dict("records"):
        yield json.dumps(row, ensure_ascii=False, allow_nan=False).encode("utf-8") + b"\n"


def _row(line: bytes, path: str, number: int) -> dict[str, Any]:
    try:
        row = json.loads(line.decode("utf-8-sig" if number == 1 else "utf-8"))
        if b"\\ud" in line.lower():
            json.dumps(row, ensure_ascii=False).encode("utf-8")  # no table holds half a surrogate
    except (UnicodeError, json.JSONDecodeError) as error:
        raise DatasetError(
            f"{path}:{number}: expected a JSON object, got {quote(line, 80)} ({error})"
        ) from error
    if not isinstance(row, dict):
        raise DatasetError(f"{path}:{number}: expected a JSON object, got {type(row).__name__}")
    return row
