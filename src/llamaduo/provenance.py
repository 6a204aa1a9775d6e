"""What a loop's results depend on: parameters, packages, the commit and the inputs."""

import hashlib
import importlib.metadata
import logging
import os
import shutil
import socket
import subprocess
from pathlib import PurePosixPath
from typing import Any

from fsspec.implementations.local import LocalFileSystem
from kedro.io.core import generate_timestamp
from pydantic import BaseModel

from llamaduo.iterations import Loop

logger = logging.getLogger(__name__)

PACKAGES = ("kedro", "torch", "transformers", "trl", "peft", "openai", "llamaduo")


def enter_start(loop: Loop, *, resumed: bool) -> None:
    """Enter a loop's beginning or its resume, with all that its results depend on."""
    facts = {
        "parameters": _plain(loop.catalog.load("parameters")),
        "versions": {
            **{name: importlib.metadata.version(name) for name in PACKAGES},
            "commit": _git_commit(),
        },
        "inputs": {
            name: _fingerprint(loop.catalog.get(name))
            for name in sorted(loop.pipeline.inputs() - set(loop.settings.carry))
            if not name.startswith("params:")
        },
        "host": socket.gethostname(),
        "pid": os.getpid(),
    }
    if not resumed:
        loop.ledger.append(f"{loop.name}/opened", facts)
        return
    opened = loop.ledger.read(f"{loop.name}/opened") or {}
    for what in ("parameters", "versions", "inputs"):
        before = opened.get(what, {})
        changed = [name for name, value in facts[what].items() if before.get(name) != value]
        if changed:
            logger.warning(
                "loop %s goes on with other %s than it began with: %s",
                loop.name,
                what,
                ", ".join(changed),
            )
    loop.ledger.append(f"{loop.name}/resumed-{generate_timestamp()}", facts)


def _fingerprint(dataset: Any) -> str:
    """The SHA-256 of an input's file or files; of an input without, what it says of itself."""
    # Datasets of files on object storage have a filesystem of their own.
    files = getattr(dataset, "_fs", LocalFileSystem())
    path = str(getattr(dataset, "_filepath", None))
    if files.isfile(path):
        return hashlib.sha256(files.cat_file(path)).hexdigest()
    names = (
        {} if not files.isdir(path) else {PurePosixPath(p).name: p for p in files.ls(path, False)}
    )
    contents = [
        (name, hashlib.sha256(files.cat_file(each)).hexdigest())
        for name, each in sorted(names.items())
        if not name.startswith(".") and files.isfile(each)
    ]
    if not contents:
        return str(dataset._describe())
    return hashlib.sha256(str(contents).encode()).hexdigest()


def _plain(value: Any) -> Any:
    """Parameters as JSON; typed groups become dictionaries."""
    if isinstance(value, BaseModel):
        return value.model_dump(mode="json")
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    return value


def _git_commit() -> str | None:
    """The commit that is checked out, None outside a git repository or without git."""
    git = shutil.which("git")
    if git is None:
        return None
    done = subprocess.run([git, "rev-parse", "HEAD"], capture_output=True, text=True, check=False)  # noqa: S603
    return done.stdout.strip() or None
