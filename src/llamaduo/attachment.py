"""A part of the loop inside an iteration of a loop that other processes run the rest of."""

import re
from typing import Any, NamedTuple, cast

from kedro.framework.project import pipelines
from kedro.io import DataCatalog
from kedro.pipeline import Pipeline

from llamaduo.errors import InputError
from llamaduo.iterations import AT, is_last, pin, pinned_versions
from llamaduo.ledger import Ledger, UnknownLoopError
from llamaduo.parameters import LoopParameters

NEW = "new"
LATEST = "latest"
# In the runner's name, which is all that Kedro tells hooks of it.
ATTACHED = re.compile(r"LoopRunner\(attach=([^,]+), ")
RESUMED = re.compile(r"LoopRunner\(resume=([^,]+), ")


class LoopEndedError(UnknownLoopError):
    """The loop to run a part of has ended; whoever has planned more parts need not run them.

    Args:
        target_reached: How it has ended.
    """

    def __init__(self, message: str, *, target_reached: bool) -> None:
        super().__init__(message)
        self.target_reached = target_reached


class Attachment(NamedTuple):
    """The iteration that a part runs in."""

    loop: str
    iteration: int
    is_new: bool
    """The loop begins with it."""

    def __str__(self) -> str:
        return f"{self.loop}/{self.iteration}"

    @classmethod
    def of(cls, said: str, run_id: str) -> "Attachment":
        """Read ``LOOP/ITERATION``, or ``new``: the first iteration of a loop named by the run.

        Raises:
            UnknownLoopError: It is neither.
        """
        if said == NEW:
            return cls(run_id, 1, is_new=True)
        loop, _, iteration = said.rpartition("/")
        if not loop or not iteration.isdecimal():
            raise UnknownLoopError(
                f"attach is {said!r}, expected LOOP/ITERATION, such as "
                "2026-01-31T12.00.00.000Z/2, or new, which begins a loop"
            )
        return cls(loop, int(iteration), is_new=False)

    def check(self, part: Pipeline, settings: LoopParameters, ledger: Ledger) -> None:
        """Refuse what cannot run there now.

        Raises:
            LoopEndedError: The loop has ended.
            UnknownLoopError: The loop is unknown, or is at another iteration.
            InputError: The part is none of the loop, or what it reads is not committed yet.
        """
        if alien := part.all_outputs() - whole_loop().all_outputs():
            raise InputError(
                f"attach runs parts of the loop, which does not make {_listed(alien)}; run that "
                "without attach"
            )
        if not self.is_new:
            self._refuse_other_iterations(settings, ledger)
        committed = ledger.committed(self.loop, self.iteration)
        lacking = part.inputs() & whole_loop().all_outputs() - committed
        if lacking:
            raise InputError(
                f"iteration {self.iteration} of loop {self.loop} has not committed "
                f"{_listed(lacking)}: run {parts_that_make(lacking)} of this iteration "
                "first"
            )

    def _refuse_other_iterations(self, settings: LoopParameters, ledger: Ledger) -> None:
        verdicts = ledger.verdicts(self.loop)
        if closed := ledger.read(f"{self.loop}/closed"):
            raise LoopEndedError(
                f"loop {self.loop} has ended ({closed['reason']}): nothing is left to run",
                target_reached=verdicts[closed["iteration"]]["target_reached"],
            )
        ledger.unfinished(self.loop)
        last = max(verdicts, default=0)
        if last and is_last(verdicts[last], last, settings):
            raise UnknownLoopError(
                f"loop {self.loop} has its last verdict; close it with: "
                f"kedro run --resume {self.loop}"
            )
        if self.iteration != last + 1:
            raise UnknownLoopError(
                f"loop {self.loop} is at iteration {last + 1}: attach={self.loop}/{last + 1}"
            )


def whole_loop() -> Pipeline:
    """What a plain run repeats."""
    return cast(Pipeline, pipelines["__default__"])


def parts_that_make(datasets: set[str]) -> str:
    """The loop's namespaces, or nodes that have none, that make some datasets, in their order."""
    parts = [
        node.namespace or node.name for node in whole_loop().nodes if datasets & {*node.outputs}
    ]
    return ", ".join(dict.fromkeys(parts))


def is_attached(run_params: dict[str, Any]) -> bool:
    """Whether a run works inside an iteration of a loop, by what hooks are told of it."""
    return ATTACHED.search(run_params["runner"]) is not None


def loop_of(run_params: dict[str, Any], catalog: DataCatalog) -> str:
    """The name of the loop that a run works for, or of the run where it works for none.

    Raises:
        UnknownLoopError: The loop to go on with does not exist, or has ended.
    """
    name = str(run_params["run_id"])
    if said := ATTACHED.search(run_params["runner"]):
        return Attachment.of(said[1], name).loop
    if said := RESUMED.search(run_params["runner"]):
        settings = LoopParameters.model_validate(catalog.load("params:loop"))
        ledger: Ledger = catalog.load(settings.ledger)
        return ledger.unfinished(None if said[1] == LATEST else said[1])
    return name


def pin_attached(run_params: dict[str, Any], part: Pipeline, catalog: DataCatalog) -> bool:
    """Let the checks before an attached run read what the run will read.

    Returns:
        Whether the run is an attached one.

    Raises:
        UnknownLoopError, InputError: As of ``Attachment``.
    """
    said = ATTACHED.search(run_params["runner"])
    if said is None:
        return False
    if f"params:{AT}" in catalog:
        raise InputError(
            "at chooses an iteration to look at, attach the one to run in: leave out at"
        )
    settings = LoopParameters.model_validate(catalog.load("params:loop"))
    at = Attachment.of(said[1], run_params["run_id"])
    at.check(part, settings, catalog.load(settings.ledger))
    pins = pinned_versions(whole_loop().all_outputs(), settings, at.loop, at.iteration)
    if named := set(run_params["load_versions"] or {}) & set(pins):
        raise InputError(
            f"--load-versions names {_listed(named)}, which an attached run reads at the version "
            "of its iteration"
        )
    for name in part.inputs() & set(pins):
        pin(catalog.get(name), pins[name])
    return True


def _listed(names: set[str]) -> str:
    return ", ".join(sorted(names))
