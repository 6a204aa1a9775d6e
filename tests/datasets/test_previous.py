import pandas as pd
import pytest
from kedro.io import DatasetError, Version

from llamaduo.datasets import JSONLinesDataset, PreviousDataset


def previous(folder, load):
    config = {
        "type": "llamaduo.datasets.JSONLinesDataset",
        "filepath": str(folder / "t.jsonl"),
    }
    return PreviousDataset(dataset=config, version=Version(load, "now") if load else None)


def test_it_reads_the_version_that_it_is_pinned_to(tmp_path):
    for version in ("v1", "v2"):
        target = JSONLinesDataset(
            filepath=str(tmp_path / "t.jsonl"), version=Version(None, version)
        )
        target.save(pd.DataFrame({"a": [version]}))

    assert list(previous(tmp_path, "v1").load()["a"]) == ["v1"]


def test_before_the_first_version_there_is_none(tmp_path):
    assert previous(tmp_path, "loop-i000").load() is None
    assert previous(tmp_path, None).load() is None


def test_a_version_that_was_made_and_is_gone_is_an_error(tmp_path):
    with pytest.raises(DatasetError, match=r"loop-i001 .* is gone"):
        previous(tmp_path, "loop-i001").load()


def test_it_is_never_written(tmp_path):
    with pytest.raises(DatasetError, match="read-only"):
        previous(tmp_path, "v1").save(pd.DataFrame())
