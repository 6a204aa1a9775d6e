"""An export that is killed releases nothing, and the next one is whole."""

import random
import shutil
import subprocess
import time

import pytest
from gguf import GGUFReader
from safetensors.torch import load_file

from llamaduo.local_llm.base_model import BaseModelSpec, load_tokenizer
from llamaduo.local_llm.gguf import gguf_files
from llamaduo.local_llm.release import Release
from tests.e2e.conftest import Project

DEPLOY = ("run", "--env=test", "--pipelines=deployment", "--params=deployment.force=true")
STEPS = ["merged_model", "gguf_model", "gguf_model", "release", "release"]
"""While the folder of one of them is being written; other instants are any."""
KILLS = 10
LOOK_S = 0.001


def kill_while_writing(process, models, entry, instants):
    """Kill at a random instant from the first sight of an unfinished folder on."""
    while not [*models.glob(f"{entry}/*/.{entry}.partial")]:
        if ends_within(process, LOOK_S):
            return False
    if not ends_within(process, instants.uniform(0, 0.2 if entry == "release" else 2)):
        process.kill()
    process.communicate()
    return process.returncode < 0


def ends_within(process, seconds):
    try:
        process.wait(seconds)
    except subprocess.TimeoutExpired:
        return False
    return True


def require_whole(models):
    """Whatever has its name is whole."""
    for folder in models.glob("merged_model/*/merged_model"):
        load_file(folder / "model.safetensors")
        load_tokenizer(BaseModelSpec(str(folder)))
    for folder in models.glob("gguf_model/*/gguf_model"):
        for file in gguf_files(folder).values():
            GGUFReader(file)
    return [Release.open(folder) for folder in models.glob("release/*/release")]


@pytest.mark.soak
@pytest.mark.timeout(3600)
def test_an_export_that_is_killed_at_any_time_releases_nothing_half(finished, tmp_path):
    project = Project(tmp_path / "project")
    shutil.copytree(finished[0].folder, project.folder, symlinks=True)
    began = time.monotonic()
    project.kedro(*DEPLOY)
    seconds = time.monotonic() - began
    models = project.data / "06_models"
    instants, killed = random.Random(9), []
    for number in range(KILLS):
        process = project.start(*DEPLOY)
        if number < len(STEPS):
            killed.append(kill_while_writing(process, models, STEPS[number], instants))
        else:
            if not ends_within(process, instants.uniform(0.1, 1) * seconds):
                process.kill()
            process.communicate()
            killed.append(process.returncode < 0)
        print(f"{STEPS[number] if number < len(STEPS) else 'any time'}: killed {killed[-1]}")
        require_whole(models)

    assert all(killed[: len(STEPS)])
    assert sum(killed) >= KILLS - 1
    project.kedro(*DEPLOY)

    newest = max(require_whole(models), key=lambda release: release.folder)
    assert set(newest.gguf) == {"f16", "q8_0", "q4_k_m"}
    assert not [*models.rglob("*.partial")]
