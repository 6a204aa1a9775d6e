import pytest
from kedro.io import DatasetError

from llamaduo.datasets import PromptDataset, PromptFolderDataset


@pytest.mark.parametrize(
    "text", ["{{ seed }} {{ typo }}", "none", "{{ SEED }}"], ids=["unknown", "missing", "case"]
)
def test_a_text_that_does_not_fit_is_refused_by_name(tmp_path, text):
    (tmp_path / "p.txt").write_text(text)

    with pytest.raises(DatasetError, match=r"p\.txt has the placeholders .*expected \['seed'\]"):
        PromptDataset(filepath=str(tmp_path / "p.txt"), placeholders=["seed"]).load()


def test_a_text_that_fits_is_read_as_it_is(tmp_path):
    (tmp_path / "p.txt").write_text("Größe {{seed}}: {}\n", encoding="utf-8")

    prompt = PromptDataset(filepath=str(tmp_path / "p.txt"), placeholders=["seed"])

    assert prompt.load() == "Größe {{seed}}: {}\n"


def folder_of(path):
    return PromptFolderDataset(filepath=str(path), placeholders=["seed"])


def test_each_text_file_of_a_folder_is_a_prompt_under_its_own_name(tmp_path):
    (tmp_path / "harder.txt").write_text("Härter: {{ seed }}", encoding="utf-8")
    (tmp_path / "other.txt").write_text("Other: {{ seed }}", encoding="utf-8")
    (tmp_path / "notes.md").write_text("Not a prompt.", encoding="utf-8")

    assert folder_of(tmp_path).load() == {
        "harder": "Härter: {{ seed }}",
        "other": "Other: {{ seed }}",
    }


def test_a_prompt_of_a_folder_that_lacks_a_placeholder_is_named(tmp_path):
    (tmp_path / "harder.txt").write_text("Harder: {{ sead }}", encoding="utf-8")

    with pytest.raises(DatasetError, match=r"harder.txt has the placeholders \['sead'\]"):
        folder_of(tmp_path).load()


def test_a_folder_without_a_prompt_is_named(tmp_path):
    with pytest.raises(DatasetError, match="holds no prompt text"):
        folder_of(tmp_path / "none").load()
