"""What is listed of loops, and what pruning leaves, on the small loops of the runner's tests."""

import pytest
from kedro.io import MemoryDataset

from llamaduo.history import all_loops, history_of
from llamaduo.ledger import Ledger
from llamaduo.pruning import prunable, prune
from llamaduo.runner import LoopRunner
from tests.test_runner import double, make_catalog, pipeline, value, versions

BEST = 2


def decide(doubled):
    number = doubled["value"] // 2
    return {
        "stop": number == 5,
        "reason": "high enough" if number == 5 else None,
        "best_iteration": min(number, BEST),
    }


def fail_at(number):
    def double_or_fail(total):
        if total["value"] == number:
            raise RuntimeError("power cut")
        return double(total)

    return double_or_fail


FLOW = pipeline(decide=decide)


def interrupted_loop(folder):
    """Three whole iterations, the second the best, and a fourth that is under way."""
    flow = pipeline(double=fail_at(4), decide=decide)
    with pytest.raises(RuntimeError, match="power cut"):
        LoopRunner().run(flow, make_catalog(folder), run_id="loop")
    (loop,) = all_loops(make_catalog(folder), FLOW)
    return loop


def test_a_loop_that_was_pruned_resumes_to_the_same_end(tmp_path):
    loop = interrupted_loop(tmp_path)

    for removal in prunable(loop):
        prune(removal)
    LoopRunner(resume="latest").run(FLOW, make_catalog(tmp_path), run_id="other")

    kept = ["loop-i002", "loop-i003", "loop-i004", "loop-i005"]
    assert [versions(tmp_path, name) for name in ("total", "doubled", "verdict")] == [kept] * 3
    assert value(tmp_path, "total", "loop-i005") == 5
    assert loop.ledger.read("loop/closed")["reason"] == "high enough"


def test_an_ended_loop_keeps_its_best_and_its_last_iteration(tmp_path):
    LoopRunner().run(FLOW, make_catalog(tmp_path), run_id="loop")
    (loop,) = all_loops(make_catalog(tmp_path), FLOW)

    removals = prunable(loop)
    for removal in removals:
        prune(removal)

    assert [removal.iteration for removal in removals] == [1, 3, 4]
    assert all(removal.bytes > 0 for removal in removals)
    assert versions(tmp_path, "doubled") == ["loop-i002", "loop-i005"]
    # What the last one has read, which a part of the loop would read again.
    assert versions(tmp_path, "total") == ["loop-i002", "loop-i004", "loop-i005"]
    assert prunable(loop) == []
    assert loop.ledger.last_complete() == ("loop", 5)


def test_a_pruning_that_was_killed_is_finished_by_the_next(tmp_path):
    loop = interrupted_loop(tmp_path)
    (removal,) = prunable(loop)
    prune(removal._replace(folders=removal.folders[:1]))  # as a kill after the first folder
    assert loop.ledger.committed("loop", 1) == set()  # nothing of it is offered

    (rest,) = prunable(loop)
    prune(rest)

    assert rest.folders == removal.folders[1:]
    assert versions(tmp_path, "total") == ["loop-i002", "loop-i003", "loop-i004"]
    assert prunable(loop) == []


def test_what_the_latest_iteration_has_read_goes_when_a_later_loop_is_there(tmp_path):
    for name in ("loop", "loop-b"):
        LoopRunner().run(FLOW, make_catalog(tmp_path), run_id=name)
    first, second = all_loops(make_catalog(tmp_path), FLOW)

    for removal in [*prunable(first), *prunable(second)]:
        prune(removal)

    kept = ["loop-b-i002", "loop-b-i004", "loop-b-i005", "loop-i002", "loop-i005"]
    assert versions(tmp_path, "total") == kept


def test_what_is_gone_is_listed_as_such(tmp_path):
    loop = interrupted_loop(tmp_path)
    for removal in prunable(loop):
        prune(removal)

    history = history_of(loop)

    # The small loops write no history of scores, so that it is gone for all.
    assert [row.state for row in history.iterations] == ["pruned", "gone", "gone", "open"]
    assert [row.best for row in history.iterations] == [False, True, False, False]
    assert history.iterations[0].bytes == 0 < history.iterations[1].bytes
    assert history.ended is None


def test_an_entry_that_has_no_versions_any_more_is_left_alone(tmp_path):
    loop = interrupted_loop(tmp_path)
    catalog = make_catalog(tmp_path)
    catalog["doubled"] = MemoryDataset()

    (removal,) = prunable(loop._replace(catalog=catalog))
    prune(removal)

    assert versions(tmp_path, "total") == ["loop-i002", "loop-i003", "loop-i004"]
    assert versions(tmp_path, "doubled") == ["loop-i001", "loop-i002", "loop-i003"]


def test_the_latest_start_tells_what_an_iteration_rests_on(tmp_path):
    ledger = Ledger(tmp_path)
    ledger.append("loop/opened", {"parameters": 1})
    ledger.append("loop/resumed-2026", {"parameters": 2})
    ledger.append("loop/closed", {"reason": "target"})

    assert [facts["parameters"] for facts in ledger.starts("loop")] == [1, 2]
