"""Tracking in MLflow: a parent run for each loop, a child run for each iteration.

On where ``MLFLOW_TRACKING_URI`` is set. Numbers and settings are sent, never a text or a report:
these hold the user's pairs. What is sent follows from the ledger and the catalog alone, so that
whatever a server has missed is sent the next time.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from kedro.framework.hooks import hook_impl
from kedro.io import DataCatalog, Version
from kedro.pipeline import Pipeline

from llamaduo.attachment import is_attached
from llamaduo.errors import InputError
from llamaduo.iterations import is_whole_loop
from llamaduo.ledger import Ledger, place, version
from llamaduo.parameters import IterationParameters, LoopParameters
from llamaduo.service_llm.privacy import protect_message

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

URI = "MLFLOW_TRACKING_URI"
EXPERIMENT = "MLFLOW_EXPERIMENT_NAME"
DEFAULTS = {
    # Its own telemetry; it does not take Kedro's DO_NOT_TRACK=1 for a no.
    "MLFLOW_DISABLE_TELEMETRY": "true",
    # As it comes, MLflow tries for four minutes, and each try may take two.
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",
}
"""Of MLflow, where the environment says nothing else."""
LOOP, ITERATION = "llamaduo.loop", "llamaduo.iteration"
"""Tags by which runs are found again."""
PARENT = "mlflow.parentRunId"
SCORE = ("mean", "standard_error", "lower_bound", "coverage_percentage")
TRAINING = ("steps", "seconds", "tokens", "energy_wh", "validation_loss")

logger = logging.getLogger(__name__)


class Tracking:
    """Sends what the ledger has and MLflow has not, after each iteration and at the end."""

    def __init__(self) -> None:
        self._experiment: Experiment | None = None
        self._loop = ""

    @hook_impl
    def before_pipeline_run(
        self, run_params: dict[str, Any], pipeline: Pipeline, catalog: DataCatalog
    ) -> None:
        """Find the server, before anything is generated.

        Raises:
            InputError: MLflow is asked for, and is not installed or cannot be reached.
        """
        self._experiment, self._loop = None, ""
        settings = LoopParameters.model_validate(catalog.load("params:loop"))
        whole = is_whole_loop(pipeline, settings) and "LoopRunner" in run_params["runner"]
        if whole and not is_attached(run_params) and os.environ.get(URI):
            self._experiment = Experiment.open(catalog.load(settings.ledger))

    @hook_impl
    def before_iteration(self, catalog: DataCatalog) -> None:
        """The loop is running, perhaps again."""
        account = IterationParameters.model_validate(catalog.load("params:iteration")).account
        self._loop = account.name
        self._send(catalog, "RUNNING")

    @hook_impl
    def after_iteration(self, catalog: DataCatalog) -> None:
        """Send its numbers."""
        self._send(catalog, "RUNNING")

    @hook_impl
    def on_loop_stopped(self, catalog: DataCatalog, error: BaseException) -> None:
        """It may go on later."""
        self._send(catalog, "KILLED" if isinstance(error, KeyboardInterrupt) else "FAILED")

    @hook_impl
    def after_pipeline_run(self, catalog: DataCatalog) -> None:
        """The loop has ended, with its target reached or not."""
        self._send(catalog, "FINISHED")

    def _send(self, catalog: DataCatalog, status: str) -> None:
        if self._experiment is None:
            return
        # A resumed loop may have had nothing left to iterate.
        last = self._experiment.ledger.last_complete()
        loop = self._loop or (last[0] if last else "")
        if not loop:
            return
        with _only_warned_of():
            self._experiment.bring_up_to_date(loop, catalog, status)


class Experiment:
    """The runs of an experiment in MLflow."""

    def __init__(self, client: MlflowClient, experiment_id: str, ledger: Ledger) -> None:
        self._client = client
        self._id = experiment_id
        self.ledger = ledger

    @classmethod
    def open(cls, ledger: Ledger) -> Experiment:
        """Find or make the experiment.

        Raises:
            InputError: It cannot be had.
        """
        if find_spec("mlflow") is None:
            raise InputError(
                f"{URI} is set, and MLflow is not installed: pip install -e '.[mlflow]' in the "
                "project's folder, or unset it"
            )
        for name, value in DEFAULTS.items():
            os.environ.setdefault(name, value)
        from mlflow import MlflowClient

        name = os.environ.get(EXPERIMENT) or "llamaduo"
        try:
            client = MlflowClient()
            known = client.get_experiment_by_name(name)
            return cls(
                client, known.experiment_id if known else client.create_experiment(name), ledger
            )
        except _unreachable() as error:
            raise InputError(
                f"the MLflow server that {URI} names cannot be used; start it, mend the address, "
                f"or unset it ({_first_line(error)})"
            ) from error

    def bring_up_to_date(self, loop: str, catalog: DataCatalog, status: str) -> None:
        """Send what is missing of a loop, and its status.

        Args:
            status: RUNNING, FINISHED, FAILED or KILLED.
        """
        parent = self._parent(loop)
        children = {run.data.tags[ITERATION]: run for run in self._find(PARENT, parent.info.run_id)}
        verdicts = self.ledger.verdicts(loop)
        entries = _history(loop, max(verdicts), catalog) if verdicts else {}
        for iteration, verdict in verdicts.items():
            child = children.get(str(iteration))
            if child is None or child.info.status != "FINISHED":
                numbers = numbers_of(entries[iteration])
                self._add_iteration(parent, child, loop, iteration, verdict, numbers)
        if status == "FINISHED":
            verdict = verdicts[max(verdicts)]
            for name in ("reason", "target_reached", "best_iteration", "advisory"):
                self._client.set_tag(parent.info.run_id, f"llamaduo.{name}", verdict[name])
        if status == "RUNNING":
            self._client.update_run(parent.info.run_id, status=status)
        else:
            self._client.set_terminated(parent.info.run_id, status)

    def _find(self, tag: str, value: str) -> list[Run]:
        return [*self._client.search_runs([self._id], f"tags.`{tag}` = '{value}'")]

    def _parent(self, loop: str) -> Run:
        """The loop's run, made with its settings where there is none."""
        from mlflow.entities import Param

        known = [run for run in self._find(LOOP, loop) if ITERATION not in run.data.tags]
        opened = self.ledger.read(f"{loop}/opened") or {}
        tags = {LOOP: loop} | {
            f"version.{name}": found for name, found in opened["versions"].items() if found
        }
        parent = (
            known[0]
            if known
            else self._client.create_run(self._id, _milliseconds(opened["at"]), tags, loop)
        )
        settings = _flat({k: v for k, v in opened["parameters"].items() if k != "iteration"})
        missing = [Param(k, str(v)) for k, v in settings.items() if k not in parent.data.params]
        self._client.log_batch(parent.info.run_id, params=missing)
        return parent

    def _add_iteration(
        self,
        parent: Run,
        child: Run | None,
        loop: str,
        iteration: int,
        verdict: dict[str, Any],
        numbers: dict[str, float],
    ) -> None:
        """A child with the numbers; the parent gets them too, as curves over the iterations."""
        from mlflow.entities import Metric

        began = self.ledger.read(f"{place(loop, iteration)}/opened") or verdict
        ended = _milliseconds(verdict["at"])
        if child is None:
            tags = {LOOP: loop, ITERATION: str(iteration), PARENT: parent.info.run_id}
            name = version(loop, iteration)
            child = self._client.create_run(self._id, _milliseconds(began["at"]), tags, name)
        metrics = [Metric(name, value, ended, iteration) for name, value in numbers.items()]
        self._client.log_batch(child.info.run_id, metrics=metrics)
        self._client.log_batch(parent.info.run_id, metrics=metrics)
        self._client.set_terminated(child.info.run_id, "FINISHED", ended)


def _history(loop: str, last: int, catalog: DataCatalog) -> dict[int, dict[str, Any]]:
    """Iteration: its entry; the last iteration's history has those of pruned ones too."""
    dataset: Any = catalog.get("iteration_history", version=Version(version(loop, last), None))
    return {entry["assessment"]["iteration"]: entry for entry in dataset.load()}


def numbers_of(entry: dict[str, Any]) -> dict[str, float]:
    """What is sent of an iteration; scores are 0-100, costs are those of the loop so far."""
    assessment, synthesis = entry["assessment"], entry["synthesis"]
    scores = {name: assessment[name] for name in ("similarity", "precision")}
    numbers = {
        **{name: {key: score[key] for key in SCORE} for name, score in scores.items()},
        "full_marks_percentage": assessment["full_marks_percentage"],
        "judged_share": assessment["judged_share"],
        "training_pairs": entry["training_pairs"],
        "pairs": {
            "asked": synthesis["asked"],
            "kept": synthesis["kept"],
            "dropped": sum(synthesis["dropped"].values()),
            **{f"dropped_{reason}": count for reason, count in synthesis["dropped"].items()},
        },
        "training": {key: entry["training"][key] for key in TRAINING},
        "loop": {key: entry["costs"][key] for key in ("usd", "tokens", "requests")},
    }
    return {name: value for name, value in _flat(numbers).items() if value is not None}


def _flat(tree: dict[str, Any], above: str = "") -> dict[str, Any]:
    """The leaves of nested dictionaries, by their dotted names."""
    leaves: dict[str, Any] = {}
    for key, value in tree.items():
        leaves |= (
            _flat(value, f"{above}{key}.") if isinstance(value, dict) else {above + key: value}
        )
    return leaves


def _milliseconds(at: str) -> int:
    return int(1000 * datetime.fromisoformat(at).timestamp())


def _unreachable() -> tuple[type[Exception], ...]:
    """What MLflow raises where a server or a database does not answer as it should."""
    from mlflow.exceptions import MlflowException
    from sqlalchemy.exc import SQLAlchemyError

    return MlflowException, SQLAlchemyError, OSError


@contextmanager
def _only_warned_of() -> Iterator[None]:
    """A loop of hours does not end because its numbers could not be sent."""
    try:
        yield
    except _unreachable() as error:
        logger.warning(
            "MLflow has not got all; the loop goes on, and what is missing is sent after the next "
            "iteration, at the end or when the loop goes on (%s)",
            _first_line(error),
        )


def _first_line(error: Exception) -> str:
    return protect_message(str(error).splitlines()[0])
