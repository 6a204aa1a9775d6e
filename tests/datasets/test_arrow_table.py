import uuid

import pandas as pd
import pytest

from llamaduo.datasets import ArrowTableDataset

TABLE = pd.DataFrame({"prompt": ["ä", "b"], "response": ["1", "2"]})


@pytest.mark.parametrize("root", ["{folder}", "file://{folder}", "memory://{unique}"])
def test_a_table_comes_back_from_wherever_it_was_saved(tmp_path, root):
    place = f"{root.format(folder=tmp_path, unique=uuid.uuid4())}/pairs"
    dataset = ArrowTableDataset(filepath=place)
    assert not dataset.exists()

    dataset.save(TABLE)
    dataset.save(TABLE.iloc[::-1])

    assert dataset.exists()
    pd.testing.assert_frame_equal(dataset.load(), TABLE.iloc[::-1].reset_index(drop=True))
