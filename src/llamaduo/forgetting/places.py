"""Where a person's rows may lie: below the data root, and wherever the catalog points to."""

import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from kedro.framework.context import KedroContext
from kedro.framework.project import pipelines

from llamaduo.ledger import Ledger, ledgers_below
from llamaduo.parameters import LoopParameters

TRAINING_SET = "training_set"
TAUGHT = ("coverage_train", "ready_pairs")
TESTED = ("coverage_test", "coverage_holdout")
BASE_MODEL = {"config.json", "tokenizer_config.json"}
"""Files of a model as it came; what it knows it did not learn here."""


class Places(NamedTuple):
    """What one environment's catalog reads and writes."""

    roots: list[Path]
    """Files and folders; the data root is the first."""
    own: set[Path]
    """Files and folders of the user: the coverage set, and what no pipeline writes."""
    training_set: str
    """Name of its files, whose rows adapters have seen."""
    taught: set[Path]
    """Inputs whose pairs are trained on, by their id or as ``seed_id`` of others."""
    tested: set[Path]
    """Inputs whose pairs are tested on."""
    carried: set[str]
    """Names of the files that a loop's next iteration reads."""
    ledgers: list[Ledger]
    remote: list[str]
    """URLs, which are not looked at."""

    def files(self) -> Iterator[Path]:
        """Each file once; folders of base models are left out."""
        seen = set()
        for path in self._paths():
            real = path.resolve()
            if real not in seen and path.is_file():
                seen.add(real)
                yield path

    def _paths(self) -> Iterator[Path]:
        seen = set()
        for root in self.roots:
            yield root
            for name, folders, files in os.walk(root, followlinks=True):
                folder = Path(name).resolve()
                if folder in seen or set(files) >= BASE_MODEL:
                    folders.clear()
                    continue
                seen.add(folder)
                folders.sort()
                yield from (Path(name, file) for file in sorted(files))

    def is_own(self, path: Path) -> bool:
        """Whether a file is the user's, or lies beside such a one, as a copy of it would."""
        return path.parent in {each.parent for each in self.own} or is_below(path, self.own)

    def is_in_ledger(self, path: Path) -> bool:
        """Whether a file is an event, which is never changed."""
        return is_below(path, {ledger.folder for ledger in self.ledgers})


def is_below(path: Path, places: set[Path]) -> bool:
    """Whether a file is one of some places, or lies below one."""
    return not places.isdisjoint((path, *path.parents))


def places_of(context: KedroContext) -> Places:
    """The places of an environment."""
    catalog: Any = context.catalog
    entries = {name: set(_paths(each)) for name, each in catalog.config_resolver.config.items()}

    def local(names: Iterable[str]) -> set[Path]:
        paths = {path for name in names for path in entries.get(name, ())}
        return {Path(path) for path in paths if "://" not in path}

    made = {name for pipeline in pipelines.values() for name in pipeline.all_outputs()}
    root = context.project_path / context.config_loader["globals"]["data"]
    taught, tested = local(TAUGHT), local(TESTED)
    settings = LoopParameters.model_validate(catalog.load("params:loop"))
    ledger: Ledger = catalog.load(settings.ledger)
    others = [each for each in ledgers_below(root) if each.folder != ledger.folder]
    return Places(
        roots=[root, *sorted(local(entries))],
        own=local(entries) - local(made) | taught | tested,
        training_set=Path(catalog.config_resolver.config[TRAINING_SET]["filepath"]).name,
        taught=taught,
        tested=tested,
        carried={path.name for path in local(settings.carry.values())},
        ledgers=[ledger, *others],
        remote=sorted({path for paths in entries.values() for path in paths if "://" in path}),
    )


def _paths(entry: dict[str, Any]) -> Iterator[str]:
    """The files of a catalog entry, also of those that stand inside it."""
    for key, value in entry.items():
        if isinstance(value, dict):
            yield from _paths(value)
        elif key in ("filepath", "path"):
            yield value
