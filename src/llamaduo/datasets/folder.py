"""Models and what else is a folder of files."""

import atexit
import errno
import json
import os
import shutil
import tempfile
from contextlib import suppress
from functools import cache
from pathlib import Path, PurePosixPath
from typing import Any

import fsspec
from filelock import FileLock
from kedro.io import AbstractVersionedDataset, DatasetError, Version
from kedro.io.core import get_protocol_and_path
from kedro_datasets._typing import JSONPreview

from llamaduo.files import Content, bring_folder_to_disk, is_local, make_folder


class FolderDataset(AbstractVersionedDataset[Path | Content, Path]):
    """A versioned folder that is there as a whole or not at all.

    Saving copies a folder, or has its content written; loading gives a path on this machine, so
    that the catalog's process needs no torch. From object storage a process downloads each version
    once, to a temporary folder.

    Args:
        filepath: A folder, also on object storage (``s3://bucket/…``).
    """

    marker: str
    """The file by which a folder is one of this kind; on object storage it comes last."""
    shown: str
    """The JSON file of the preview."""
    what: str

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
        """The folder.

        Raises:
            DatasetError: There is none of this version.
        """
        folder = self._get_load_path()
        if not self._fs.exists(str(folder / self.marker)):
            raise DatasetError(f"no {self.what} in {folder}: expected {self.marker}")
        return Path(folder) if is_local(self._fs) else _downloaded(self._fs, str(folder))

    def save(self, data: Path | Content) -> None:
        """Write a folder whole: to a disk under its name when all is there, or the marker last.

        Raises:
            DatasetError: The folder is there already.
        """
        target = self._get_save_path()
        if is_local(self._fs):
            self._save_here(data, Path(target))
            return
        with tempfile.TemporaryDirectory(prefix="llamaduo-") as here:
            source = data if isinstance(data, Path) else Path(here) / target.name
            if not isinstance(data, Path):
                data.write(source)
            self._upload(source, target)

    def _save_here(self, data: Path | Content, target: Path) -> None:
        root = Path(self._filepath).parent
        make_folder(root)
        # Whoever holds it is the only one who writes; what then is unfinished, nobody will finish.
        with FileLock(root / f".{self._filepath.name}.lock", mode=0o600):
            for unfinished in root.glob(f"{self._filepath.name}/*/.{target.name}.partial"):
                shutil.rmtree(unfinished)
            partial = target.with_name(f".{target.name}.partial")
            shutil.rmtree(partial, ignore_errors=True)
            make_folder(partial.parent)
            try:
                if isinstance(data, Path):
                    shutil.copytree(data, partial)
                else:
                    data.write(partial)
                bring_folder_to_disk(self._fs, str(partial))
                self._publish(partial, target)
            except BaseException:
                shutil.rmtree(partial, ignore_errors=True)
                with suppress(OSError):
                    partial.parent.rmdir()  # of the version, unless it holds something else
                raise

    def _publish(self, partial: Path, target: Path) -> None:
        try:
            os.replace(partial, target)
        except OSError as error:
            if error.errno not in (errno.EEXIST, errno.ENOTEMPTY):
                raise
            raise DatasetError(
                f"{target} is there already, and a {self.what} is never written over: remove it, "
                "or let the entry be versioned"
            ) from error
        bring_folder_to_disk(self._fs, str(target.parent))

    def _upload(self, source: Path, target: PurePosixPath) -> None:
        for file in sorted(source.rglob("*"), key=lambda each: each.name == self.marker):
            if file.is_file():
                self._fs.put_file(str(file), str(target / file.relative_to(source).as_posix()))

    def preview(self) -> JSONPreview:
        """What it is, for Kedro-Viz."""
        shown = self._fs.cat_file(str(self._get_load_path() / self.shown))
        return JSONPreview(json.dumps(json.loads(shown)))

    def _exists(self) -> bool:
        return bool(self._fs.exists(str(self._get_load_path() / self.marker)))

    def _describe(self) -> dict[str, Any]:
        return {"filepath": self._filepath, "version": self._version}


class AdapterDataset(FolderDataset):
    """A LoRA adapter: safetensors, training log, manifest.

    ```yaml
    adapter:
      type: llamaduo.datasets.AdapterDataset
      filepath: data/06_models/adapter
      versioned: true
    ```
    """

    marker = "adapter_config.json"
    shown = "manifest.json"
    what = "adapter"


class ModelDataset(FolderDataset):
    """A whole model: safetensors, tokenizer, chat template, generation config.

    ```yaml
    merged_model:
      type: llamaduo.datasets.ModelDataset
      filepath: data/06_models/merged_model
      versioned: true
    ```
    """

    marker = "config.json"
    shown = "config.json"
    what = "model"


class GGUFDataset(FolderDataset):
    """A model as GGUF, one file for each quantization.

    ```yaml
    gguf_model:
      type: llamaduo.datasets.GGUFDataset
      filepath: data/06_models/gguf_model
      versioned: true
    ```
    """

    marker = "files.json"
    shown = "files.json"
    what = "GGUF model"


class ReleaseDataset(FolderDataset):
    """A release (``llamaduo.local_llm.release``).

    ```yaml
    release:
      type: llamaduo.datasets.ReleaseDataset
      filepath: data/06_models/release
      versioned: true
    ```
    """

    marker = "manifest.json"
    shown = "manifest.json"
    what = "release"


@cache
def _downloaded(files: fsspec.AbstractFileSystem, folder: str) -> Path:
    """A copy of a version, which is never written over; for as long as this process runs."""
    here = Path(tempfile.mkdtemp(prefix="llamaduo-"))
    atexit.register(shutil.rmtree, here, ignore_errors=True)
    name = PurePosixPath(folder).name
    files.get(folder, str(here / name), recursive=True)
    return here / name
