"""A release: the folder that leaves this project, with all that serving the student needs.

model/                       safetensors, tokenizer, chat template, generation config
gguf/<name>-<quantization>.gguf, gguf/Modelfile
README.md, DATA_CARD.md      model card and data card
manifest.json                what it was made of, and the SHA-256 of every other file
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

MODEL = "model"
GGUF = "gguf"
MANIFEST = "manifest.json"
WEIGHTS = {".safetensors", ".gguf"}
"""Endings of files that nobody edits."""


class ReleaseError(Exception):
    """A release cannot be made, or is not what its manifest says; the message says why."""


@dataclass(frozen=True)
class Release:
    """A release on this machine."""

    folder: Path
    manifest: dict[str, Any]
    """``name``, ``base_model``, ``files`` (path: SHA-256) and what else it was made of."""

    @classmethod
    def open(cls, folder: Path) -> Release:
        """Read a release, and hold each of its files against the manifest.

        Raises:
            ReleaseError: A file is missing, or another than the one that was released.
        """
        manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        for name, released in manifest["files"].items():
            file = folder / name
            if not file.is_file():
                raise ReleaseError(f"{file} is missing; take the whole release folder anew")
            if (own := sha256(file)) != released:
                raise ReleaseError(
                    f"{file} is not the file that was released (SHA-256 {own}, the manifest says "
                    f"{released}); take the whole release folder anew"
                )
        found = {file.relative_to(folder).as_posix() for file in _files(folder)}
        if foreign := sorted(found - manifest["files"].keys()):
            raise ReleaseError(
                f"{folder / foreign[0]} is not in the manifest of the release; take it out"
            )
        return cls(folder, manifest)

    @property
    def name(self) -> str:
        """The student's, by which servers know it."""
        return str(self.manifest["name"])

    @property
    def model(self) -> Path:
        """The merged model's folder, in the layout of ``save_pretrained``."""
        return self.folder / MODEL

    @property
    def gguf(self) -> dict[str, Path]:
        """Quantization: its file."""
        files = sorted((self.folder / GGUF).glob(f"{self.name}-*.gguf"))
        return {file.stem.removeprefix(f"{self.name}-"): file for file in files}


@dataclass(frozen=True)
class ReleaseContent:
    """What becomes a release."""

    model: Path
    gguf: list[Path]
    texts: dict[str, str]
    """File: its content."""
    facts: dict[str, Any]
    """What it was made of, for the manifest."""

    def write(self, folder: Path) -> None:
        """Write all, the manifest last, and read it again."""
        folder.mkdir()
        shutil.copytree(self.model, folder / MODEL, copy_function=_link)
        for file in self.gguf:
            (folder / GGUF).mkdir(exist_ok=True)
            _link(file, folder / GGUF / file.name)
        for name, text in self.texts.items():
            (folder / name).write_text(text, encoding="utf-8")
        write_manifest(folder, self.facts)
        Release.open(folder)


def write_manifest(folder: Path, facts: dict[str, Any]) -> None:
    """Enter what a release was made of, with the hash of each file that it has by now."""
    hashes = {file.relative_to(folder).as_posix(): sha256(file) for file in _files(folder)}
    text = json.dumps({**facts, "files": hashes}, ensure_ascii=False, indent=1)
    (folder / MANIFEST).write_text(text, encoding="utf-8")


def _files(folder: Path) -> list[Path]:
    """All but the manifest, and but hidden ones, which a desktop leaves and nobody reads."""
    return [
        file
        for file in sorted(folder.rglob("*"))
        if file.is_file() and file != folder / MANIFEST and not file.name.startswith(".")
    ]


def sha256(file: Path) -> str:
    """Of a file's content."""
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


def _link(source: str | Path, target: str | Path) -> None:
    """Weights once on the disk, under two names, where it is one disk; a copy of the rest.

    Small files are edited where they lie, and then must not change elsewhere too.
    """
    if Path(source).suffix in WEIGHTS:
        with suppress(OSError):
            os.link(source, target)
            return
    shutil.copyfile(source, target)
