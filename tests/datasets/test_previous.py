import inspect

import pandas as pd
import pytest
from kedro.io import DatasetError, Version
from kedro_datasets._typing import TablePreview

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


def save(folder, *versions):
    for version in versions:
        path, at = str(folder / "t.jsonl"), Version(None, version)
        JSONLinesDataset(filepath=path, version=at).save(pd.DataFrame({"a": [version]}))


def test_it_previews_as_the_dataset_that_it_reads(tmp_path):
    save(tmp_path, "loop-i001", "loop-i002")

    shown = previous(tmp_path, "loop-i001").preview

    assert inspect.signature(shown).return_annotation is TablePreview
    assert shown(nrows=1)["data"] == [["loop-i001"]]
    assert previous(tmp_path, "loop-i000").preview() is None


def test_where_nothing_is_pinned_it_previews_what_the_latest_iteration_went_on_from(tmp_path):
    unpinned = previous(tmp_path, None)
    unpinned._version = Version(None, "now")
    assert unpinned.preview() is None

    save(tmp_path, "loop-i001")
    assert unpinned.preview() is None

    save(tmp_path, "loop-i002")
    assert unpinned.preview()["data"] == [["loop-i001"]]


def test_it_is_never_written(tmp_path):
    with pytest.raises(DatasetError, match="read-only"):
        previous(tmp_path, "v1").save(pd.DataFrame())
