"""The folder that leaves the project."""

import json
import os

import pytest

from llamaduo.local_llm.release import Release, ReleaseContent, ReleaseError

FACTS = {"name": "student", "base_model": {"name_or_path": "some/model"}}


@pytest.fixture
def content(tmp_path):
    model = tmp_path / "model"
    model.mkdir()
    (model / "config.json").write_text("{}")
    gguf = tmp_path / "student-q8_0.gguf"
    gguf.write_bytes(b"GGUF")
    return ReleaseContent(
        model, [gguf], {"README.md": "# student", "gguf/Modelfile": "FROM"}, FACTS
    )


def test_a_release_names_each_of_its_files_with_its_hash(content, tmp_path):
    content.write(tmp_path / "release")

    release = Release.open(tmp_path / "release")
    assert set(release.manifest["files"]) == {
        *("README.md", "gguf/Modelfile", "gguf/student-q8_0.gguf", "model/config.json"),
    }
    assert release.name == "student"
    assert release.model == tmp_path / "release/model"
    assert release.gguf == {"q8_0": tmp_path / "release/gguf/student-q8_0.gguf"}


def test_a_release_takes_no_room_beside_what_it_is_made_of(content, tmp_path):
    content.write(tmp_path / "release")

    assert (tmp_path / "release/gguf/student-q8_0.gguf").samefile(content.gguf[0])
    config = tmp_path / "release/model/config.json"
    assert not config.samefile(content.model / "config.json")  # somebody may edit it


def test_a_release_on_another_disk_is_a_copy(content, tmp_path, monkeypatch):
    def refuse(source, target):
        raise OSError(18, "Invalid cross-device link")

    monkeypatch.setattr(os, "link", refuse)

    content.write(tmp_path / "release")

    assert (tmp_path / "release/gguf/student-q8_0.gguf").read_bytes() == b"GGUF"
    assert Release.open(tmp_path / "release").manifest["name"] == "student"


def test_a_file_that_was_changed_since_the_release_is_named(content, tmp_path):
    content.write(tmp_path / "release")
    (tmp_path / "release/README.md").write_text("# another")

    with pytest.raises(ReleaseError, match=r"README.md is not the file that was released"):
        Release.open(tmp_path / "release")


def test_a_file_that_is_missing_is_named(content, tmp_path):
    content.write(tmp_path / "release")
    (tmp_path / "release/model/config.json").unlink()

    with pytest.raises(ReleaseError, match=r"config.json is missing"):
        Release.open(tmp_path / "release")


def test_a_file_that_was_never_released_is_refused_and_not_served(content, tmp_path):
    content.write(tmp_path / "release")
    (tmp_path / "release/.DS_Store").touch()
    Release.open(tmp_path / "release")
    (tmp_path / "release/gguf/student-q4.gguf").write_bytes(b"GGUF")

    with pytest.raises(ReleaseError, match=r"student-q4.gguf is not in the manifest"):
        Release.open(tmp_path / "release")


def test_a_manifest_keeps_what_the_release_was_made_of(content, tmp_path):
    content.write(tmp_path / "release")

    manifest = json.loads((tmp_path / "release/manifest.json").read_text(encoding="utf-8"))
    assert manifest["base_model"] == {"name_or_path": "some/model"}
