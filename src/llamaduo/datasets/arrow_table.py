"""Tables as dataset folders of Hugging Face."""

from typing import Any

import fsspec
import pandas as pd
from kedro.io import AbstractDataset, DatasetError


class ArrowTableDataset(AbstractDataset[pd.DataFrame, pd.DataFrame]):
    """A table as a folder of ``datasets.Dataset.save_to_disk``.

    It may be on object storage, with keys from the environment.

    kedro-datasets' ``huggingface.ArrowDataset`` gives a ``datasets.Dataset``, where nodes take
    pandas tables.

    ```yaml
    coverage_train:
      type: llamaduo.datasets.ArrowTableDataset
      filepath: data/01_raw/coverage_train
    ```
    """

    def __init__(self, *, filepath: str, metadata: dict[str, Any] | None = None) -> None:
        self._filepath = filepath
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
        """Write the rows anew."""
        from datasets import Dataset

        Dataset.from_pandas(data, preserve_index=False).save_to_disk(self._filepath)

    def _exists(self) -> bool:
        files, path = fsspec.url_to_fs(self._filepath)
        return bool(files.exists(f"{path}/dataset_info.json"))

    def _describe(self) -> dict[str, Any]:
        return {"filepath": self._filepath}
