import pandas as pd
import pytest
from kedro.io import DatasetError, Version

from llamaduo.datasets import JSONLinesDataset


def dataset(path, version=None):
    return JSONLinesDataset(filepath=str(path), version=version)


def test_values_stay_what_they_are(tmp_path):
    frame = pd.DataFrame(
        {"id": ["007", "NA"], "text": ["héllo 🦙 a/b", "2024-01-01"], "n": [1.5, None], "k": [1, 2]}
    )
    file = dataset(tmp_path / "t.jsonl")

    file.save(frame)

    assert (tmp_path / "t.jsonl").read_text(encoding="utf-8").splitlines() == [
        '{"id": "007", "text": "héllo 🦙 a/b", "n": 1.5, "k": 1}',
        '{"id": "NA", "text": "2024-01-01", "n": null, "k": 2}',
    ]
    pd.testing.assert_frame_equal(file.load(), frame)


def test_an_empty_table_is_an_empty_file(tmp_path):
    file = dataset(tmp_path / "t.jsonl")

    file.save(pd.DataFrame(columns=["id"]))

    assert (tmp_path / "t.jsonl").read_bytes() == b""
    assert file.load().empty


def test_line_ends_of_windows_a_mark_and_blank_lines_are_read(tmp_path):
    (tmp_path / "t.jsonl").write_bytes(b'\xef\xbb\xbf{"a": "x\\u2028y"}\r\n\r\n{"a": "z"}')

    assert list(dataset(tmp_path / "t.jsonl").load()["a"]) == ["x\u2028y", "z"]


@pytest.mark.parametrize(
    ("line", "came"),
    [
        (b"{'a': 1}", "{'a'"),
        (b"[1, 2]", "list"),
        (b'{"a": 1', '{"a"'),
        (b"\xff\xfe", "xff"),
        (rb'{"a": "half \uD83D"}', "surrogates not allowed"),
    ],
)
def test_a_broken_line_is_named_by_file_and_number(tmp_path, line, came):
    (tmp_path / "t.jsonl").write_bytes(b'{"a": 1}\n' + line + b"\n")

    with pytest.raises(DatasetError, match=r"t\.jsonl:2: expected a JSON object") as caught:
        dataset(tmp_path / "t.jsonl").load()

    assert came in str(caught.value)


def test_a_whole_surrogate_pair_is_a_character(tmp_path):
    (tmp_path / "t.jsonl").write_bytes(rb'{"a": "\ud83e\udd99"}')

    assert list(dataset(tmp_path / "t.jsonl").load()["a"]) == ["🦙"]


def test_versions_are_kept_apart(tmp_path):
    dataset(tmp_path / "t.jsonl", Version(None, "v1")).save(pd.DataFrame({"a": [1]}))
    dataset(tmp_path / "t.jsonl", Version(None, "v2")).save(pd.DataFrame({"a": [2]}))

    assert list(dataset(tmp_path / "t.jsonl", Version("v1", None)).load()["a"]) == [1]
    with pytest.raises(DatasetError, match="must not exist"):
        dataset(tmp_path / "t.jsonl", Version(None, "v1")).save(pd.DataFrame({"a": [3]}))


def test_the_preview_shows_the_first_rows(tmp_path):
    file = dataset(tmp_path / "t.jsonl")
    file.save(pd.DataFrame({"a": list(range(9))}))

    assert file.preview(nrows=2)["data"] == [[0], [1]]


def test_a_write_that_fails_leaves_the_file_of_before(tmp_path):
    file = dataset(tmp_path / "t.jsonl")
    file.save(pd.DataFrame({"a": ["x", "y"]}))

    with pytest.raises(DatasetError, match="Out of range float"):
        file.save(pd.DataFrame({"a": ["z", [float("inf")]]}))

    assert list(file.load()["a"]) == ["x", "y"]


def test_the_preview_shows_no_personal_details(tmp_path):
    file = dataset(tmp_path / "t.jsonl")
    file.save(
        pd.DataFrame({"a": ['write to "anna@firma.de"', None], "b": [["030/1234567"], [1.5]]})
    )

    preview = file.preview()

    assert preview["data"][1][1] == [1.5]
    assert "firma" not in str(preview)
    assert "1234567" not in str(preview)


def test_a_broken_line_is_quoted_without_personal_details(tmp_path):
    (tmp_path / "t.jsonl").write_text("anna@firma.de\n")

    with pytest.raises(DatasetError) as caught:
        dataset(tmp_path / "t.jsonl").load()

    assert "firma" not in str(caught.value)


def test_a_table_on_object_storage_is_put_whole_or_not_at_all(tmp_path):
    file = dataset(f"memory:/{tmp_path}/t.jsonl")
    file.save(pd.DataFrame({"a": ["007", None]}))

    with pytest.raises(DatasetError, match="Out of range float"):
        file.save(pd.DataFrame({"a": ["z", [float("inf")]]}))

    assert [*file.load()["a"].fillna("none")] == ["007", "none"]
