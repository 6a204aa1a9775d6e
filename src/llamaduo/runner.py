"""``LoopRunner`` repeats a pipeline until one of its outputs says stop."""

import logging
from collections.abc import Callable
from functools import partial
from typing import Any

from kedro.framework.hooks import _create_hook_manager
from kedro.framework.hooks.markers import hook_spec
from kedro.io import DataCatalog
from kedro.io.core import generate_timestamp
from kedro.pipeline import Pipeline
from kedro.runner import AbstractRunner, ParallelRunner, SequentialRunner
from kedro.utils import load_obj
from pluggy import PluginManager
from rich.console import Console

from llamaduo.attachment import LATEST, NEW, Attachment, parts_that_make, whole_loop
from llamaduo.errors import InputError
from llamaduo.interruption import SafePoint
from llamaduo.iterations import (
    CommitHook,
    Loop,
    drop_uncommitted,
    is_last,
    is_whole_loop,
    iteration_catalog,
)
from llamaduo.ledger import Ledger, UnknownLoopError, place
from llamaduo.parameters import LoopParameters
from llamaduo.provenance import enter_start

logger = logging.getLogger(__name__)


class IterationSpecs:
    """The loop's own hooks, beside Kedro's."""

    @hook_spec
    def before_iteration(self, iteration: int, catalog: DataCatalog) -> None:
        """Called before the first node of an iteration."""

    @hook_spec
    def after_iteration(
        self, iteration: int, verdict: dict[str, Any], catalog: DataCatalog
    ) -> None:
        """Called when an iteration's verdict stands in the ledger."""

    @hook_spec
    def on_loop_stopped(self, error: BaseException, catalog: DataCatalog) -> None:
        """Called when an error or a signal (``KeyboardInterrupt``) ends a loop before its end."""


class LoopRunner(AbstractRunner):
    """Runs iterations 1, 2, … with an inner runner, each on a fresh catalog with its own version.

    A pipeline that is not the whole loop gets one plain pass of the inner runner, or, attached, one
    inside of an iteration of a loop.

    Args:
        is_async: Load and save datasets in threads.
        inner: Kedro runner of one iteration, ``SequentialRunner`` or ``ThreadRunner``.
        resume: A loop to go on with: its name, or ``latest``.
        attach: ``LOOP/ITERATION``: run the pipeline's nodes in that iteration, and no others;
            ``new`` begins a loop with them.
        resuming_command: What a person types to go on: before a loop's name, or, attached, whole.
        inner_arguments: Passed to the inner runner, such as ``max_workers``.
    """

    def __init__(
        self,
        is_async: bool = False,
        inner: str = "SequentialRunner",
        resume: str | None = None,
        attach: str | None = None,
        resuming_command: str = "kedro run --resume",
        **inner_arguments: Any,
    ) -> None:
        super().__init__(is_async=is_async)
        runner_class = load_obj(inner, "kedro.runner")
        if issubclass(runner_class, ParallelRunner):
            raise ValueError(
                "LoopRunner cannot run its iterations in a ParallelRunner: its workers have hooks "
                "of their own, so nothing that they save would be committed. "
                "Use inner=SequentialRunner or inner=ThreadRunner."
            )
        try:
            self._inner: AbstractRunner = runner_class(is_async=is_async, **inner_arguments)
        except TypeError as error:  # Python's, which names the argument
            raise InputError(
                f"--runner-params: {error}; there are attach, inner, and what {inner} takes, such "
                "as max_workers"
            ) from error
        # Kedro's advice after a failure, --from-nodes, would begin a version outside of the loop.
        self._inner._suggest_resume_scenario = lambda *_: None
        self._resume = resume
        self._attach = attach
        self._resuming_command = resuming_command

    def __repr__(self) -> str:
        # Kedro-Viz looks for the inner runner's name in here, hooks for the loop that it works for.
        where = {"attach": self._attach, "resume": self._resume}
        said = "".join(f"{name}={value}, " for name, value in where.items() if value)
        return f"LoopRunner({said}inner={self._inner!r})"

    def _get_executor(self, max_workers: int) -> Any:
        return self._inner._get_executor(max_workers)

    def _run(self, *arguments: Any, **named: Any) -> None:
        self._inner._run(*arguments, **named)

    def run(  # type: ignore[override]
        self,
        pipeline: Pipeline,
        catalog: DataCatalog,
        hook_manager: PluginManager | None = None,
        run_id: str | None = None,
        only_missing_outputs: bool = False,
    ) -> dict[str, Any]:
        """Repeat the pipeline until its signal says stop.

        Returns:
            The free outputs of the last iteration and its signal, as dataset objects; nothing where
            an attached part has not ended its loop.

        Raises:
            LoopBusyError: Another process of this machine runs a loop on this data.
            UnknownLoopError: The loop to go on with does not exist, has ended (attached:
                LoopEndedError), or is at another iteration.
            InputError: What an attached part reads is not committed.
            InterruptedRun: SIGINT or SIGTERM came.
        """
        settings = LoopParameters.model_validate(catalog.load("params:loop"))
        if not (self._attach or is_whole_loop(pipeline, settings)):
            if self._resume:
                raise UnknownLoopError("--resume goes with the whole loop, not with a part of it")
            return self._inner.run(pipeline, catalog, hook_manager, run_id, only_missing_outputs)
        hook_manager = hook_manager or _create_hook_manager()
        if not hasattr(hook_manager.hook, "before_iteration"):
            hook_manager.add_hookspecs(IterationSpecs)

        ledger: Ledger = catalog.load(settings.ledger)
        name = run_id or generate_timestamp()
        if self._attach:
            at = Attachment.of(self._attach, name)
            at.check(pipeline, settings, ledger)
            loop = Loop(at.loop, whole_loop(), catalog, settings, ledger)
            again = self._resuming_command.replace(f"attach={NEW}", f"attach={at}")
            work = partial(self._run_part, loop, at, pipeline, hook_manager)
            holder = f"a part of iteration {at}"
            return self._hold(loop, hook_manager, holder, again, work, begins=at.is_new)
        if self._resume:
            name = ledger.unfinished(None if self._resume == LATEST else self._resume)
        loop = Loop(name, pipeline, catalog, settings, ledger)
        again = f"{self._resuming_command} {name}"
        work = partial(self._repeat, loop, hook_manager)
        holder = f"loop {name}"
        return self._hold(loop, hook_manager, holder, again, work, begins=self._resume is None)

    def _hold(
        self,
        loop: Loop,
        hook_manager: PluginManager,
        holder: str,
        again: str,
        work: Callable[[SafePoint], dict[str, Any]],
        *,
        begins: bool,
    ) -> dict[str, Any]:
        """Do work while nobody else may, which a signal ends where nothing is half made."""

        def say_how_to_go_on() -> None:
            logger.error("loop %s stopped before its end; what it committed is kept", loop.name)
            logger.error("go on with: %s", again)

        threads = not isinstance(self._inner, SequentialRunner)
        safe_point = SafePoint(threads=threads, farewell=say_how_to_go_on)
        with loop.ledger.held(holder), safe_point.watching():
            if begins and (left := loop.ledger.open_loops()):
                logger.info("a new loop; unfinished ones go on by --resume: %s", ", ".join(left))
            enter_start(loop, resumed=not begins)
            try:
                return work(safe_point)
            except BaseException as error:
                say_how_to_go_on()
                hook_manager.hook.on_loop_stopped(error=error, catalog=loop.catalog)
                raise

    def _repeat(
        self, loop: Loop, hook_manager: PluginManager, safe_point: SafePoint
    ) -> dict[str, Any]:
        verdicts = loop.ledger.verdicts(loop.name)
        iteration = max(verdicts, default=0)
        while not (iteration and is_last(verdicts[iteration], iteration, loop.settings)):
            iteration += 1
            logger.info(
                "iteration %d of at most %d (%s)",
                iteration,
                loop.settings.max_iterations,
                loop.version(iteration),
            )
            here = self._make(loop, loop.pipeline, iteration, hook_manager, safe_point)
            verdicts[iteration] = _conclude(loop, iteration, here, hook_manager)
        return _close(loop, iteration, verdicts[iteration])

    def _run_part(
        self,
        loop: Loop,
        at: Attachment,
        part: Pipeline,
        hook_manager: PluginManager,
        safe_point: SafePoint,
    ) -> dict[str, Any]:
        """Run a part of an iteration; when all of the iteration is made, enter its verdict."""
        if at.is_new:
            # For whoever starts the other parts; not logged, since a log line may be wrapped.
            Console().print(f"attach={at}", soft_wrap=True, highlight=False, markup=False)
        here = self._make(loop, part, at.iteration, hook_manager, safe_point)
        lacking = loop.pipeline.all_outputs() - loop.ledger.committed(loop.name, at.iteration)
        if lacking:
            logger.info("what is left of iteration %s: %s", at, parts_that_make(lacking))
            return {}
        verdict = _conclude(loop, at.iteration, here, hook_manager)
        if is_last(verdict, at.iteration, loop.settings):
            return _close(loop, at.iteration, verdict)
        logger.info("the loop goes on with attach=%s/%d", loop.name, at.iteration + 1)
        return {}

    def _make(
        self,
        loop: Loop,
        part: Pipeline,
        iteration: int,
        hook_manager: PluginManager,
        safe_point: SafePoint,
    ) -> DataCatalog:
        """Run what an iteration has not committed yet of a part; its catalog."""
        here = iteration_catalog(loop, iteration)
        opened = f"{place(loop.name, iteration)}/opened"
        if loop.ledger.read(opened) is None:
            loop.ledger.append(opened, {"version": loop.version(iteration)})
        drop_uncommitted(loop, part, iteration, here)
        hook_manager.hook.before_iteration(iteration=iteration, catalog=here)
        commits = CommitHook(loop, iteration, here, safe_point)
        hook_manager.register(commits)
        try:
            self._inner.run(
                part,
                here,
                hook_manager,
                run_id=loop.version(iteration),
                only_missing_outputs=True,
            )
        finally:
            hook_manager.unregister(commits)
        return here


def _conclude(
    loop: Loop, iteration: int, catalog: DataCatalog, hook_manager: PluginManager
) -> dict[str, Any]:
    """Enter an iteration's verdict."""
    verdict: dict[str, Any] = catalog.load(loop.settings.signal)
    loop.ledger.append(f"{place(loop.name, iteration)}/verdict", verdict)
    hook_manager.hook.after_iteration(iteration=iteration, verdict=verdict, catalog=catalog)
    return verdict


def _close(loop: Loop, iteration: int, verdict: dict[str, Any]) -> dict[str, Any]:
    """End a loop; its last outputs."""
    reason = verdict["reason"] or "max_iterations"
    loop.ledger.append(f"{loop.name}/closed", {"reason": reason, "iteration": iteration})
    here = iteration_catalog(loop, iteration)
    return {name: here[name] for name in loop.pipeline.outputs() | {loop.settings.signal}}
