"""The versions of an iteration: which are read, written, committed and dropped."""

import copy
import logging
from collections.abc import Iterable
from typing import Any, NamedTuple

from kedro.framework.hooks import hook_impl
from kedro.io import AbstractVersionedDataset, DataCatalog, MemoryDataset, Version
from kedro.pipeline import Pipeline

from llamaduo.errors import InputError
from llamaduo.files import bring_folder_to_disk
from llamaduo.interruption import SafePoint
from llamaduo.ledger import Ledger, place, version
from llamaduo.parameters import IterationParameters, LoopParameters
from llamaduo.service_llm.budget import Account

AT = "at"
"""The parameter by which ``--params=at=...`` chooses an iteration to look at."""
OF_THE_BEST = "of-the-best-iteration"
"""The tag of a pipeline that reads the best iteration unless another is chosen."""

logger = logging.getLogger(__name__)


class Loop(NamedTuple):
    """A loop under way."""

    name: str
    pipeline: Pipeline
    catalog: DataCatalog
    """Of the session: each iteration makes its own from the same configuration."""
    settings: LoopParameters
    ledger: Ledger

    def version(self, iteration: int) -> str:
        """Name of an iteration's version folders."""
        return version(self.name, iteration)


def is_whole_loop(pipeline: Pipeline, settings: LoopParameters) -> bool:
    """Whether a pipeline makes the signal and reads and writes all that is carried."""
    return (
        settings.signal in pipeline.all_outputs()
        and set(settings.carry) <= pipeline.inputs()
        and set(settings.carry.values()) <= pipeline.all_outputs()
    )


def is_last(verdict: dict[str, Any], iteration: int, settings: LoopParameters) -> bool:
    """Whether a loop ends with a verdict."""
    return bool(verdict["stop"]) or iteration >= settings.max_iterations


def pinned_versions(
    made: Iterable[str], settings: LoopParameters, loop: str, iteration: int
) -> dict[str, str]:
    """The version that each entry is read at inside an iteration.

    Args:
        made: Entries that the iteration itself makes; what is carried is read one version back.
    """
    own, previous = version(loop, iteration), version(loop, iteration - 1)
    return {**dict.fromkeys(made, own), **dict.fromkeys(settings.carry, previous)}


def pin(dataset: Any, at: str | None) -> None:
    """Let an entry be read at a version, or at its latest; nothing where it has none."""
    if isinstance(dataset, AbstractVersionedDataset) and dataset._version:
        # In place: a replaced entry would lose its validator.
        dataset._version = Version(at, dataset._version.save)


def chosen_iteration(at: object, ledger: Ledger) -> tuple[str, int]:
    """The loop and the complete iteration that ``--params=at=...`` names.

    Args:
        at: The number of an iteration, or ``best`` for the best one by the loop's last verdict; of
            the loop in which an iteration was completed last, or of the one named as ``<loop>/``
            before it.

    Raises:
        InputError: There is no such iteration; the message lists those that there are.
    """
    complete = {
        name: {n: each for n, each in verdicts.items() if not ledger.is_pruned(name, n)}
        for name in ledger.loops()
        if (verdicts := ledger.verdicts(name))
    }
    loop, _, which = str(at).rpartition("/")
    if not loop and (last := ledger.last_complete()):
        loop, _ = last
    verdicts = complete.get(loop, {})
    if which == "best" and verdicts:
        which = str(verdicts[max(verdicts)]["best_iteration"])
    if which.isdecimal() and int(which) in verdicts:
        return loop, int(which)
    there_are = [f"{name}/{number}" for name, found in complete.items() for number in found]
    raise InputError(
        f"at={at} names no complete iteration; complete are {', '.join(there_are) or 'none yet'}. "
        "A number alone, or best, is of the loop in which one was completed last"
    )


def iteration_catalog(loop: Loop, iteration: int) -> DataCatalog:
    """A fresh catalog from the same configuration that saves and loads one iteration's version.

    Kedro allows one save version per catalog, so that each iteration needs its own
    (kedro issue 4738). Datasets that were put into the catalog by hand are shared.
    """
    catalog = loop.catalog
    # Replacing an entry can delete its configuration from the resolver, hence the copy.
    resolver = copy.deepcopy(catalog.config_resolver)
    configured = set(resolver.config)
    # Versions that a person pinned by --load-versions hold for what the loop does not touch.
    pins = pinned_versions(loop.pipeline.all_outputs(), loop.settings, loop.name, iteration)
    loads = {**catalog._load_versions, **pins}
    here = type(catalog)(
        config_resolver=resolver,
        load_versions={name: at for name, at in loads.items() if name in configured},
        save_version=loop.version(iteration),
        validation_enabled=catalog.validation_enabled,
    )
    for name in set(catalog.keys()) - configured - {"params:iteration"}:
        here[name] = catalog[name]
    account = Account(name=loop.name, caps=loop.settings.budget)
    here["params:iteration"] = MemoryDataset(
        IterationParameters(index=iteration, loop=loop.name, account=account), copy_mode="assign"
    )
    return here


class CommitHook:
    """Enters each saved dataset of an iteration in the ledger."""

    def __init__(
        self, loop: Loop, iteration: int, catalog: DataCatalog, safe_point: SafePoint
    ) -> None:
        self._ledger = loop.ledger
        self._catalog = catalog
        self._place = place(loop.name, iteration)
        self._version = loop.version(iteration)
        self._safe_point = safe_point

    @hook_impl
    def before_dataset_saved(self, dataset_name: str) -> None:
        """Hold signals back."""
        self._safe_point.enter_save(dataset_name)

    @hook_impl
    def after_dataset_saved(self, dataset_name: str) -> None:
        """Make the data durable, commit, then let signals through."""
        dataset = self._catalog.get(dataset_name)
        if found := version_folder(dataset, self._version):
            bring_folder_to_disk(*found)
        self._ledger.append(f"{self._place}/committed/{dataset_name}", {"version": self._version})
        self._safe_point.leave_save(dataset_name)


def drop_uncommitted(loop: Loop, part: Pipeline, iteration: int, catalog: DataCatalog) -> None:
    """Remove what an interrupted save left: Kedro would take half a file for a whole one.

    A node with an output missing runs again, and Kedro refuses to save a version twice, so that a
    node's outputs are kept or dropped together.

    Args:
        part: Of the loop, whose nodes run next; other processes may be saving for the others.
    """
    committed = loop.ledger.committed(loop.name, iteration)
    for node in part.nodes:
        if set(node.outputs) <= committed:
            continue
        for name in node.outputs:
            dataset: Any = catalog.get(name)
            found = version_folder(dataset, loop.version(iteration))
            if found and found.files.exists(found.path):
                logger.warning("dropping the unfinished %s of %s", name, loop.version(iteration))
                found.files.rm(found.path, recursive=True)
            if found:
                dataset.release()


class VersionFolder(NamedTuple):
    """Where a version of an entry lies; it need not exist."""

    files: Any
    """Its fsspec filesystem."""
    path: str


def version_folder(dataset: Any, at: str) -> VersionFolder | None:
    """The folder of a version; None for an entry that has no versions."""
    if not isinstance(dataset, AbstractVersionedDataset) or dataset._version is None:
        return None
    # The filesystem is an attribute of every versioned dataset of kedro-datasets and ours.
    files = getattr(dataset, "_fs")  # noqa: B009
    return VersionFolder(files, str(dataset._get_versioned_path(at).parent))
