"""The runner on small loops without a project; what a whole project does stands in e2e."""

import json
import os
import resource
import shutil
import signal
from pathlib import Path

import pytest
from kedro.framework.hooks import hook_impl
from kedro.framework.hooks.manager import _create_hook_manager
from kedro.io import DataCatalog, DatasetError, MemoryDataset
from kedro.pipeline import Node, Pipeline
from kedro_datasets.json import JSONDataset

from llamaduo.errors import InputError
from llamaduo.interruption import InterruptedRun
from llamaduo.ledger import Ledger, LoopBusyError, UnknownLoopError
from llamaduo.runner import LoopRunner

LOOP = {"max_iterations": 5, "carry": {"previous_total": "total"}}


def add(step, previous_total):
    return {"value": (previous_total or {"value": 0})["value"] + step}


def double(total):
    return {"value": 2 * total["value"]}


def decide(doubled):
    return {"stop": doubled["value"] >= 6, "reason": "high enough", "target_reached": True}


def pipeline(add=add, double=double, decide=decide):
    return Pipeline(
        [
            Node(add, ["step", "previous_total"], "total", name="add"),
            Node(double, "total", "doubled", name="double"),
            Node(decide, "doubled", "verdict", name="decide"),
        ]
    )


def make_catalog(folder, **loop):
    def entry(name):
        return {
            "type": "json.JSONDataset",
            "filepath": str(folder / f"{name}.json"),
            "versioned": True,
        }

    total = {"type": "json.JSONDataset", "filepath": str(folder / "total.json")}
    catalog = DataCatalog.from_config(
        {
            **{name: entry(name) for name in ("total", "doubled", "verdict")},
            "previous_total": {
                "type": "llamaduo.datasets.PreviousDataset",
                "versioned": True,
                "dataset": total,
            },
            "ledger": {"type": "llamaduo.ledger.LedgerDataset", "filepath": str(folder / "ledger")},
        },
        save_version="session",
    )
    catalog["step"] = MemoryDataset(1)
    catalog["params:loop"] = MemoryDataset({**LOOP, **loop})
    catalog["parameters"] = MemoryDataset({"loop": {**LOOP, **loop}})
    return catalog


def versions(folder, name):
    return sorted(path.name for path in (folder / f"{name}.json").iterdir())


def value(folder, name, version):
    return json.loads((folder / f"{name}.json" / version / f"{name}.json").read_text())["value"]


def test_it_repeats_until_the_signal_says_stop_with_one_version_per_iteration(tmp_path):
    outputs = LoopRunner().run(pipeline(), make_catalog(tmp_path), run_id="loop")

    expected = ["loop-i001", "loop-i002", "loop-i003"]
    for name in ("total", "doubled", "verdict"):
        assert versions(tmp_path, name) == expected
    assert [value(tmp_path, "total", version) for version in expected] == [1, 2, 3]
    assert outputs["verdict"].load()["reason"] == "high enough"


def test_a_running_loop_is_not_called_unfinished(tmp_path, caplog):
    caplog.set_level("INFO")
    ledger = Ledger(tmp_path / "ledger")
    ledger.append("running/opened", {})

    with ledger.held("loop running"), pytest.raises(LoopBusyError, match="loop running"):
        LoopRunner().run(pipeline(), make_catalog(tmp_path), run_id="loop")
    assert "unfinished" not in caplog.text

    LoopRunner().run(pipeline(), make_catalog(tmp_path), run_id="loop")
    assert "a new loop; unfinished ones go on by --resume: running" in caplog.text


def test_the_ledger_tells_what_the_folders_show(tmp_path):
    LoopRunner().run(pipeline(), make_catalog(tmp_path), run_id="loop")

    ledger = Ledger(tmp_path / "ledger")
    assert [ledger.committed("loop", n) for n in (1, 2, 3)] == [{"total", "doubled", "verdict"}] * 3
    assert sorted(ledger.verdicts("loop")) == [1, 2, 3]
    closed = ledger.read("loop/closed")
    assert (closed["reason"], closed["iteration"]) == ("high enough", 3)
    assert ledger.read("loop/opened")["parameters"]["loop"]["max_iterations"] == 5


def test_it_ends_at_the_last_iteration_that_is_allowed(tmp_path):
    LoopRunner().run(pipeline(), make_catalog(tmp_path, max_iterations=2), run_id="loop")

    assert versions(tmp_path, "total") == ["loop-i001", "loop-i002"]


def test_a_new_loop_does_not_go_on_from_the_last_one(tmp_path):
    LoopRunner().run(pipeline(), make_catalog(tmp_path), run_id="loop-a")
    LoopRunner().run(pipeline(), make_catalog(tmp_path), run_id="loop-b")

    assert value(tmp_path, "total", "loop-b-i001") == 1


def test_resume_skips_what_is_committed_and_ends_like_an_uninterrupted_loop(tmp_path):
    calls = []

    def counted_add(step, previous_total):
        calls.append("add")
        return add(step, previous_total)

    def double_or_fail(total):
        if total["value"] == 2 and len(calls) == 2:
            calls.append("crash")
            raise RuntimeError("power cut")
        return double(total)

    flow = pipeline(add=counted_add, double=double_or_fail)
    with pytest.raises(RuntimeError, match="power cut"):
        LoopRunner().run(flow, make_catalog(tmp_path), run_id="loop")
    committed = tmp_path / "total.json/loop-i002/total.json"
    before = committed.stat().st_mtime_ns

    LoopRunner(resume="latest").run(flow, make_catalog(tmp_path), run_id="other")

    assert calls == ["add", "add", "crash", "add"]  # iteration 2 did not add again
    assert committed.stat().st_mtime_ns == before
    assert versions(tmp_path, "verdict") == ["loop-i001", "loop-i002", "loop-i003"]


def test_what_a_killed_save_left_is_made_anew(tmp_path):
    def fail(total):
        raise RuntimeError("killed")

    with pytest.raises(RuntimeError, match="killed"):
        LoopRunner().run(pipeline(double=fail), make_catalog(tmp_path), run_id="loop")
    half = tmp_path / "doubled.json/loop-i001/doubled.json"
    half.parent.mkdir(parents=True)
    half.write_text('{"val')

    LoopRunner(resume="loop").run(pipeline(), make_catalog(tmp_path), run_id="other")

    assert value(tmp_path, "doubled", "loop-i001") == 2


def test_a_carried_version_that_is_gone_stops_the_loop(tmp_path):
    LoopRunner().run(pipeline(), make_catalog(tmp_path, max_iterations=1), run_id="loop")
    (tmp_path / "ledger/loop/closed.json").unlink()
    shutil.rmtree(tmp_path / "total.json/loop-i001")

    with pytest.raises(DatasetError, match=r"loop-i001 of .*total\.json is gone"):
        LoopRunner(resume="loop").run(pipeline(), make_catalog(tmp_path), run_id="other")


def test_a_verdict_that_was_reached_but_not_closed_runs_nothing_again(tmp_path):
    LoopRunner().run(pipeline(), make_catalog(tmp_path), run_id="loop")
    (tmp_path / "ledger/loop/closed.json").unlink()
    before = (tmp_path / "total.json/loop-i003/total.json").stat().st_mtime_ns

    LoopRunner(resume="loop").run(pipeline(), make_catalog(tmp_path), run_id="other")

    assert (tmp_path / "total.json/loop-i003/total.json").stat().st_mtime_ns == before
    assert Ledger(tmp_path / "ledger").read("loop/closed")["iteration"] == 3


def test_resume_without_an_unfinished_loop_is_refused(tmp_path):
    with pytest.raises(UnknownLoopError, match="start a new one"):
        LoopRunner(resume="latest").run(pipeline(), make_catalog(tmp_path), run_id="loop")


def test_resume_warns_when_the_parameters_have_changed(tmp_path, caplog):
    def fail(total):
        raise RuntimeError("killed")

    with pytest.raises(RuntimeError, match="killed"):
        LoopRunner().run(pipeline(double=fail), make_catalog(tmp_path), run_id="loop")

    LoopRunner(resume="loop").run(pipeline(), make_catalog(tmp_path, max_iterations=9), run_id="o")

    assert "goes on with other parameters than it began with: loop" in caplog.text
    assert "other inputs" not in caplog.text


def test_resume_warns_when_an_input_file_has_changed(tmp_path, caplog):
    def fail(total):
        raise RuntimeError("killed")

    def catalog_with_step(value):
        (tmp_path / "step.json").write_text(str(value))
        catalog = make_catalog(tmp_path)
        catalog["step"] = JSONDataset(filepath=str(tmp_path / "step.json"))
        return catalog

    with pytest.raises(RuntimeError, match="killed"):
        LoopRunner().run(pipeline(double=fail), catalog_with_step(1), run_id="loop")

    LoopRunner(resume="loop").run(pipeline(), catalog_with_step(2), run_id="o")

    assert "goes on with other inputs than it began with: step" in caplog.text


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_the_loop_and_resume_goes_on(tmp_path, signum, caplog):
    def interrupted(total):
        os.kill(os.getpid(), signum)
        return double(total)

    with pytest.raises(InterruptedRun):
        LoopRunner().run(pipeline(double=interrupted), make_catalog(tmp_path), run_id="loop")

    assert "kedro run --resume loop" in caplog.text
    assert signal.getsignal(signum) in (signal.default_int_handler, signal.SIG_DFL)
    LoopRunner(resume="latest").run(pipeline(), make_catalog(tmp_path), run_id="other")
    assert versions(tmp_path, "verdict") == ["loop-i001", "loop-i002", "loop-i003"]


class SignalInSave:
    """Sends the signal while a dataset is being saved."""

    @hook_impl(trylast=True)
    def before_dataset_saved(self, dataset_name):
        if dataset_name == "doubled":
            os.kill(os.getpid(), signal.SIGINT)


def test_a_signal_in_a_save_waits_for_its_commit(tmp_path):
    hooks = _create_hook_manager()
    hooks.register(SignalInSave())

    with pytest.raises(InterruptedRun):
        LoopRunner().run(pipeline(), make_catalog(tmp_path), hooks, run_id="loop")

    assert Ledger(tmp_path / "ledger").committed("loop", 1) == {"total", "doubled"}


def test_a_part_of_the_loop_runs_once_and_enters_nothing_in_the_ledger(tmp_path):
    catalog = make_catalog(tmp_path)

    LoopRunner().run(pipeline().filter(from_nodes=["add"], to_nodes=["double"]), catalog)

    assert versions(tmp_path, "doubled") == ["session"]
    assert not (tmp_path / "ledger").exists()


def test_threads_inside_make_the_same_loop(tmp_path):
    LoopRunner(inner="ThreadRunner").run(pipeline(), make_catalog(tmp_path), run_id="loop")

    assert versions(tmp_path, "verdict") == ["loop-i001", "loop-i002", "loop-i003"]


def test_processes_inside_are_refused_with_the_reason():
    with pytest.raises(ValueError, match="nothing that they save would be committed"):
        LoopRunner(inner="ParallelRunner")


def test_a_full_disk_commits_nothing_and_resume_makes_it_whole(tmp_path):
    def too_large(total):
        return {"value": 2 * total["value"], "ballast": "x" * 100_000}

    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, limits[1]))
    try:
        with pytest.raises(DatasetError, match="File too large"):
            LoopRunner().run(pipeline(double=too_large), make_catalog(tmp_path), run_id="loop")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, before)
    assert Ledger(tmp_path / "ledger").committed("loop", 1) == {"total"}

    LoopRunner(resume="loop").run(pipeline(), make_catalog(tmp_path), run_id="other")

    assert value(tmp_path, "doubled", "loop-i001") == 2


def test_iteration_hooks_get_the_iteration_and_its_verdict(tmp_path):
    seen = []

    class Watch:
        @hook_impl
        def before_iteration(self, iteration):
            seen.append(iteration)

        @hook_impl
        def after_iteration(self, iteration, verdict):
            seen.append((iteration, verdict["stop"]))

    hooks = _create_hook_manager()
    hooks.register(Watch())

    LoopRunner().run(pipeline(), make_catalog(tmp_path), hooks, run_id="loop")

    assert seen == [1, (1, False), 2, (2, False), 3, (3, True)]


def test_a_versioned_input_is_read_at_its_own_version(tmp_path):
    catalog = make_catalog(tmp_path)
    step = {"type": "json.JSONDataset", "filepath": str(tmp_path / "step.json"), "versioned": True}
    saved = tmp_path / "step.json/mine/step.json"
    saved.parent.mkdir(parents=True)
    saved.write_text("3")
    with_step = DataCatalog.from_config(
        {**catalog.config_resolver.config, "step": step}, save_version="session"
    )
    for name in ("params:loop", "parameters"):
        with_step[name] = catalog[name]

    LoopRunner().run(pipeline(), with_step, run_id="loop")

    assert value(tmp_path, "total", "loop-i001") == 3


def test_its_name_shows_the_inner_runner_as_kedro_viz_needs_it():
    assert "kedro.runner.sequential_runner.SequentialRunner object" in repr(LoopRunner())


def test_paths_of_the_catalog_stay_inside_their_folder(tmp_path):
    LoopRunner().run(pipeline(), make_catalog(tmp_path), run_id="loop")

    assert {path.name for path in Path(tmp_path).iterdir()} == {
        "total.json",
        "doubled.json",
        "verdict.json",
        "ledger",
    }


def test_a_mistyped_runner_parameter_is_named():
    with pytest.raises(InputError, match=r"unexpected keyword argument 'attch'.*attach, inner"):
        LoopRunner(attch="loop/1")
