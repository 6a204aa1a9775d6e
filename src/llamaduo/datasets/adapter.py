"""LoRA adapters."""

import atexit
import json
import os
import shutil
import tempfile
from functools import cache
from pathlib import Path, PurePosixPath
from typing import Any

import fsspec
from kedro.io import AbstractVersionedDataset, DatasetError, Version
from kedro.io.core import get_protocol_and_path
from kedro_datasets._typing import JSONPreview

from llamaduo.files import is_local

MARKER = "adapter_config.json"


class AdapterDataset(AbstractVersionedDataset[Path, Path]):
    """A LoRA adapter as a versioned folder: safetensors, training log, manifest.

    Saving takes a folder's files over and leaves the folder itself; loading gives a path on this
    machine, so that the catalog's process needs no torch. From object storage a process downloads
    each version once, to a temporary folder.

    ```yaml
    adapter:
      type: llamaduo.datasets.AdapterDataset
      filepath: data/06_models/adapter
      versioned: true
    ```

    Args:
        filepath: A folder, also on object storage (``s3://bucket/…``).
    """

    def __init__(
        self,
        *,
        filepath: str,
        version: Version | None = None,
        metadata: dict[str, Any] | None = None,
    ) -> None:
        protocol, path = get_protocol_and_path(filepath, version)
        self._fs = fsspec.filesystem(protocol)
        super().__init__(
            filepath=PurePosixPath(path),
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
        folder = self._get_load_path()
        if not self._fs.exists(str(folder / MARKER)):
            raise DatasetError(f"no adapter in {folder}: expected {MARKER} and its weights")
        return Path(folder) if is_local(self._fs) else _downloaded(self._fs, str(folder))

    def save(self, data: Path) -> None:
        """Copy a folder whole: to a disk under its name when all is written, or the marker last."""
        target = self._get_save_path()
        if is_local(self._fs):
            partial = Path(target).with_name(f".{target.name}.partial")
            shutil.rmtree(partial, ignore_errors=True)
            shutil.copytree(data, partial)
            os.replace(partial, target)
            return
        for file in sorted(data.rglob("*"), key=lambda each: each.name == MARKER):
            if file.is_file():
                self._fs.put_file(str(file), str(target / file.relative_to(data).as_posix()))

    def preview(self) -> JSONPreview:
        """The manifest, for Kedro-Viz."""
        manifest = self._fs.cat_file(str(self._get_load_path() / "manifest.json"))
        return JSONPreview(json.dumps(json.loads(manifest)))

    def _exists(self) -> bool:
        return bool(self._fs.exists(str(self._get_load_path() / MARKER)))

    def _describe(self) -> dict[str, Any]:
        return {"filepath": self._filepath, "version": self._version}


@cache
def _downloaded(files: fsspec.AbstractFileSystem, folder: str) -> Path:
    """A copy of a version, which is never written over; for as long as this process runs."""
    here = Path(tempfile.mkdtemp(prefix="llamaduo-adapter-"))
    atexit.register(shutil.rmtree, here, ignore_errors=True)
    files.get(folder, str(here / "adapter"), recursive=True)
    return here / "adapter"
