import pytest
from kedro.io import DatasetError

from llamaduo.datasets import PromptDataset


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
