import os
import stat

import pytest

from llamaduo.files import OwnerOnly, make_folder, replacing


def mode(path):
    return stat.S_IMODE(path.stat().st_mode)


def test_a_new_folder_is_its_owners_alone(tmp_path):
    make_folder(tmp_path / "a/b")
    make_folder(tmp_path / "a/b")

    assert [mode(tmp_path / name) for name in ("a", "a/b")] == [0o700, 0o700]


def test_a_file_is_replaced_whole_or_not_at_all(tmp_path):
    path = tmp_path / "file"
    path.write_text("before")

    with pytest.raises(TypeError), replacing(path) as file:
        file.writelines([b"half", None])
    assert [each.read_text() for each in tmp_path.iterdir()] == ["before"]

    with replacing(path) as file:
        file.write(b"after")
    assert [each.read_text() for each in tmp_path.iterdir()] == ["after"]
    assert mode(path) == 0o600


@pytest.mark.parametrize("end", ["after_pipeline_run", "on_pipeline_error"])
def test_a_run_writes_for_its_owner_and_gives_the_umask_back(tmp_path, end):
    hook, before = OwnerOnly(), os.umask(0o022)
    try:
        hook.before_pipeline_run()
        (tmp_path / "during").touch()
        getattr(hook, end)()
        (tmp_path / "after").touch()
    finally:
        os.umask(before)

    assert [mode(tmp_path / name) for name in ("during", "after")] == [0o600, 0o644]
