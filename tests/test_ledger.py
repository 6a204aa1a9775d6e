import json
import subprocess
import sys

import fsspec
import pytest
from kedro.io import DatasetError

from llamaduo.ledger import Ledger, LedgerDataset, LoopBusyError, UnknownLoopError, version


@pytest.fixture(params=["disk", "objects"])
def ledger(request, tmp_path):
    """Of a folder with a name that a pattern would read otherwise, and of object storage."""
    if request.param == "disk":
        return Ledger(tmp_path / "led[g]er")
    return Ledger(f"memory:/{tmp_path}/ledger", tmp_path / "lock")


def test_an_event_is_read_back(ledger):
    ledger.append("loop/i001/verdict", {"stop": True, "reason": "цель"})

    facts = ledger.read("loop/i001/verdict")
    assert facts.pop("at")
    assert facts == {"stop": True, "reason": "цель"}
    assert list(ledger.verdicts("loop")) == [1]
    assert ledger.read("loop/i002/verdict") is None


def test_an_event_leaves_no_partial_file(tmp_path):
    Ledger(tmp_path).append("loop/i001/verdict", {})

    assert [path.name for path in (tmp_path / "loop/i001").iterdir()] == ["verdict.json"]


def test_an_event_that_cannot_be_written_leaves_nothing(tmp_path):
    with pytest.raises(TypeError):
        Ledger(tmp_path).append("loop/opened", {"not json": object()})

    assert list(tmp_path.iterdir()) == []


def test_the_latest_unfinished_loop_is_the_one_to_go_on_with(ledger):
    for loop in ("2026-01-01", "2026-01-02", "2026-01-03"):
        ledger.append(f"{loop}/opened", {})
    ledger.append("2026-01-03/closed", {"reason": "target"})

    assert ledger.unfinished() == "2026-01-02"
    assert ledger.unfinished("2026-01-01") == "2026-01-01"


def test_a_loop_that_ended_or_is_unknown_is_refused_by_name(ledger):
    ledger.append("done/opened", {})
    ledger.append("done/closed", {"reason": "plateau"})

    with pytest.raises(UnknownLoopError, match="no unfinished loop"):
        ledger.unfinished()
    with pytest.raises(UnknownLoopError, match=r"done has ended \(plateau\)"):
        ledger.unfinished("done")
    with pytest.raises(UnknownLoopError, match="no loop other"):
        ledger.unfinished("other")


def test_the_last_complete_iteration_is_the_one_completed_last(ledger):
    ledger.append("2026-01-01/opened", {})
    ledger.append("2026-01-02/opened", {})
    ledger.append("2026-01-02/i001/verdict", {})
    ledger.append("2026-01-01/i001/verdict", {})
    ledger.append("2026-01-01/i002/verdict", {})  # resumed after the younger loop
    ledger.append("2026-01-03/opened", {})
    ledger.append("2026-01-03/i001/opened", {})

    assert ledger.last_complete() == ("2026-01-01", 2)


def test_commits_are_listed_per_iteration(ledger):
    ledger.append("loop/i001/committed/seeds", {"version": version("loop", 1)})
    ledger.append("loop/i002/committed/adapter", {"version": version("loop", 2)})

    assert ledger.committed("loop", 1) == {"seeds"}
    assert ledger.committed("loop", 3) == set()


HOLDER = """
import sys
from pathlib import Path
from llamaduo.ledger import Ledger
with Ledger(Path(sys.argv[1])).held("the-first"):
    print("held", flush=True)
    sys.stdin.read()
"""


def test_a_second_process_is_told_who_holds_the_data(tmp_path):
    ledger = Ledger(tmp_path)
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(tmp_path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    with holder:
        assert holder.stdout.readline() == "held\n"

        with pytest.raises(LoopBusyError, match=f"the-first.*process {holder.pid}"):
            ledger.held("the-second").__enter__()

        holder.kill()
    with ledger.held("the-third"):  # a killed holder lets go
        assert json.loads((tmp_path / "holder.json").read_text())["holder"] == "the-third"
    assert not (tmp_path / "holder.json").exists()


def test_a_ledger_of_objects_is_held_by_a_lock_on_this_machine(tmp_path):
    url = f"memory:/{tmp_path}/ledger"
    dataset = LedgerDataset(filepath=url, lock={"filepath": str(tmp_path / "local")})
    dataset.load().append("loop/opened", {})

    with dataset.load().held("the first"):
        held = (tmp_path / "local/holder.json").read_text()

    assert "the first" in held
    assert fsspec.filesystem("memory").ls(f"{tmp_path}/ledger", detail=False) == [
        f"{tmp_path}/ledger/loop"
    ]


def test_a_ledger_of_objects_without_a_lock_on_this_machine_says_where_to_name_one():
    url = "s3://bucket/llamaduo/ledger"

    with pytest.raises(DatasetError, match=r"lock of the data .* local_data in .*globals\.yml"):
        LedgerDataset(filepath=url, lock={"filepath": url})


def test_a_ledger_that_cannot_be_reached_is_told_as_one_of_the_catalog(tmp_path, monkeypatch):
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("HOME", str(tmp_path))
    ledger = LedgerDataset(filepath="s3://bucket/ledger", lock={"filepath": str(tmp_path)})

    with pytest.raises(DatasetError, match=r"s3://bucket/ledger.*\n.*locate credentials"):
        ledger.load()
