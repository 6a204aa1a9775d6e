"""What one iteration hands to the next."""

from collections.abc import Callable
from functools import wraps
from pathlib import PurePosixPath
from typing import Any, NoReturn

from kedro.io import AbstractDataset, AbstractVersionedDataset, DatasetError, Version

from llamaduo.ledger import is_before_first, one_back


class PreviousDataset(AbstractVersionedDataset[NoReturn, Any]):
    """A read-only view of another entry's earlier version, ``None`` where there is none.

    A pipeline has no cycles, so that state goes round as a second entry on the path of the first;
    the runner pins it one iteration back.

    ```yaml
    previous_training_set:
      type: llamaduo.datasets.PreviousDataset
      versioned: true
      dataset:
        type: llamaduo.datasets.JSONLinesDataset
        filepath: data/05_model_input/training_set.jsonl
    ```
    """

    def __init__(
        self,
        *,
        dataset: dict[str, Any],
        version: Version | None = None,
        metadata: dict[str, Any] | None = None,
    ) -> None:
        self._path: str = dataset["filepath"]
        super().__init__(filepath=PurePosixPath(self._path), version=version)
        self._dataset_config = dataset
        self.metadata = metadata

    def load(self) -> Any:
        """The earlier version's data, ``None`` before the first.

        Raises:
            DatasetError: The iteration before made this entry, but it is not there.
        """
        dataset = self._earlier()
        if dataset.exists():
            return dataset.load()
        pin = self._version.load if self._version else None
        if pin is None or is_before_first(pin):
            return None
        raise DatasetError(
            f"version {pin} of {self._path} is gone, and this iteration goes on from it. "
            "Has kedro loops prune removed it? If not, is the entry that made it still of the same "
            "type and filepath as this one?"
        )

    @property
    def preview(self) -> Callable[..., Any]:
        """The other entry's, so that Kedro-Viz sees its type; None where there is nothing earlier.

        Where nothing is pinned, it shows what the iteration of the latest version went on from.
        """
        earlier = self._earlier()
        if self._version and not self._version.load and earlier.exists():
            earlier = self._earlier(one_back(earlier.resolve_load_version()))
        shown = earlier.preview

        @wraps(shown)
        def preview(**arguments: Any) -> Any:
            return shown(**arguments) if earlier.exists() else None

        return preview

    def save(self, data: NoReturn) -> NoReturn:
        """An earlier iteration is never changed."""
        raise DatasetError("a previous iteration is read-only")

    def _earlier(self, load: str | None = None) -> Any:
        if self._version is None:
            return AbstractDataset.from_config("previous", dict(self._dataset_config))
        return AbstractDataset.from_config(
            "previous",
            {**self._dataset_config, "versioned": True},
            load or self._version.load,
            self._version.save,
        )

    def _exists(self) -> bool:
        return True  # None stands in for what is not there

    def _describe(self) -> dict[str, Any]:
        return {"filepath": self._path, "version": self._version}
