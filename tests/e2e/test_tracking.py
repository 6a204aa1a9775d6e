"""A loop that MLflow is told of, read from MLflow's own database."""

import json
import shutil
import signal
import sqlite3
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from llamaduo.errors import InputError
from llamaduo.ledger import Ledger
from llamaduo.runner import LoopRunner
from llamaduo.tracking import Experiment, Tracking
from tests.e2e.test_resume import read_until
from tests.test_runner import make_catalog, pipeline


def reopen(project, *committed):
    """Let the last iteration lack its verdict, and some entries."""
    (loop,) = project.loops()
    folder = project.data / "ledger" / loop
    (folder / "closed.json").unlink()
    (folder / "i002/verdict.json").unlink()
    for name in committed:
        (folder / f"i002/committed/{name}.json").unlink()
    return loop


class Store:
    """MLflow's database."""

    def __init__(self, path):
        self.uri = f"sqlite:///{path}"
        self._path = path

    def rows(self, query, *values):
        connection = sqlite3.connect(self._path)
        try:
            return connection.execute(query, values).fetchall()
        finally:
            connection.close()

    def runs(self):
        return dict(self.rows("select name, status from runs"))

    def of(self, table, name):
        """Keys and values of a run."""
        query = f"select key, value from {table} join runs using (run_uuid) where name = ?"
        return dict(self.rows(query, name))


@pytest.fixture
def store(tmp_path, monkeypatch):
    found = Store(tmp_path / "mlflow.sqlite")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", found.uri)
    return found


def test_a_loop_is_a_run_with_a_run_for_each_iteration_whatever_was_interrupted(
    after_a_loop, store
):
    project = after_a_loop
    loop = reopen(project, "adapter")

    process = project.start("run", "--env=test", "--resume", start_new_session=True)
    read_until(process, "fine_tuning.fine_tune")
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=60)

    assert process.returncode == 130
    assert store.runs() == {loop: "KILLED", f"{loop}-i001": "FINISHED"}

    project.kedro("run", "--env=test", "--resume", code=2)

    iterations = [f"{loop}-i001", f"{loop}-i002"]
    assert store.rows("select count(*) from runs") == [(3,)]
    assert store.runs() == dict.fromkeys([loop, *iterations], "FINISHED")
    parent = store.rows("select run_uuid from runs where name = ?", loop)[0][0]
    assert {store.of("tags", each)["mlflow.parentRunId"] for each in iterations} == {parent}
    assert store.of("tags", loop)["llamaduo.reason"] == "max_iterations"
    opened = json.loads((project.data / f"ledger/{loop}/opened.json").read_text("utf-8"))
    params = store.of("params", loop)
    rate = opened["parameters"]["fine_tuning"]["learning_rate"]
    assert params["fine_tuning.learning_rate"] == str(rate)
    assert params["data_synthesis.strategies.self_instruct"] == "1.0"
    for each in iterations:
        history = project.json("08_reporting/iteration_history.json", each)[-1]
        costs = project.json("08_reporting/costs.json", each)
        metrics = store.of("metrics", each)
        for score in ("similarity", "precision"):
            told = history["assessment"][score]
            assert metrics[f"{score}.mean"] == told["mean"]
            assert metrics[f"{score}.lower_bound"] == told["lower_bound"]
            assert metrics[f"{score}.coverage_percentage"] == told["coverage_percentage"]
        assert metrics["training_pairs"] == history["training_pairs"]
        assert metrics["pairs.kept"] == history["synthesis"]["kept"]
        assert metrics["training.validation_loss"] == history["training"]["validation_loss"]
        assert metrics["loop.tokens"] == costs["tokens"]
    steps = store.rows(
        "select step from metrics where run_uuid = ? and key = ?", parent, "pairs.kept"
    )
    assert sorted(steps) == [(1,), (2,)]


def test_a_resume_tells_what_was_never_told_pruned_or_not_and_no_text_of_a_pair(
    after_a_loop, store
):
    project = after_a_loop
    (loop,) = project.loops()
    Ledger(project.data / "ledger").append(f"{loop}/i001/pruned", {"bytes": 1})
    for version in [*project.data.glob(f"08_reporting/*/{loop}-i001")]:
        shutil.rmtree(version)
    (project.data / f"ledger/{loop}/closed.json").unlink()

    project.kedro("run", "--env=test", "--resume", code=2)

    assert store.runs() == dict.fromkeys([loop, f"{loop}-i001", f"{loop}-i002"], "FINISHED")
    told = {
        str(value)
        for table in ("params", "tags", "metrics")
        for (value,) in store.rows(f"select value from {table}")
    }
    assert len(told) > 50
    for path in (project.folder / "data/01_raw").glob("coverage_*.jsonl"):
        for line in path.read_text(encoding="utf-8").splitlines():
            assert not told & set(json.loads(line).values())
    assert not any("Triage this support ticket" in value for value in told)


def test_a_server_that_cannot_be_reached_is_said_before_anything_is_generated(
    after_a_loop, monkeypatch
):
    project = after_a_loop
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://me:geheim12@127.0.0.1:1")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")

    output = project.kedro("run", "--env=test", code=1)

    assert "Error: the MLflow server that MLFLOW_TRACKING_URI names cannot be used" in output
    assert "geheim12" not in output
    assert len(project.loops()) == 1


class OnlyItsExperiment(BaseHTTPRequestHandler):
    """An MLflow server whose disk is full."""

    def do_GET(self):
        known = {"experiment_id": "1", "name": "llamaduo", "lifecycle_stage": "active"}
        self.answer(200, {"experiment": known})

    def do_POST(self):
        self.answer(400, {"error_code": "INTERNAL_ERROR", "message": "disk full"})

    def answer(self, status, body):
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.end_headers()
        self.wfile.write(json.dumps(body).encode())

    def log_message(self, *_):
        pass


def test_a_server_that_fails_later_ends_no_loop(after_a_loop, monkeypatch):
    project = after_a_loop
    reopen(project)
    with ThreadingHTTPServer(("127.0.0.1", 0), OnlyItsExperiment) as server:
        threading.Thread(target=server.serve_forever).start()
        monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{server.server_port}")
        output = project.kedro("run", "--env=test", "--resume", code=2)
        server.shutdown()

    assert "MLflow has not got all; the loop goes on" in output
    assert "disk full" in output
    assert "stopped without reaching the target: max_iterations" in output


def test_a_missing_extra_is_said(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "mlflow", None)

    with pytest.raises(InputError, match=r"pip install -e '\.\[mlflow\]'"):
        Experiment.open(Ledger(tmp_path))


def test_an_attached_iteration_is_not_tracked_though_it_is_a_whole_one(tmp_path, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "sqlite:///unused.sqlite")
    monkeypatch.setitem(sys.modules, "mlflow", None)

    def begin(runner):
        catalog = make_catalog(tmp_path)
        Tracking().before_pipeline_run({"runner": str(runner)}, pipeline(), catalog)

    with pytest.raises(InputError, match="MLflow is not installed"):
        begin(LoopRunner())
    begin(LoopRunner(attach="loop/2"))
