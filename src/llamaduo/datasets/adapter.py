"""LoRA adapters."""

import json
import os
import shutil
from pathlib import Path, PurePosixPath
from typing import Any

import fsspec
from kedro.io import AbstractVersionedDataset, DatasetError, Version
from kedro_datasets._typing import JSONPreview

MARKER = "adapter_config.json"


class AdapterDataset(AbstractVersionedDataset[Path, Path]):
    """A LoRA adapter as a versioned folder: safetensors, training log, manifest.

    Saving takes a folder's files over and leaves the folder itself; loading gives the path, so
    that the catalog's process needs no torch.

    ```yaml
    adapter:
      type: llamaduo.datasets.AdapterDataset
      filepath: data/06_models/adapter
      versioned: true
    ```
    """

    def __init__(
        self,
        *,
        filepath: str,
        version: Version | None = None,
        metadata: dict[str, Any] | None = None,
    ) -> None:
        self._fs = fsspec.filesystem("file")
        super().__init__(
            filepath=PurePosixPath(filepath),
            version=version,
            exists_function=self._fs.exists,
            glob_function=self._fs.glob,
        )
        self.metadata = metadata

    def load(self) -> Path:
        """The adapter's folder.

        Raises:
            DatasetError: There is no adapter of this version.
        """
        folder = Path(self._get_load_path())
        if not (folder / MARKER).exists():
            raise DatasetError(f"no adapter in {folder}: expected {MARKER} and its weights")
        return folder

    def save(self, data: Path) -> None:
        """Copy a folder whole: it appears under its name when all of it is on the disk."""
        target = Path(self._get_save_path())
        partial = target.with_name(f".{target.name}.partial")
        shutil.rmtree(partial, ignore_errors=True)
        shutil.copytree(data, partial)
        os.replace(partial, target)

    def preview(self) -> JSONPreview:
        """The manifest, for Kedro-Viz."""
        manifest = Path(self._get_load_path()) / "manifest.json"
        return JSONPreview(json.dumps(json.loads(manifest.read_text(encoding="utf-8"))))

    def _exists(self) -> bool:
        return (Path(self._get_load_path()) / MARKER).exists()

    def _describe(self) -> dict[str, Any]:
        return {"filepath": self._filepath, "version": self._version}
