"""What docs/scale.md says, with its own text: data on object storage, stages by a scheduler."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import fsspec
import pytest
from kedro.framework.project import pipelines
from kedro.framework.startup import bootstrap_project
from moto.server import ThreadedMotoServer

from tests.e2e.conftest import REPOSITORY
from tests.e2e.test_resume import install_kill_point, run_and_kill

BUCKET = "my-bucket"
ROOT = f"{BUCKET}/llamaduo"
SBATCH = Path(__file__).parents[1] / "fakes/sbatch.py"


def block(kind):
    text = (REPOSITORY / "docs/scale.md").read_text(encoding="utf-8")
    (found,) = re.findall(rf"```{kind}\n(.*?)```", text, re.DOTALL)
    return found


@pytest.fixture
def bucket(monkeypatch):
    """The files of an object storage on loopback, found as the page says."""
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    for name, setting in {
        "AWS_ENDPOINT_URL": f"http://{host}:{port}",
        "AWS_ACCESS_KEY_ID": "anybody",
        "AWS_SECRET_ACCESS_KEY": "anything",
        "AWS_DEFAULT_REGION": "us-east-1",
    }.items():
        monkeypatch.setenv(name, setting)
    files = fsspec.filesystem("s3", use_listings_cache=False, skip_instance_cache=True)
    files.mkdir(BUCKET)
    yield files
    server.stop()


def events(ledger):
    """Of the only loop of a ledger, but for its resumes."""
    return sorted(name for name in ledger if "resumed" not in name)


def events_on_disk(project, loop):
    folder = project.data / "ledger" / loop
    return events(path.relative_to(folder).as_posix() for path in folder.rglob("*.json"))


def committed_objects(files, loop):
    """Every object of a committed version, with the time of its writing."""
    objects = files.find(ROOT, detail=True)
    ledger = f"{ROOT}/ledger/{loop}/"
    committed = {
        (Path(path).stem, f"{loop}-{path.removeprefix(ledger).split('/')[0]}")
        for path in objects
        if path.startswith(ledger) and "/committed/" in path
    }
    return {
        path: facts["LastModified"]
        for path, facts in objects.items()
        if not path.startswith(f"{ROOT}/ledger")
        and (path.split("/")[3].split(".")[0], path.split("/")[4]) in committed
    }


@pytest.mark.soak
def test_a_loop_on_object_storage_is_killed_and_resumed_to_the_same_end(
    project, finished, bucket, monkeypatch
):
    globals_file = project.folder / "conf/test/globals.yml"
    globals_file.write_text(block("yaml globals"), encoding="utf-8")
    inputs = project.folder / "data/01_raw/coverage_train.jsonl"
    bucket.put_file(str(inputs), f"{BUCKET}/inputs/coverage_train.jsonl")
    inputs.unlink()
    filepath = f"s3://{BUCKET}/inputs/coverage_train.jsonl"
    project.configure("catalog.yml", {"coverage_train": {"filepath": filepath}})
    install_kill_point(project)

    run_and_kill(project, "upload:adapter@2", monkeypatch)
    (loop,) = [each.split("/")[-2] for each in bucket.glob(f"{ROOT}/ledger/*/opened.json")]
    before = committed_objects(bucket, loop)
    assert len(bucket.find(f"{ROOT}/06_models/adapter/{loop}-i002")) == 1
    said = project.kedro("run", "--env=test", "--resume", code=2)
    project.kedro("run", "--env=test", "--nodes=data_synthesis.report_synthesis")

    reference, _ = finished
    (driven,) = reference.loops()
    for path in ("05_model_input/training_set.jsonl", "08_reporting/verdict.json"):
        for iteration in ("i001", "i002"):
            here = f"{ROOT}/{path}/{loop}-{iteration}/{Path(path).name}"
            assert bucket.cat_file(here) == reference.load(path, f"{driven}-{iteration}")
    ledger = bucket.find(f"{ROOT}/ledger/{loop}")
    own = events(each.removeprefix(f"{ROOT}/ledger/{loop}/") for each in ledger)
    assert own == events_on_disk(reference, driven)
    after = committed_objects(bucket, loop)
    assert before
    assert {path: after[path] for path in before} == before
    assert f"s3://{ROOT}/08_reporting/loop_report.html/{loop}-i002/loop_report.html" in said
    assert "dropping the unfinished adapter" in " ".join(said.split())
    assert "other inputs" not in said
    local = {path.relative_to(project.folder / "data").parts[0] for path in written(project)}
    assert local == {"journal.sqlite", "ledger", "06_models"}
    assert [path.name for path in (project.folder / "data/ledger").iterdir()] == ["lock"]


def written(project):
    """Files that runs have left in the project's own folder of data."""
    came = {"01_raw", "random-2-layer", "smollm2-135m-instruct"}
    data = project.folder / "data"
    return [path for path in data.rglob("*") if path.is_file() and not came & set(path.parts)]


@pytest.mark.soak
def test_parts_that_are_attached_bring_an_iteration_to_the_end_that_a_driver_came_to(
    after_a_loop, finished
):
    project = after_a_loop
    (loop,) = project.loops()
    bootstrap_project(project.folder)
    ledger = project.data / "ledger" / loop
    for event in (ledger / "closed.json", ledger / "i002/verdict.json"):
        event.unlink()
    for stage in ("fine_tuning", "evaluation"):
        for name in pipelines[stage].all_outputs():
            (ledger / f"i002/committed/{name}.json").unlink()
    attach = f"--runner-params=attach={loop}/2"

    early = project.kedro("run", "--env=test", "--namespaces=evaluation", attach, code=1)
    trained = project.kedro("run", "--env=test", "--namespaces=fine_tuning", attach)
    project.kedro("run", "--env=test", "--namespaces=evaluation", attach, code=2)

    assert "fine_tuning" in early
    assert "dropping the unfinished adapter" in " ".join(trained.split())
    driven, _ = finished
    for path in ("08_reporting/verdict.json", "08_reporting/scores.jsonl"):
        assert project.load(path, f"{loop}-i002") == driven.load(path, f"{loop}-i002")
    events = {path.relative_to(ledger) for path in ledger.rglob("*.json")}
    before = driven.data / "ledger" / loop
    assert events >= {path.relative_to(before) for path in before.rglob("*.json")}
    closed = [json.loads((each / "closed.json").read_text("utf-8")) for each in (ledger, before)]
    assert closed[0]["reason"] == closed[1]["reason"]


@pytest.mark.soak
@pytest.mark.timeout(600)
def test_a_scheduler_runs_the_stages_to_the_end_that_a_driver_comes_to(project, finished, tmp_path):
    for file in (project.folder / "conf/test").iterdir():
        shutil.copy(file, project.folder / "conf/local")
    jobs, programs = tmp_path / "jobs", tmp_path / "bin"
    jobs.mkdir()
    programs.mkdir()
    (programs / "sbatch").symlink_to(SBATCH)
    path = os.pathsep.join([str(programs), str(Path(sys.executable).parent), os.environ["PATH"]])
    environment = {
        **os.environ,
        **{"PATH": path, "SLURM_JOBS": str(jobs), "PYTHONPATH": str(project.folder / "src")},
    }

    subprocess.run(
        ["bash", "-euo", "pipefail", "-c", block("bash slurm")],
        cwd=project.folder,
        env=environment,
        check=True,
        timeout=280,
    )

    codes = [(jobs / str(n)).read_text() for n in range(1, len([*jobs.iterdir()]) + 1)]
    assert codes == ["0"] * 6 + ["2"] + ["cancelled"] * 6
    (loop,), reference = project.loops(), finished[0]
    (driven,) = reference.loops()
    for path in ("05_model_input/training_set.jsonl", "08_reporting/verdict.json"):
        for iteration in ("i001", "i002"):
            own = project.load(path, f"{loop}-{iteration}")
            assert own == reference.load(path, f"{driven}-{iteration}")
    assert events_on_disk(project, loop) == events_on_disk(reference, driven)
    said = "".join(file.read_text() for file in project.folder.glob("slurm-*.out"))
    assert "with other" not in " ".join(said.split())
    late = ["--namespaces=data_synthesis", f"--runner-params=attach={loop}/3"]
    assert "has ended (max_iterations)" in " ".join(project.kedro("run", *late, code=2).split())
