"""Where a person's rows may lie: below the data roots, and wherever the catalogs point to."""

import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from kedro.config import MissingConfigException
from kedro.framework.project import pipelines, settings
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from llamaduo.errors import InputError
from llamaduo.ledger import Ledger, ledgers_below

ROLES = {
    "coverage": ["coverage_train"],
    "ready": ["ready_pairs"],
    "tested": ["coverage_test", "coverage_holdout"],
}
BASE_MODEL = {"config.json", "tokenizer_config.json"}
"""Files of a model as it came; what it knows it did not learn here."""
ROOTS = ("data", "local_data")
"""Of globals.yml."""
ROOT = "data root"
"""In the place of an entry's name."""
PARTIAL = ".partial"
"""The end of what an interrupted save leaves; the file's own name stands before it."""


class Places(NamedTuple):
    """What the catalogs of all environments read and write; paths are resolved."""

    roots: set[Path]
    """Files and folders to look at, the data roots among them."""
    made: set[str]
    """Names of the files that runs write."""
    inputs: set[Path]
    """Files and folders of the user."""
    roles: dict[str, set[Path]]
    """Inputs by what they are for: ``coverage`` is shown to service LLMs and trained on, ``ready``
    trained on in place of what these write, ``tested`` tested on."""
    training_sets: set[str]
    """Names of the files whose rows adapters have seen."""
    models: set[Path]
    """Folders in which versions of whole models lie, which are made from adapters."""
    ledgers: list[Ledger]
    remote: list[str]
    """URLs, which are not looked at; of those below another the other alone."""

    def files(self) -> list[Path]:
        """Each file once, and folders that cannot be listed; those of models are left out."""
        found: dict[str, Path] = {}
        for path in self._paths():
            found.setdefault(os.path.realpath(path), path)
        return list(found.values())

    def _paths(self) -> Iterator[Path]:
        seen, closed = set(), list[OSError]()
        for root in sorted(root for root in self.roots if root.exists()):
            if root.is_file():
                yield root
            for name, folders, files in os.walk(root, onerror=closed.append, followlinks=True):
                folder = Path(name).resolve()
                if folder in seen or folder in self.models or set(files) >= BASE_MODEL:
                    folders.clear()
                    continue
                seen.add(folder)
                folders.sort()
                yield from (Path(name, file) for file in sorted(files))
        yield from (Path(error.filename) for error in closed)

    def is_made(self, path: Path) -> bool:
        """Whether a run writes files of this name, or a save of one has left it half written."""
        if path.suffix == PARTIAL:
            return any(path.name.startswith(f".{name}.") for name in self.made)
        return path.name in self.made and not is_within(path, self.inputs)


def is_within(path: Path, places: Iterable[Path]) -> bool:
    """Whether a file is one of some places, or lies below one."""
    real = Path(os.path.realpath(path))  # unlike resolve() also of links in a circle
    return any(real.is_relative_to(place) for place in places)


def places_of(project: Path) -> Places:
    """The places of a project, over all its environments; credentials are not read.

    Raises:
        InputError: The configuration of an environment cannot be read.
    """
    entries: dict[str, set[str]] = {}
    for folder in (project / settings.CONF_SOURCE).iterdir():
        for name, entry in _catalog(folder).items() if folder.is_dir() else ():
            entries.setdefault(name, set()).update(_paths(entry))

    def of(names: Iterable[str]) -> set[Path]:
        paths = {path for name in names for path in entries.get(name, ())}
        return {(project / path).resolve() for path in paths if "://" not in path}

    roles = {role: of(names) for role, names in ROLES.items()}
    written = of({name for pipeline in pipelines.values() for name in pipeline.all_outputs()})
    inputs = (of(entries) - written).union(*roles.values())
    ledgers = {Path(each.folder) for root in of([ROOT]) for each in ledgers_below(root)}
    urls = {path for path in set().union(*entries.values()) if "://" in path}
    return Places(
        roots=of(entries),
        made={path.name for path in written - inputs},
        inputs=inputs - of([ROOT]),
        roles=roles,
        training_sets={path.name for path in of(["training_set"])},
        models=of(["merged_model", "gguf_model", "release"]),
        ledgers=[Ledger(folder) for folder in ledgers | of(["ledger"])],
        remote=sorted(url for url in urls if not any(url.startswith(f"{o}/") for o in urls)),
    )


def _catalog(folder: Path) -> dict[str, Any]:
    """The catalog of an environment, with its data root as an entry."""
    try:
        loader = settings.CONFIG_LOADER_CLASS(
            str(folder.parent), env=folder.name, **settings.CONFIG_LOADER_ARGS
        )
        roots = {name: loader["globals"][name] for name in ROOTS if name in loader["globals"]}
        return {
            **loader["catalog"],
            ROOT: {name: {"path": path} for name, path in roots.items()},
        }
    except (MissingConfigException, OmegaConfBaseException, YAMLError, ValueError) as error:
        raise InputError(f"{folder} cannot be read; mend it first ({error})") from error


def _paths(entry: dict[str, Any]) -> Iterator[str]:
    """The files of a catalog entry, also of those that stand inside it."""
    for key, value in entry.items():
        if isinstance(value, dict):
            yield from _paths(value)
        elif key in ("filepath", "path"):
            yield str(value).removeprefix("file://")
