"""Parts of a small loop, each run as by a process of its own."""

import pytest
from kedro.framework.project import pipelines
from kedro.io import MemoryDataset
from kedro.pipeline import Node, Pipeline

from llamaduo.attachment import LoopEndedError, loop_of, pin_attached
from llamaduo.errors import InputError
from llamaduo.ledger import Ledger, LoopBusyError, UnknownLoopError
from llamaduo.runner import LoopRunner
from tests.test_runner import make_catalog, pipeline, value, versions

PARTS = ("add", "double", "decide")


def register_pipelines():
    return {"__default__": pipeline()}


@pytest.fixture(autouse=True)
def project():
    """Kedro's registry has the small loop for the time of a test."""
    before = pipelines._pipelines_module
    pipelines.configure(__name__)
    yield
    pipelines.configure(before)


def attach(folder, at, *nodes, flow=None, run_id="loop", **loop):
    part = (flow or pipeline()).filter(node_names=nodes)
    return LoopRunner(attach=at).run(part, make_catalog(folder, **loop), run_id=run_id)


def run_iteration(folder, iteration, **loop):
    at = f"loop/{iteration}" if iteration > 1 else "new"
    for part in PARTS:
        outputs = attach(folder, at, part, **loop)
        at = f"loop/{iteration}"
    return outputs


def test_parts_alone_make_the_loop_that_a_driver_makes(tmp_path):
    assert [run_iteration(tmp_path / "parts", n) for n in (1, 2)] == [{}, {}]
    outputs = run_iteration(tmp_path / "parts", 3)
    LoopRunner().run(pipeline(), make_catalog(tmp_path / "driver"), run_id="loop")

    assert outputs["verdict"].load()["target_reached"]
    for name in ("total", "doubled"):
        for version in ("loop-i001", "loop-i002", "loop-i003"):
            driven = value(tmp_path / "driver", name, version)
            assert value(tmp_path / "parts", name, version) == driven
    events = [
        sorted(
            path.relative_to(folder).as_posix()
            for path in folder.rglob("*.json")
            if "resumed" not in path.name
        )
        for folder in (tmp_path / "parts/ledger", tmp_path / "driver/ledger")
    ]
    assert events[0] == events[1]


def test_a_driver_goes_on_with_what_parts_have_committed(tmp_path):
    run_iteration(tmp_path, 1)
    attach(tmp_path, "loop/2", "add")
    committed = tmp_path / "total.json/loop-i002/total.json"
    before = committed.stat().st_mtime_ns

    LoopRunner(resume="loop").run(pipeline(), make_catalog(tmp_path), run_id="other")

    assert committed.stat().st_mtime_ns == before
    assert versions(tmp_path, "verdict") == ["loop-i001", "loop-i002", "loop-i003"]


def test_parts_go_on_where_a_driver_was_stopped(tmp_path):
    def fail(total):
        raise RuntimeError("power cut")

    with pytest.raises(RuntimeError, match="power cut"):
        LoopRunner().run(pipeline(double=fail), make_catalog(tmp_path), run_id="loop")

    attach(tmp_path, "loop/1", "double")

    assert value(tmp_path, "doubled", "loop-i001") == 2


def test_a_part_drops_what_a_killed_save_left_of_its_own_and_nothing_else(tmp_path):
    attach(tmp_path, "new", "add")
    for name in ("doubled", "verdict"):
        half = tmp_path / f"{name}.json/loop-i001/{name}.json"
        half.parent.mkdir(parents=True)
        half.write_text('{"val')

    attach(tmp_path, "loop/1", "double")

    assert value(tmp_path, "doubled", "loop-i001") == 2
    assert (tmp_path / "verdict.json/loop-i001/verdict.json").read_text() == '{"val'


@pytest.mark.parametrize("at", ["loop", "loop/", "/2", "loop/two", "loop/-1"])
def test_a_place_that_is_none_is_refused(tmp_path, at):
    with pytest.raises(UnknownLoopError, match="expected LOOP/ITERATION"):
        attach(tmp_path, at, "add")


@pytest.mark.parametrize("at", ["loop/1", "loop/3"])
def test_an_iteration_that_is_not_the_next_is_refused_by_the_next_ones_name(tmp_path, at):
    run_iteration(tmp_path, 1)

    with pytest.raises(UnknownLoopError, match=r"is at iteration 2: attach=loop/2"):
        attach(tmp_path, at, "add")


def test_a_loop_that_is_unknown_is_refused(tmp_path):
    with pytest.raises(UnknownLoopError, match="no loop other"):
        attach(tmp_path, "other/1", "add")


def test_a_loop_that_has_ended_tells_how(tmp_path):
    run_iteration(tmp_path, 1, max_iterations=1)

    with pytest.raises(LoopEndedError, match="has ended") as ended:
        attach(tmp_path, "loop/2", "add", max_iterations=1)
    assert ended.value.target_reached


def test_a_loop_with_its_last_verdict_is_closed_by_a_resume(tmp_path):
    run_iteration(tmp_path, 1, max_iterations=1)
    (tmp_path / "ledger/loop/closed.json").unlink()

    with pytest.raises(UnknownLoopError, match="close it with: kedro run --resume loop"):
        attach(tmp_path, "loop/2", "add", max_iterations=1)


def test_a_part_whose_inputs_are_not_committed_names_who_makes_them(tmp_path):
    with pytest.raises(InputError, match="not committed doubled: run double of this iteration"):
        attach(tmp_path, "new", "decide")

    assert not (tmp_path / "ledger").exists()


def test_what_is_no_part_of_the_loop_is_refused(tmp_path):
    other = Pipeline([Node(lambda step: step, "step", "baseline", name="baseline")])

    with pytest.raises(InputError, match="the loop, which does not make baseline"):
        attach(tmp_path, "new", "baseline", flow=other)


def test_what_a_run_asks_is_on_the_account_of_the_loop_that_it_works_for(tmp_path):
    catalog, ledger = make_catalog(tmp_path), Ledger(tmp_path / "ledger")
    for loop in ("first", "second"):
        ledger.append(f"{loop}/opened", {})

    def account(**runner):
        return loop_of({"run_id": "run", "runner": repr(LoopRunner(**runner))}, catalog)

    assert account() == account(attach="new") == "run"
    assert account(attach="first/2") == account(resume="first") == "first"
    assert account(resume="latest") == "second"
    with pytest.raises(UnknownLoopError, match="no loop third"):
        account(resume="third")


def test_a_live_run_on_the_same_data_is_named(tmp_path):
    attach(tmp_path, "new", "add")

    with (
        Ledger(tmp_path / "ledger").held("loop driven"),
        pytest.raises(LoopBusyError, match="loop driven is running"),
    ):
        attach(tmp_path, "loop/1", "double")


def test_an_interrupted_part_says_the_command_that_goes_on_with_it(tmp_path, caplog):
    def fail(step, previous_total):
        raise RuntimeError("power cut")

    command = "kedro run --nodes=add --runner-params=attach=new"
    part = pipeline(add=fail).filter(node_names=["add"])
    with pytest.raises(RuntimeError, match="power cut"):
        LoopRunner(attach="new", resuming_command=command).run(
            part, make_catalog(tmp_path), run_id="loop"
        )

    assert "kedro run --nodes=add --runner-params=attach=loop/1" in caplog.text


def hooked(folder, at, node, **named):
    """What a hook before the run sees."""
    catalog = make_catalog(folder)
    said = {"runner": str(LoopRunner(attach=at)), "run_id": "loop", "load_versions": named}
    part = pipeline().filter(node_names=[node])
    return pin_attached(said, part, catalog), catalog


def test_the_checks_before_a_part_read_the_versions_that_it_will_read(tmp_path):
    run_iteration(tmp_path, 1)
    attach(tmp_path, "loop/2", "add")
    newer = tmp_path / "total.json/other-i001/total.json"
    newer.parent.mkdir()
    newer.write_text("{}")

    is_attached, catalog = hooked(tmp_path, "loop/2", "double")

    assert is_attached
    assert catalog.load("total") == {"value": 2}


def test_an_iteration_to_look_at_is_refused_beside_the_one_to_run_in(tmp_path):
    catalog = make_catalog(tmp_path)
    catalog["params:at"] = MemoryDataset(1)
    said = {"runner": str(LoopRunner(attach="new")), "run_id": "loop", "load_versions": {}}

    with pytest.raises(InputError, match="leave out at"):
        pin_attached(said, pipeline().filter(node_names=["add"]), catalog)


def test_the_checks_of_a_run_that_is_not_attached_are_left_alone(tmp_path):
    assert not hooked(tmp_path, None, "double")[0]


def test_a_version_that_a_person_names_of_what_the_loop_makes_is_refused(tmp_path):
    with pytest.raises(InputError, match="names total, which an attached run reads"):
        hooked(tmp_path, "new", "add", total="other-i001")
