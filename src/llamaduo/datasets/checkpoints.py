"""Where trainings keep what they go on from after an interruption."""

import json
from pathlib import Path
from typing import Any, NoReturn

from kedro.io import AbstractDataset, DatasetError
from kedro_datasets._typing import JSONPreview

from llamaduo.files import on_this_machine


class CheckpointsDataset(AbstractDataset[NoReturn, Path]):
    """A folder on a local disk; each training keeps its checkpoints in a folder of its own.

    They hold weights and numbers, no text. Those of a finished training go when the next begins.

    ```yaml
    checkpoints:
      type: llamaduo.datasets.CheckpointsDataset
      filepath: data/06_models/checkpoints
    ```
    """

    def __init__(self, *, filepath: str, metadata: dict[str, Any] | None = None) -> None:
        self._filepath = on_this_machine(filepath, "a training's checkpoints")
        self.metadata = metadata

    def load(self) -> Path:
        """The folder, there or not."""
        return self._filepath

    def save(self, data: NoReturn) -> NoReturn:
        """The training process writes them."""
        raise DatasetError("checkpoints are written while a model is trained")

    def preview(self) -> JSONPreview:
        """The checkpoints of each training that left some, for Kedro-Viz."""
        trainings = sorted(path for path in self._filepath.glob("*") if path.is_dir())
        shown = {each.name: sorted(path.name for path in each.iterdir()) for each in trainings}
        return JSONPreview(json.dumps(shown))

    def _describe(self) -> dict[str, Any]:
        return {"filepath": self._filepath}
