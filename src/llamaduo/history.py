"""What the loops have come to.

All values are read through the catalog, at an iteration's version, and from the ledger.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

from kedro.io import DatasetError
from kedro.pipeline import Pipeline

from llamaduo.errors import InputError
from llamaduo.iterations import Loop, VersionFolder, iteration_catalog, version_folder
from llamaduo.ledger import Ledger, place
from llamaduo.parameters import LoopParameters
from llamaduo.service_llm.budget import Cost
from llamaduo.statistics import describe_gain, paired_gains

SCORES = ("similarity", "precision")
HISTORY = "iteration_history"
"""The entry that holds all iterations of a loop up to its version's."""
State = Literal["complete", "open", "pruned", "gone"]
"""``gone``: complete, but the reports of it are not there any more, such as after forgetting."""


@dataclass(frozen=True)
class Iteration:
    """What a list has of an iteration; None where it is not known (any more)."""

    loop: str
    iteration: int
    state: State
    best: bool
    reason: str | None
    """Why the loop ended here."""
    obstacles: list[str]
    """Sentences that forbid a verdict on its scores."""
    training_pairs: int | None
    similarity: dict[str, Any] | None
    """``mean``, ``standard_error`` and ``lower_bound``, 0–100, of the test set."""
    precision: dict[str, Any] | None
    usd: float | None
    """Of this iteration alone, as are tokens and requests."""
    tokens: float | None
    requests: int | None
    seconds: float | None
    """From its beginning to its verdict, interruptions included."""
    training_seconds: float | None
    bytes: int
    """Of all its version folders."""


@dataclass(frozen=True)
class LoopHistory:
    """A loop and its iterations."""

    loop: str
    ended: str | None
    """The reason; None for a loop that can be gone on with."""
    iterations: list[Iteration]


def all_loops(catalog: Any, pipeline: Pipeline) -> list[Loop]:
    """Every loop of the ledger, the oldest first."""
    settings = LoopParameters.model_validate(catalog.load("params:loop"))
    ledger: Ledger = catalog.load(settings.ledger)
    return [Loop(name, pipeline, catalog, settings, ledger) for name in ledger.loops()]


def history_of(loop: Loop) -> LoopHistory:
    """A loop as a list shows it."""
    closed = loop.ledger.read(f"{loop.name}/closed")
    verdicts = loop.ledger.verdicts(loop.name)
    entries = entries_of(loop)
    best = verdicts[max(verdicts)]["best_iteration"] if verdicts else None
    opened = _opened_iterations(loop)
    rows = [
        Iteration(
            loop=loop.name,
            iteration=number,
            state=_state(loop, number, complete=number in verdicts, known=number in entries),
            best=number == best,
            reason=closed["reason"] if closed and number == closed["iteration"] else None,
            obstacles=verdicts.get(number, {}).get("obstacles", []),
            **_figures(entries, number),
            seconds=_seconds(loop, number),
            bytes=sum(size_of(folder) for folder in version_folders(loop, number)),
        )
        for number in opened
    ]
    return LoopHistory(loop.name, closed["reason"] if closed else None, rows)


def entries_of(loop: Loop) -> dict[int, dict[str, Any]]:
    """Iteration: its entry in the history, as the latest one that can be read has it."""
    for number in sorted(loop.ledger.verdicts(loop.name), reverse=True):
        if loop.ledger.is_pruned(loop.name, number):
            continue
        try:
            history = iteration_catalog(loop, number).load(HISTORY)
        except DatasetError:  # forgotten, removed by hand, or of another type by now
            continue
        return {entry["assessment"]["iteration"]: entry for entry in history}
    return {}


def version_folders(loop: Loop, iteration: int, but: Iterable[str] = ()) -> list[VersionFolder]:
    """The folders that an iteration has written, as far as they exist.

    Args:
        but: Entries to leave out.
    """
    named = (loop.catalog.get(name) for name in sorted(loop.pipeline.all_outputs() - {*but}))
    folders = (version_folder(dataset, loop.version(iteration)) for dataset in named)
    return [found for found in folders if found and found.files.exists(found.path)]


def _opened_iterations(loop: Loop) -> list[int]:
    number, found = 1, []
    while loop.ledger.read(f"{place(loop.name, number)}/opened"):
        found.append(number)
        number += 1
    return found


def _state(loop: Loop, iteration: int, *, complete: bool, known: bool) -> State:
    if loop.ledger.is_pruned(loop.name, iteration):
        return "pruned"
    if not complete:
        return "open"
    return "complete" if known else "gone"


def _figures(entries: dict[int, dict[str, Any]], number: int) -> dict[str, Any]:
    entry = entries.get(number)
    if entry is None:
        names = ("training_pairs", *SCORES, *Cost._fields, "training_seconds")
        return dict.fromkeys(names)
    assessment = entry["assessment"]
    kept = ("mean", "standard_error", "lower_bound")
    return {
        "training_pairs": entry["training_pairs"],
        **{name: {key: assessment[name][key] for key in kept} for name in SCORES},
        **cost_of(entries, number)._asdict(),
        "training_seconds": entry["training"]["seconds"],
    }


def cost_of(entries: dict[int, dict[str, Any]], number: int) -> Cost:
    """What an iteration itself has cost; the history has what the loop had by then."""

    def by_then(iteration: int) -> Cost:
        costs = entries[iteration]["costs"] if iteration in entries else Cost()._asdict()
        return Cost(**{name: costs[name] for name in Cost._fields})

    return by_then(number) - by_then(number - 1)


def _seconds(loop: Loop, iteration: int) -> float | None:
    opened, decided = (
        loop.ledger.read(f"{place(loop.name, iteration)}/{event}")
        for event in ("opened", "verdict")
    )
    if not opened or not decided:
        return None
    took = datetime.fromisoformat(decided["at"]) - datetime.fromisoformat(opened["at"])
    return round(took.total_seconds(), 1)


def size_of(folder: VersionFolder) -> int:
    """Bytes of all that is in it."""
    return int(folder.files.du(folder.path))


@dataclass(frozen=True)
class Compared:
    """Two iterations side by side; what differs is given as ``[the first's, the second's]``."""

    iterations: list[Iteration]
    gains: dict[str, dict[str, Any]] | None
    """Score: the second over the first, prompt by prompt (``statistics.describe_gain``); None where
    the two do not compare."""
    measured: dict[str, list[Any]]
    """What the scores rest on. Where this differs, they do not compare."""
    parameters: dict[str, list[Any]]
    versions: dict[str, list[Any]]
    inputs: dict[str, list[Any]]
    """By the digest of the file, or what an input says of itself."""


def compare(loops: list[Loop], one: str, other: str) -> Compared:
    """Compare two iterations.

    Args:
        one: ``LOOP/ITERATION``, or ``LOOP``, which is its best iteration so far.
        other: The same.

    Raises:
        InputError: There is no such iteration, or its scores are not there any more.
    """
    (loop, number), (second, second_number) = (_named(loops, name) for name in (one, other))
    entry, second_entry = _entry(loop, number), _entry(second, second_number)
    facts = [_facts_at(loop, number), _facts_at(second, second_number)]
    measured = _differences(*(each["assessment"]["measured"] for each in (entry, second_entry)))
    gains = {
        name: describe_gain(paired_gains(second_entry["scores"][name], entry["scores"][name]))
        for name in SCORES
    }
    return Compared(
        iterations=[
            next(row for row in history_of(each).iterations if row.iteration == own)
            for each, own in ((loop, number), (second, second_number))
        ],
        gains=None if measured else gains,
        measured=measured,
        parameters=_differences(*(each["parameters"] for each in facts)),
        versions=_differences(*(each["versions"] for each in facts)),
        inputs=_differences(*(each["inputs"] for each in facts)),
    )


def _named(loops: list[Loop], name: str) -> tuple[Loop, int]:
    loop_name, _, number = name.partition("/")
    loop = next((each for each in loops if each.name == loop_name), None)
    if loop is None:
        known = ", ".join(each.name for each in loops) or "none"
        raise InputError(f"there is no loop {loop_name}; known are: {known}")
    verdicts = loop.ledger.verdicts(loop.name)
    if not verdicts:
        raise InputError(f"loop {loop_name} has no complete iteration yet; go on with it first")
    if not number:
        return loop, verdicts[max(verdicts)]["best_iteration"]
    if not number.isdecimal() or int(number) not in verdicts:
        complete = ", ".join(str(each) for each in sorted(verdicts))
        raise InputError(
            f"loop {loop_name} has no complete iteration {number!r}; complete are: {complete}"
        )
    return loop, int(number)


def _entry(loop: Loop, number: int) -> dict[str, Any]:
    entries = entries_of(loop)
    if number not in entries:
        raise InputError(
            f"the scores of iteration {number} of loop {loop.name} are not there any more; "
            "kedro loops lists those that are"
        )
    return entries[number]


def _facts_at(loop: Loop, iteration: int) -> dict[str, Any]:
    """What an iteration rests on: the facts of the last start before its verdict."""
    decided = loop.ledger.verdicts(loop.name)[iteration]["at"]
    return [facts for facts in loop.ledger.starts(loop.name) if facts["at"] <= decided][-1]


def _differences(one: dict[str, Any], other: dict[str, Any]) -> dict[str, list[Any]]:
    first, second = dict(_flat(one)), dict(_flat(other))
    return {
        key: [first.get(key), second.get(key)]
        for key in sorted({*first, *second})
        if first.get(key) != second.get(key)
    }


def _flat(value: dict[str, Any], above: str = "") -> Iterator[tuple[str, Any]]:
    for key, item in value.items():
        if isinstance(item, dict) and item:
            yield from _flat(item, f"{above}{key}.")
        else:
            yield f"{above}{key}", item
