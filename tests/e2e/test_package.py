"""What ``kedro package`` makes, in a folder that knows nothing of the project."""

import os
import shutil
import subprocess
import sys
import tarfile

import pytest

from tests.e2e.conftest import REPOSITORY, Project


def build(project, *command):
    """The wheel and the packed configuration of a project, in its folder ``dist``."""
    shutil.copy(REPOSITORY / "README.md", project.folder)
    shutil.copy(REPOSITORY / "LICENSE", project.folder)
    done = subprocess.run([sys.executable, "-m", *command], cwd=project.folder, check=False)
    assert done.returncode == 0
    return project.folder / "dist"


class Installed(Project):
    """A folder with the package, its configuration and data, and no project."""

    @classmethod
    def in_folder(cls, folder, dist, data):
        (wheel,) = dist.glob("*.whl")
        pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index"]
        subprocess.run([*pip, "--target", folder / "site", wheel], check=True)
        shutil.copytree(data, folder / "data", symlinks=True)
        return cls(folder)

    def run(self, *command, code=0):
        environment = {**os.environ, "COLUMNS": "200", "PYTHONPATH": str(self.folder / "site")}
        done = subprocess.run(
            command,
            cwd=self.folder,
            env=environment,
            check=False,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            encoding="utf-8",
        )
        assert done.returncode == code, done.stdout
        return done.stdout


MODULE = (sys.executable, "-m", "llamaduo")


@pytest.fixture
def installed(after_a_loop, tmp_path):
    """The wheel, from the setuptools that are at hand, and the configuration unpacked."""
    dist = build(after_a_loop, "build", "--wheel", "--no-isolation")
    there = Installed.in_folder(tmp_path / "elsewhere", dist, after_a_loop.data.parent)
    shutil.copytree(after_a_loop.folder / "conf", there.folder / "conf")
    return there


def test_an_installed_package_runs_beside_its_configuration_and_data(installed):
    (loop,) = installed.loops()

    output = installed.run(*MODULE, "--env=test", "--pipelines=data_synthesis")
    listed = installed.run(installed.folder / "site/bin/llamaduo", "run", "--help")

    (new,) = [each for each in installed.versions("08_reporting/data_card.md") if loop not in each]
    card = installed.load("08_reporting/data_card.md", new).decode()
    assert "stand-in" in card
    assert "usage data" not in output
    assert "--resume" in listed


def test_an_installed_package_says_what_it_needs(installed):
    packed = installed.folder / "conf.tar.gz"
    with tarfile.open(packed, "w:gz") as archive:
        archive.add(installed.folder / "conf", "conf")
    archive_given = installed.run(*MODULE, f"--conf-source={packed}", code=1)
    shutil.rmtree(installed.folder / "conf")

    script = installed.folder / "site/bin/llamaduo"
    nothing_there = installed.run(*MODULE, code=1)
    nothing_to_forget_there = installed.run(script, "forget", "--matching=Nora", code=1)

    assert f"unpack it beside your data: tar xf {packed}" in archive_given
    assert "beside the unpacked archive of kedro package" in nothing_there
    assert "beside the unpacked archive of kedro package" in nothing_to_forget_there


@pytest.mark.soak
def test_what_kedro_package_packs_runs_a_whole_loop_elsewhere(project, tmp_path):
    dist = build(project, "kedro", "package")
    there = Installed.in_folder(tmp_path / "elsewhere", dist, project.folder / "data")
    with tarfile.open(dist / "conf-llamaduo.tar.gz") as archive:
        archive.extractall(there.folder, filter="data")

    by_module = there.run(*MODULE, "--env=test", "--conf-source=conf", code=2)
    by_script = there.run(there.folder / "site/bin/llamaduo", "run", "--env=test", code=2)

    assert "stopped without reaching the target: max_iterations" in by_module
    assert "stopped without reaching the target: max_iterations" in by_script
    assert len(there.loops()) == 2
