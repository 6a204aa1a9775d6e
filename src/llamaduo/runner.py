"""``LoopRunner`` repeats a pipeline until one of its outputs says stop."""

import hashlib
import importlib.metadata
import logging
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

from kedro.framework.hooks import _create_hook_manager, hook_impl
from kedro.framework.hooks.markers import hook_spec
from kedro.io import AbstractVersionedDataset, DataCatalog
from kedro.io.core import generate_timestamp
from kedro.pipeline import Pipeline
from kedro.runner import AbstractRunner, ParallelRunner, SequentialRunner
from kedro.utils import load_obj
from pluggy import PluginManager
from pydantic import BaseModel

from llamaduo.files import bring_to_disk
from llamaduo.interruption import SafePoint
from llamaduo.iterations import Loop, drop_uncommitted, is_whole_loop, iteration_catalog
from llamaduo.ledger import Ledger, UnknownLoopError, place
from llamaduo.parameters import LoopParameters

logger = logging.getLogger(__name__)

PACKAGES = ("kedro", "torch", "transformers", "trl", "peft", "openai", "llamaduo")


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
        if isinstance(dataset, AbstractVersionedDataset):
            flush(Path(dataset._get_versioned_path(self._version)).parent)
        self._ledger.append(f"{self._place}/committed/{dataset_name}", {"version": self._version})
        self._safe_point.leave_save(dataset_name)


def flush(folder: Path) -> None:
    """Bring a folder's files to the disk; on object storage they are there when written."""
    for path in [*folder.rglob("*"), folder, *folder.parents[:2]]:
        if path.exists():
            bring_to_disk(path)


class LoopRunner(AbstractRunner):
    """Runs iterations 1, 2, … with an inner runner, each on a fresh catalog with its own version.

    A pipeline that is not the whole loop gets one plain pass of the inner runner.

    Args:
        is_async: Load and save datasets in threads.
        inner: Kedro runner of one iteration, ``SequentialRunner`` or ``ThreadRunner``.
        resume: A loop to go on with: its name, or ``latest``.
        resuming_command: What a person types to go on with a loop, before its name.
        inner_arguments: Passed to the inner runner, such as ``max_workers``.
    """

    def __init__(
        self,
        is_async: bool = False,
        inner: str = "SequentialRunner",
        resume: str | None = None,
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
        self._inner: AbstractRunner = runner_class(is_async=is_async, **inner_arguments)
        # Kedro's advice after a failure, --from-nodes, would begin a version outside of the loop.
        self._inner._suggest_resume_scenario = lambda *_: None
        self._resume = resume
        self._resuming_command = resuming_command

    def __repr__(self) -> str:
        # Kedro-Viz looks for the inner runner's name in here.
        return f"LoopRunner(inner={self._inner!r})"

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
            The free outputs of the last iteration and its signal, as dataset objects.

        Raises:
            LoopBusyError: Another process runs a loop on this data.
            UnknownLoopError: The loop to go on with does not exist or has ended.
            InterruptedRun: SIGINT or SIGTERM came.
        """
        settings = LoopParameters.model_validate(catalog.load("params:loop"))
        if not is_whole_loop(pipeline, settings):
            if self._resume:
                raise UnknownLoopError("--resume goes with the whole loop, not with a part of it")
            return self._inner.run(pipeline, catalog, hook_manager, run_id, only_missing_outputs)
        hook_manager = hook_manager or _create_hook_manager()
        if not hasattr(hook_manager.hook, "before_iteration"):
            hook_manager.add_hookspecs(IterationSpecs)

        ledger: Ledger = catalog.load(settings.ledger)
        name = run_id or generate_timestamp()
        if self._resume:
            name = ledger.unfinished(None if self._resume == "latest" else self._resume)
        elif left := ledger.open_loops():
            logger.info("a new loop; unfinished ones go on by --resume: %s", ", ".join(left))
        loop = Loop(name, pipeline, catalog, settings, ledger)

        def say_how_to_go_on() -> None:
            logger.error("loop %s stopped before its end; what it committed is kept", name)
            logger.error("go on with: %s %s", self._resuming_command, name)

        threads = not isinstance(self._inner, SequentialRunner)
        safe_point = SafePoint(threads=threads, farewell=say_how_to_go_on)
        with ledger.held(f"loop {name}"), safe_point.watching():
            _enter_start(loop, resumed=self._resume is not None)
            try:
                return self._repeat(loop, hook_manager, safe_point)
            except BaseException as error:
                say_how_to_go_on()
                hook_manager.hook.on_loop_stopped(error=error, catalog=catalog)
                raise

    def _repeat(
        self, loop: Loop, hook_manager: PluginManager, safe_point: SafePoint
    ) -> dict[str, Any]:
        verdicts = loop.ledger.verdicts(loop.name)
        iteration = max(verdicts, default=0)
        while not (iteration and _is_last(verdicts[iteration], iteration, loop.settings)):
            iteration += 1
            logger.info(
                "iteration %d of at most %d (%s)",
                iteration,
                loop.settings.max_iterations,
                loop.version(iteration),
            )
            verdicts[iteration] = self._iterate(loop, iteration, hook_manager, safe_point)
        loop.ledger.append(
            f"{loop.name}/closed",
            {
                "reason": verdicts[iteration]["reason"] or "max_iterations",
                "iteration": iteration,
            },
        )
        here = iteration_catalog(loop, iteration)
        return {name: here[name] for name in loop.pipeline.outputs() | {loop.settings.signal}}

    def _iterate(
        self, loop: Loop, iteration: int, hook_manager: PluginManager, safe_point: SafePoint
    ) -> dict[str, Any]:
        """Run what an iteration has not committed yet, and enter its verdict."""
        here = iteration_catalog(loop, iteration)
        own_place = place(loop.name, iteration)
        if loop.ledger.read(f"{own_place}/opened") is None:
            loop.ledger.append(f"{own_place}/opened", {"version": loop.version(iteration)})
        drop_uncommitted(loop, iteration, here)
        hook_manager.hook.before_iteration(iteration=iteration, catalog=here)
        commits = CommitHook(loop, iteration, here, safe_point)
        hook_manager.register(commits)
        try:
            self._inner.run(
                loop.pipeline,
                here,
                hook_manager,
                run_id=loop.version(iteration),
                only_missing_outputs=True,
            )
        finally:
            hook_manager.unregister(commits)
        verdict: dict[str, Any] = here.load(loop.settings.signal)
        loop.ledger.append(f"{own_place}/verdict", verdict)
        hook_manager.hook.after_iteration(iteration=iteration, verdict=verdict, catalog=here)
        return verdict


def _is_last(verdict: dict[str, Any], iteration: int, settings: LoopParameters) -> bool:
    return bool(verdict["stop"]) or iteration >= settings.max_iterations


def _enter_start(loop: Loop, *, resumed: bool) -> None:
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
    path = Path(str(getattr(dataset, "_filepath", None)))
    if path.is_file():
        return hashlib.sha256(path.read_bytes()).hexdigest()
    files = sorted(file for file in path.glob("[!.]*") if file.is_file())
    if not files:
        return str(dataset._describe())
    contents = [(file.name, hashlib.sha256(file.read_bytes()).hexdigest()) for file in files]
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
