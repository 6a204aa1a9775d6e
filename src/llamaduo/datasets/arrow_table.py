"""Tables as dataset folders of Hugging Face."""

from pathlib import Path
from typing import Any

import pandas as pd
from kedro.io import AbstractDataset, DatasetError


class ArrowTableDataset(AbstractDataset[pd.DataFrame, pd.DataFrame]):
    """A table as a folder of ``datasets.Dataset.save_to_disk``, on a disk of this machine.

    kedro-datasets' ``huggingface.ArrowDataset`` gives a ``datasets.Dataset``, where nodes take
    pandas tables.

    ```yaml
    coverage_train:
      type: llamaduo.datasets.ArrowTableDataset
      filepath: data/01_raw/coverage_train
    ```
    """

    def __init__(self, *, filepath: str, metadata: dict[str, Any] | None = None) -> None:
        if "://" in filepath.removeprefix("file://"):
            # datasets downloads each folder once a process, and would not see it change.
            raise DatasetError(
                f"a dataset folder has to be on a disk of this machine, and {filepath} is not; "
                "pandas.ParquetDataset takes files on object storage"
            )
        self._filepath = Path(filepath.removeprefix("file://"))
        self.metadata = metadata

    def load(self) -> pd.DataFrame:
        """The rows, in their order.

        Raises:
            DatasetError: The folder holds several splits.
        """
        from datasets import DatasetDict, load_from_disk

        # Else the table would lie on the files, which a save may write over.
        stored = load_from_disk(str(self._filepath), keep_in_memory=True)
        if isinstance(stored, DatasetDict):
            raise DatasetError(
                f"{self._filepath} holds the splits {', '.join(stored)}; name one of their folders"
            )
        table: pd.DataFrame = stored.to_pandas()
        return table

    def save(self, data: pd.DataFrame) -> None:
        """Write the rows anew."""
        from datasets import Dataset

        Dataset.from_pandas(data, preserve_index=False).save_to_disk(str(self._filepath))

    def _exists(self) -> bool:
        return (self._filepath / "dataset_info.json").exists()

    def _describe(self) -> dict[str, Any]:
        return {"filepath": self._filepath}
