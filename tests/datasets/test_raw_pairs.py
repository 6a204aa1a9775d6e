import json
import tempfile
from pathlib import Path

import pandas as pd
import pytest
from datasets import ClassLabel, Dataset, Features, Value
from hypothesis import example, given
from hypothesis import strategies as st
from kedro.io import DatasetError

from llamaduo.datasets import RawPairsDataset
from llamaduo.schemas import RawPairs

ROWS = [{"prompt": "a", "response": "b"}, {"prompt": "c", "response": "d"}]
LINES = "".join(f"{json.dumps(row)}\n" for row in ROWS)


def load(path, **arguments):
    return RawPairsDataset(filepath=str(path), **arguments).load()


def test_each_row_has_its_file_and_line(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data").mkdir()
    (tmp_path / "data/raw.jsonl").write_text("\n" + LINES)

    frame = load(tmp_path / "data/raw.jsonl")

    assert list(frame["file"]) == ["data/raw.jsonl", "data/raw.jsonl"]
    assert list(frame["line"]) == [2, 3]
    assert list(frame["row"]) == ROWS
    assert list(frame["problem"]) == ["", ""]


def test_a_csv_row_has_the_line_where_it_begins(tmp_path):
    (tmp_path / "raw.csv").write_text('a,b\n"1\n2\n3",x\n\n"4",y\n5\n"6\n7",z,\n8,9\n')

    frame = load(tmp_path / "raw.csv")

    assert list(frame["line"]) == [2, 6, 7, 8, 10]
    assert list(frame["problem"] == "") == [True, True, False, False, True]


def test_a_quote_that_is_never_closed_costs_its_own_line_alone(tmp_path):
    rows = "".join(f"{n},x\n" for n in range(1000))
    (tmp_path / "raw.csv").write_text('a,b\n"0,x\n' + rows)

    frame = load(tmp_path / "raw.csv")

    assert len(frame) == 1001
    assert list(frame[frame["problem"] != ""]["line"]) == [2]


def test_an_element_of_an_array_has_the_line_where_it_begins(tmp_path):
    (tmp_path / "raw.json").write_text(json.dumps(ROWS, indent=2) + "\n")

    assert list(load(tmp_path / "raw.json")["line"]) == [2, 6]


def test_the_format_can_be_named_where_the_suffix_does_not_tell(tmp_path):
    (tmp_path / "proxy.log").write_text(LINES)

    assert list(load(tmp_path / "proxy.log", format="jsonl")["row"]) == ROWS
    assert list(load(tmp_path, format="jsonl")["row"]) == ROWS


def test_a_saved_dataset_without_splits_is_read(tmp_path):
    Dataset.from_list(ROWS).select([1, 0]).save_to_disk(tmp_path / "raw")

    frame = load(tmp_path / "raw")

    assert list(frame["row"]) == ROWS[::-1]
    assert list(frame["line"]) == [1, 2]


def test_the_rows_fit_their_schema(tmp_path):
    (tmp_path / "raw.jsonl").write_text(LINES + "no JSON\n")

    pd.testing.assert_frame_equal(
        RawPairs.validate(load(tmp_path / "raw.jsonl")), load(tmp_path / "raw.jsonl")
    )


def test_the_preview_shows_the_first_rows_as_text(tmp_path):
    (tmp_path / "raw.jsonl").write_text(LINES * 9)

    preview = RawPairsDataset(filepath=str(tmp_path / "raw.jsonl")).preview(nrows=1)

    assert preview["data"] == [[str(tmp_path / "raw.jsonl"), 1, json.dumps(ROWS[0]), ""]]


@pytest.mark.parametrize(
    ("path", "arguments", "sentence"),
    [
        ("none.jsonl", {}, "there is nothing at"),
        (".", {}, "expected pairs, there are no rows"),
        ("raw.txt", {}, "name its format in the catalog"),
        ("raw.txt", {"format": "excel"}, "format is 'excel', expected jsonl, json, csv"),
    ],
)
def test_what_cannot_be_read_is_refused_by_one_sentence(tmp_path, path, arguments, sentence):
    (tmp_path / "raw.txt").write_text(LINES)

    with pytest.raises(DatasetError, match=sentence):
        load(tmp_path / path, **arguments)


def test_the_users_file_is_never_written(tmp_path):
    dataset = RawPairsDataset(filepath=str(tmp_path / "raw.jsonl"))

    with pytest.raises(DatasetError, match="never written"):
        dataset.save(ROWS)

    assert not dataset.exists()


@given(content=st.binary(max_size=200), suffix=st.sampled_from(["jsonl", "json", "csv", "tsv"]))
@example(b'[{"a": 1}, ' + b"[" * 100_000, "json")
@example(b"\xef\xbb\xbf", "csv")
@example(b'a\n"\r\n"', "csv")
def test_no_bytes_stop_the_reader_without_a_sentence(content, suffix):
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, f"raw.{suffix}")
        path.write_bytes(content)
        try:
            frame = load(path)
        except DatasetError as error:
            frame, sentence = None, str(error)
    if frame is None:
        assert sentence.startswith(str(path))
    else:
        assert ((frame["row"].isna()) == (frame["problem"] != "")).all()
        assert frame["line"].is_monotonic_increasing
        assert frame["line"].max() <= 1 + content.count(b"\n") + content.count(b"\r")


def test_a_class_of_a_saved_dataset_is_its_name(tmp_path):
    features = Features({"text": Value("string"), "label": ClassLabel(names=["neg", "pos"])})
    rows = [{"text": "a", "label": 1}, {"text": "b", "label": None}, {"text": "c", "label": -1}]
    Dataset.from_list(rows, features=features).save_to_disk(tmp_path / "saved")

    loaded = RawPairsDataset(filepath=str(tmp_path / "saved")).load()

    assert [row["label"] for row in loaded["row"]] == ["pos", None, None]


def test_the_preview_shows_no_personal_details(tmp_path):
    (tmp_path / "raw.jsonl").write_text('{"prompt": "mail anna@firma.de"}\nanna@firma.de\n')

    preview = RawPairsDataset(filepath=str(tmp_path / "raw.jsonl")).preview()

    assert len(preview["data"]) == 2
    assert "firma" not in str(preview)
