"""Files that outlast a power cut and are their owner's alone, and those on object storage."""

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, Protocol

from fsspec import AbstractFileSystem
from fsspec.implementations.local import LocalFileSystem
from kedro.framework.hooks import hook_impl
from kedro.io import DatasetError

OTHERS = 0o077
"""The permissions of the group and of everybody else."""


class Content(Protocol):
    """A folder's, too large to be handed over: it is written where it will lie."""

    def write(self, folder: Path) -> None:
        """Write all files into a folder that does not exist yet."""


def make_folder(folder: Path) -> None:
    """Create a folder, with what is missing above it, for the owner alone."""
    missing = [each for each in (folder, *folder.parents) if not each.exists()]
    for each in reversed(missing):
        each.mkdir(mode=0o777 & ~OTHERS, exist_ok=True)
        bring_to_disk(each.parent)


@contextmanager
def replacing(path: Path, mode: int = 0o666 & ~OTHERS) -> Iterator[BinaryIO]:
    """A file that stands under its name when all of it is on the disk; before, the old one does."""
    handle, partial = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".partial")
    try:
        with os.fdopen(handle, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.chmod(partial, mode)
        os.replace(partial, path)
    except BaseException:
        Path(partial).unlink(missing_ok=True)
        raise
    bring_to_disk(path.parent)


def is_local(files: AbstractFileSystem) -> bool:
    """Whether these are files of this machine, and not objects of a store."""
    return isinstance(files, LocalFileSystem)


def write_whole(files: AbstractFileSystem, path: str, content: bytes) -> None:
    """Write a file durably: a reader sees the old one or all of the new one, whatever happens.

    An object is put in one request, or in parts that are joined at the end.
    """
    if not is_local(files):
        files.pipe_file(path, content)
        return
    make_folder(Path(path).parent)
    with replacing(Path(path)) as file:
        file.write(content)


def bring_folder_to_disk(files: AbstractFileSystem, folder: str) -> None:
    """Let a folder outlast a power cut; on object storage it does once it is written."""
    if not is_local(files):
        return
    here = Path(folder)
    for path in [*here.rglob("*"), here, *here.parents[:2]]:
        if path.exists():
            bring_to_disk(path)


def on_this_machine(filepath: str, what: str) -> Path:
    """A path that has to be on a disk of this machine.

    Args:
        what: What stands there, as the message says it.

    Raises:
        DatasetError: It is an URL.
    """
    if "://" in filepath.removeprefix("file://"):
        raise DatasetError(
            f"{what} needs a disk of this machine, and {filepath} is none: name a folder as "
            "local_data in the environment's globals.yml, such as local_data: data"
        )
    return Path(filepath.removeprefix("file://"))


def bring_to_disk(path: Path) -> None:
    """Let a file or the names in a folder outlast a power cut."""
    handle = os.open(path, os.O_RDONLY)
    os.fsync(handle)
    os.close(handle)


class OwnerOnly:
    """Lets nobody but its owner read what a run makes."""

    def __init__(self) -> None:
        self._before = 0

    @hook_impl(trylast=True)
    def before_pipeline_run(self) -> None:
        """Take all permissions from the others; child processes inherit that."""
        self._before = os.umask(OTHERS)

    @hook_impl
    def after_pipeline_run(self) -> None:
        """Give new files the permissions of before."""
        os.umask(self._before)

    @hook_impl
    def on_pipeline_error(self) -> None:
        """The same after a failure; an interrupt ends the process."""
        os.umask(self._before)
