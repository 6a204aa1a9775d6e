"""Where an interrupted training goes on: its last checkpoint that is whole."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from llamaduo.files import bring_to_disk, make_folder, replacing

MARKER = "complete.json"
"""Names the files of a checkpoint with their sizes; written last."""
NOT_TRAINED = ("*token*", "vocab*", "merges*", "*.jinja", "*.md")
"""Files of the base model that transformers and TRL write into each checkpoint."""
FINISHED = "finished"
"""Stands in a training's folder when its adapter has been handed over."""


def open_checkpoints(root: Path, training: str) -> Path:
    """The folder of a training's checkpoints; those of finished trainings are removed.

    Args:
        training: A digest of all that decides what the training makes.
    """
    for folder in root.glob(f"*/{FINISHED}"):
        if folder.parent.name != training:
            shutil.rmtree(folder.parent)
    make_folder(root / training)
    return root / training


def mark_complete(checkpoint: Path) -> None:
    """Bring a checkpoint to the disk, and say that it is whole.

    Tokenizer and model card go before: they are the base model's, and large.
    """
    for pattern in NOT_TRAINED:
        for path in checkpoint.glob(pattern):
            path.unlink()
    files = [path for path in checkpoint.rglob("*") if path.is_file()]
    for path in files:
        bring_to_disk(path)
    sizes = {str(path.relative_to(checkpoint)): path.stat().st_size for path in files}
    with replacing(checkpoint / MARKER) as marker:
        marker.write(json.dumps(sizes, indent=1).encode("utf-8"))


def latest_checkpoint(folder: Path) -> Path | None:
    """The last checkpoint that is whole: a kill may have left half of a later one."""
    whole = [path for path in folder.glob("checkpoint-*") if is_complete(path)]
    return max(whole, key=step_of, default=None)


def drop_incomplete(folder: Path) -> None:
    """Remove what a kill has left of a checkpoint."""
    for checkpoint in folder.glob("checkpoint-*"):
        if not is_complete(checkpoint):
            shutil.rmtree(checkpoint)


def is_complete(checkpoint: Path) -> bool:
    """Whether all files are there, as long as they were."""
    marker = checkpoint / MARKER
    if not marker.exists():
        return False
    sizes: dict[str, int] = json.loads(marker.read_text(encoding="utf-8"))
    return all(
        (checkpoint / name).is_file() and (checkpoint / name).stat().st_size == size
        for name, size in sizes.items()
    )


def step_of(checkpoint: Path) -> int:
    """Steps after which a checkpoint was written."""
    return int(checkpoint.name.rpartition("-")[2])
