"""What the loop itself costs: nodes that do nothing, beside Kedro's own runner in the same run."""

import statistics
import time

from kedro.framework.hooks.manager import _create_hook_manager
from kedro.io import DataCatalog, MemoryDataset
from kedro.pipeline import Node, Pipeline
from kedro.runner import SequentialRunner

from llamaduo.runner import LoopRunner

NODES = 25
ITERATIONS = 8
LIMIT_MS = 50


def pass_on(value):
    return value


def pipeline():
    first = Node(lambda previous: previous or {"n": 0}, "previous_last", "d0", name="n0")
    middle = [Node(pass_on, f"d{n - 1}", f"d{n}", name=f"n{n}") for n in range(1, NODES - 1)]
    last = Node(
        lambda value: {"stop": False, "reason": None}, f"d{NODES - 2}", "verdict", name="last"
    )
    return Pipeline([first, *middle, last])


def make_catalog(folder, save_version):
    names = [*(f"d{n}" for n in range(NODES - 1)), "verdict"]
    entries = {
        name: {"type": "json.JSONDataset", "filepath": f"{folder}/{name}.json", "versioned": True}
        for name in names
    }
    entries["previous_last"] = {
        "type": "llamaduo.datasets.PreviousDataset",
        "versioned": True,
        "dataset": {"type": "json.JSONDataset", "filepath": f"{folder}/d{NODES - 2}.json"},
    }
    entries["ledger"] = {"type": "llamaduo.ledger.LedgerDataset", "filepath": f"{folder}/ledger"}
    catalog = DataCatalog.from_config(entries, save_version=save_version)
    settings = {
        "max_iterations": ITERATIONS,
        "carry": {"previous_last": f"d{NODES - 2}"},
    }
    catalog["params:loop"] = MemoryDataset(settings)
    catalog["parameters"] = MemoryDataset({"loop": settings})
    return catalog


def seconds(work):
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def plain_passes(folder):
    for n in range(ITERATIONS):
        SequentialRunner().run(pipeline(), make_catalog(folder, f"v{n}"), _create_hook_manager())


def test_the_loop_adds_at_most_50_ms_a_node(tmp_path):
    rounds = []
    for n in range(3):  # alternating, so that both see the same machine
        kedro = seconds(lambda n=n: plain_passes(tmp_path / f"plain{n}"))
        catalog = make_catalog(tmp_path / f"loop{n}", "session")
        loop = seconds(lambda c=catalog: LoopRunner().run(pipeline(), c, run_id="loop"))
        rounds.append((1000 * kedro / NODES / ITERATIONS, 1000 * loop / NODES / ITERATIONS))
    for kedro, loop in rounds:
        print(f"\nms a node: SequentialRunner {kedro:.2f}, LoopRunner {loop:.2f}")
    added = statistics.median(loop - kedro for kedro, loop in rounds)
    print(f"the loop adds {added:.2f} ms a node")

    assert added <= LIMIT_MS
