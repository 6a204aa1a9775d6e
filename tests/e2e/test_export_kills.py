"""An export that is killed releases nothing, and the next one is whole."""

import random
import shutil
import subprocess
import time

import pytest

from llamaduo.local_llm.release import Release
from tests.e2e.conftest import Project

DEPLOY = ("run", "--env=test", "--pipelines=deployment", "--params=deployment.force=true")
KILLS = 10


@pytest.mark.soak
@pytest.mark.timeout(3600)
def test_an_export_that_is_killed_at_any_time_releases_nothing_half(finished, tmp_path):
    project = Project(tmp_path / "project")
    shutil.copytree(finished[0].folder, project.folder, symlinks=True)
    began = time.monotonic()
    project.kedro(*DEPLOY)
    seconds = time.monotonic() - began
    models = project.data / "06_models"
    instants = random.Random(9)
    for _ in range(KILLS):
        process = project.start(*DEPLOY)
        instant = instants.uniform(0.1, 1) * seconds
        try:
            process.communicate(timeout=instant)
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate()
        releases = sorted(models.glob("release/*/release"))
        for release in releases:
            Release.open(release)
        print(f"killed after {instant:.1f} of {seconds:.1f} s: {len(releases)} whole release(s)")

    project.kedro(*DEPLOY)

    newest = Release.open(max(models.glob("release/*/release")))
    assert set(newest.gguf) == {"f16", "q8_0", "q4_k_m"}
    assert not [*models.rglob("*.partial")]
