"""Whole runs as a user starts them: a project folder, ``kedro`` in a process of its own."""

import json
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import pytest
import yaml
from filelock import FileLock

REPOSITORY = Path(__file__).parents[2]
TEST_PROMPTS = 24


@dataclass
class Project:
    """A project folder with its own configuration and data; the code is the repository's."""

    folder: Path

    @property
    def data(self):
        return self.folder / "data/test"

    def command(self, *arguments):
        return [sys.executable, "-m", "kedro", *arguments]

    def start(self, *arguments, before=(), **options):
        """Start a command of kedro, behind the words of another that runs it."""
        # Also the training process takes this folder's code.
        environment = {**os.environ, "COLUMNS": "200", "PYTHONPATH": str(self.folder / "src")}
        return subprocess.Popen(
            [*before, *self.command(*arguments)],
            cwd=self.folder,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            encoding="utf-8",
            **options,
        )

    def kedro(self, *arguments, code=0, timeout=280, **options):
        """Run to the end and give what it printed."""
        process = self.start(*arguments, **options)
        output, _ = process.communicate(timeout=timeout)
        assert process.returncode == code, output
        return output

    def configure(self, name, settings, env="test"):
        """Merge settings into a configuration file of an environment."""
        path = self.folder / "conf" / env / name
        known = yaml.safe_load(path.read_text(encoding="utf-8")) if path.exists() else {}
        for key, value in settings.items():
            known[key] = {**known.get(key, {}), **value} if isinstance(value, dict) else value
        path.write_text(yaml.safe_dump(known), encoding="utf-8")

    def versions(self, path):
        return sorted(each.name for each in (self.data / path).iterdir())

    def load(self, path, version):
        """The bytes of one version of a versioned file."""
        return (self.data / path / version / Path(path).name).read_bytes()

    def json(self, path, version):
        return json.loads(self.load(path, version))

    def loops(self):
        return sorted(each.parent.name for each in (self.data / "ledger").glob("*/opened.json"))


def make_project(folder):
    shutil.copytree(REPOSITORY / "conf", folder / "conf")
    shutil.copytree(REPOSITORY / "data/01_raw", folder / "data/01_raw")
    (folder / "data/06_models").mkdir()
    for model in ("random-2-layer", "smollm2-135m-instruct"):
        (folder / "data/06_models" / model).symlink_to(REPOSITORY / "data/06_models" / model)
    shutil.copytree(REPOSITORY / "src", folder / "src")
    (folder / ".viz").mkdir()
    shutil.copy(REPOSITORY / ".viz/styles.json", folder / ".viz")
    shutil.copy(REPOSITORY / "pyproject.toml", folder)
    shutil.copy(REPOSITORY / ".telemetry", folder)
    return Project(folder)


def make_small_project(folder):
    """With fewer prompts to answer, for tests to which scores are no matter."""
    project = make_project(folder)
    for split in ("test", "holdout"):
        coverage = folder / f"data/01_raw/coverage_{split}.jsonl"
        with coverage.open(encoding="utf-8") as lines:
            kept = [*islice(lines, TEST_PROMPTS)]
        coverage.write_text("".join(kept), encoding="utf-8")
    return project


@pytest.fixture
def project(tmp_path):
    return make_small_project(tmp_path / "project")


@pytest.fixture(scope="session")
def finished(tmp_path_factory, worker_id):
    """A project whose loop has ended, and what it printed; for reading only.

    The first of pytest-xdist's workers that needs it makes it for all.
    """
    own = tmp_path_factory.getbasetemp()
    folder = (own if worker_id == "master" else own.parent) / "finished"
    output = folder / "output.txt"
    with FileLock(f"{folder}.lock"):
        if not output.exists():
            printed = make_small_project(folder / "project").kedro("run", "--env=test", code=2)
            output.write_text(printed, encoding="utf-8")
    return Project(folder / "project"), output.read_text(encoding="utf-8")


@pytest.fixture
def after_a_loop(finished, tmp_path):
    """A copy of the finished project, to go on with."""
    folder = tmp_path / "copy"
    shutil.copytree(finished[0].folder, folder, symlinks=True)
    return Project(folder)
