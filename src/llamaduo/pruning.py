"""Which of what the loops have made may go, and its removal."""

from typing import NamedTuple

from llamaduo.history import size_of, version_folders
from llamaduo.iterations import Loop, VersionFolder
from llamaduo.ledger import place


class Removal(NamedTuple):
    """What pruning takes of an iteration."""

    loop: Loop
    iteration: int
    bytes: int
    folders: list[VersionFolder]


def prunable(loop: Loop) -> list[Removal]:
    """Complete iterations that are neither the best so far nor the last one.

    A resume reads what is carried from the last one, whose history holds the scores of all and
    whose ``best_adapter`` is a copy. A part of the loop repeats the iteration that was completed
    last of all, so that what was carried into that one stays too. What an interrupted pruning has
    left is among them.
    """
    verdicts = loop.ledger.verdicts(loop.name)
    if not verdicts:
        return []
    last, latest = max(verdicts), loop.ledger.last_complete()
    removals = []
    for number in sorted(set(verdicts) - {last, verdicts[last]["best_iteration"]}):
        is_read = latest == (loop.name, number + 1)
        folders = version_folders(loop, number, loop.settings.carry.values() if is_read else ())
        if folders or not loop.ledger.is_pruned(loop.name, number):
            size = sum(size_of(folder) for folder in folders)
            removals.append(Removal(loop, number, size, folders))
    return removals


def prune(removal: Removal) -> None:
    """Remove what an iteration made.

    The ledger says so first: from then on nobody is offered what may be half gone.
    """
    loop, number = removal.loop, removal.iteration
    if not loop.ledger.is_pruned(loop.name, number):
        loop.ledger.append(f"{place(loop.name, number)}/pruned", {"bytes": removal.bytes})
    for folder in removal.folders:
        folder.files.rm(folder.path, recursive=True)
