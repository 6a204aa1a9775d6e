import pandas as pd
import pytest
from kedro.io import DatasetError

from llamaduo.datasets import ArrowTableDataset

TABLE = pd.DataFrame({"prompt": [f"ä {n}" for n in range(300)], "response": "r"})


@pytest.mark.parametrize("root", ["", "file://"])
def test_a_table_comes_back_as_it_was_saved_last(tmp_path, root):
    dataset = ArrowTableDataset(filepath=f"{root}{tmp_path}/pairs")
    assert not dataset.exists()

    dataset.save(TABLE)
    loaded = dataset.load()
    dataset.save(loaded.iloc[::-1])

    assert dataset.exists()
    pd.testing.assert_frame_equal(loaded, TABLE)
    pd.testing.assert_frame_equal(dataset.load(), TABLE.iloc[::-1].reset_index(drop=True))


def test_a_folder_that_is_not_on_this_machine_is_refused():
    with pytest.raises(DatasetError, match=r"s3://bucket/pairs is not; pandas\.ParquetDataset"):
        ArrowTableDataset(filepath="s3://bucket/pairs")
