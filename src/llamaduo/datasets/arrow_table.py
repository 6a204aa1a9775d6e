"""Tables as dataset folders of Hugging Face."""

from typing import Any

import fsspec
import pandas as pd
from kedro.io import AbstractDataset, DatasetError


class ArrowTableDataset(AbstractDataset[pd.DataFrame, pd.DataFrame]):
    """A table as a folder of ``datasets.Dataset.save_to_disk``, also on object storage.

    kedro-datasets' ``huggingface.ArrowDataset`` gives a ``datasets.Dataset``, where nodes take
    pandas tables.

    ```yaml
    coverage_train:
      type: llamaduo.datasets.ArrowTableDataset
      filepath: data/01_raw/coverage_train
    ```
    """

    def __init__(self, *, filepath: str, metadata: dict[str, Any] | None = None) -> None:
        self._filepath = filepath.rstrip("/")
        self._files, self._path = fsspec.url_to_fs(self._filepath)
        self.metadata = metadata

    def load(self) -> pd.DataFrame:
        """The rows, in their order.

        Raises:
            DatasetError: The folder holds several splits.
        """
        from datasets import DatasetDict, load_from_disk

        stored = load_from_disk(self._filepath)
        if isinstance(stored, DatasetDict):
            raise DatasetError(
                f"{self._filepath} holds the splits {', '.join(stored)}; name one of their folders"
            )
        table: pd.DataFrame = stored.to_pandas()
        return table

    def save(self, data: pd.DataFrame) -> None:
        """Write the rows anew, in place of the old folder once all of them are written."""
        from datasets import Dataset

        partial = f"{self._filepath}.partial"
        Dataset.from_pandas(data, preserve_index=False).save_to_disk(partial)
        if self._files.exists(self._path):
            self._files.rm(self._path, recursive=True)
        self._files.mv(f"{self._path}.partial", self._path, recursive=True)

    def _exists(self) -> bool:
        return bool(self._files.exists(f"{self._path}/dataset_info.json"))

    def _describe(self) -> dict[str, Any]:
        return {"filepath": self._filepath}
