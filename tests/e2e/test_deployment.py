"""The student leaves the project: a release, its files, and what is refused."""

import copy
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
import yaml

from llamaduo.local_llm.base_model import BaseModelSpec
from llamaduo.local_llm.release import Release
from llamaduo.parameters import DeploymentParameters
from llamaduo.pipelines.deployment.model_card import write_model_card
from tests.e2e.conftest import Project

DEPLOY = ("run", "--env=test", "--pipelines=deployment")
FORCED = "deployment.force=true"
OFFLINE = (
    *("unshare", "--net", "--map-root-user"),
    *("sh", "-c", 'ip link set lo up && exec "$@"', "sh"),
)
"""Runs a command in a network of its own, in which there is loopback alone."""
ASK = """
import openai, subprocess, sys
command = [sys.executable, "-m", "kedro", "serve", "--env=test", "--port=0", *sys.argv[1:]]
with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
    ready = next(line for line in server.stdout if " answers at " in line)
    address = next(word for word in ready.split() if word.startswith("http://"))
    client = openai.OpenAI(base_url=address, api_key="sk-not-a-real-key-but-secret-0123456789")
    messages = [{"role": "user", "content": "Hello."}]
    answer = client.chat.completions.create(model="gpt-4o", messages=messages)
    print(answer.model, answer.usage.completion_tokens)
    server.terminate()
"""
SECRET = "sk-not-a-real-key-but-secret-0123456789"


def latest(project, entry):
    return max((project.data / entry).glob(f"*/{Path(entry).name}"))


def can_go_offline():
    return (
        all(shutil.which(each) for each in ("unshare", "ip"))
        and subprocess.run([*OFFLINE, "true"], check=False).returncode == 0
    )


@pytest.fixture(scope="module")
def deployed(finished, tmp_path_factory):
    """A project whose best iteration was released by force, and what was printed."""
    folder = tmp_path_factory.mktemp("deployed") / "project"
    shutil.copytree(finished[0].folder, folder, symlinks=True)
    project = Project(folder)
    (folder / "conf/local").mkdir(exist_ok=True)
    keys = {name: {"api_key": SECRET} for name in ("openai", "serve")}
    (folder / "conf/local/credentials.yml").write_text(yaml.safe_dump(keys), encoding="utf-8")
    alone = OFFLINE if can_go_offline() else ()
    return project, project.kedro(*DEPLOY, f"--params={FORCED}", before=alone)


def test_an_iteration_that_missed_its_target_is_not_released(after_a_loop):
    output = after_a_loop.kedro(*DEPLOY, "--params=at=1", code=1)

    (loop,) = after_a_loop.loops()
    assert f"nothing is released of {loop}/1. Iteration 1:" in output
    assert "--params=deployment.force=true" in output
    assert not (after_a_loop.data / "06_models/merged_model").exists()


def test_a_part_of_the_deployment_would_mix_iterations_and_is_refused(after_a_loop):
    part = (*DEPLOY, "--from-nodes=deployment.convert_to_gguf", f"--params={FORCED}")

    output = after_a_loop.kedro(*part, code=1)

    assert "deployment runs as a whole" in output


def test_a_release_holds_the_model_its_gguf_files_and_its_cards(deployed):
    project, output = deployed

    release = Release.open(latest(project, "06_models/release"))

    assert set(release.gguf) == {"f16", "q8_0", "q4_k_m"}
    assert {path.name for path in release.model.iterdir()} == {
        *("config.json", "generation_config.json", "model.safetensors"),
        *("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"),
    }
    assert set(release.manifest["files"]) == {
        path.relative_to(release.folder).as_posix()
        for path in release.folder.rglob("*")
        if path.is_file() and path.name != "manifest.json"
    }
    assert release.manifest["base_model"]["vocabulary"] == 49152
    (loop,) = project.loops()
    verdicts = project.json("08_reporting/verdict.json", f"{loop}-i002")
    assert release.manifest["provenance"]["loop"] == loop
    assert release.manifest["provenance"]["iteration"] == verdicts["best_iteration"]
    assert f"released: {release.folder}" in output
    assert "cost in precision" in output


def test_what_was_released_without_a_network_is_served_without_one(deployed):
    if not can_go_offline():
        pytest.skip("no network of one's own here: needs util-linux, iproute2 and user namespaces")
    project, _ = deployed

    asked = subprocess.run(
        [*OFFLINE, sys.executable, "-c", ASK, "--model=q8_0"],
        cwd=project.folder,
        env={**os.environ, "PYTHONPATH": str(project.folder / "src")},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )

    name, tokens = asked.stdout.split()[-2:]
    assert name.startswith("student")
    assert 1 <= int(tokens) <= 8, asked.stderr


def test_the_card_of_a_forced_release_says_that_it_missed_its_target(deployed):
    release = latest(deployed[0], "06_models/release")

    card = (release / "README.md").read_text(encoding="utf-8")

    _, front_matter, body = card.split("---\n", 2)
    metadata = yaml.safe_load(front_matter)
    assert metadata["model-index"][0]["results"][0]["metrics"][0]["type"] == "similarity"
    assert "did not reach its target" in body
    assert "stand-in" in body
    assert "the holdout was not opened" in body
    assert "Not measured:" in body
    for row in ("merged", "f16", r"q8\_0", r"q4\_k\_m"):
        assert re.search(rf"^\| {re.escape(row)} \| \d", body, re.MULTILINE), row


def card_inputs(project):
    """What the card of the release was written from."""
    (loop,) = project.loops()
    iteration = Release.open(latest(project, "06_models/release")).manifest["provenance"]
    version = f"{loop}-i{iteration['iteration']:03d}"
    made = {
        name: json.loads(latest(project, f"08_reporting/{name}.json").read_text("utf-8"))
        for name in ("provenance", "parity", "format_scores")
    }
    read = {
        name: project.json(f"08_reporting/{name}.json", version)
        for name in ("iteration_history", "confirmation", "fairness_audit", "privacy_report")
    }
    lines = project.load("05_model_input/training_set.jsonl", version).decode().splitlines()
    return {
        **made,
        **read,
        "known_baselines": None,
        "base_model": BaseModelSpec("some-hub/model", revision="abc"),
        "training_set": pd.DataFrame(map(json.loads, lines)).fillna({"teacher": ""}),
        "deployment": DeploymentParameters(task="Sorts *tickets*."),
    }


def test_a_card_says_what_was_not_measured_and_what_was_found(deployed):
    inputs = card_inputs(deployed[0])
    own = write_model_card(**inputs)
    assert "Sorts \\*tickets\\*." in own
    assert "base_model: some-hub/model" in own
    assert "| base model | some-hub/model at abc |" in own
    assert "was not measured, or not in this way" in own

    alarm = "refusals: 9.0 points more to she than to he"
    audit = {**inputs["fairness_audit"], "alarms": [alarm]}
    history = copy.deepcopy(inputs["iteration_history"])
    history[-1]["judge_audit"]["judges"][0]["failures"] = ["gives full marks to an empty answer"]
    training_set = inputs["training_set"].assign(teacher="")
    changed = {"fairness_audit": audit, "iteration_history": history, "training_set": training_set}
    other = write_model_card(**{**inputs, **changed})
    assert f"- {alarm}" in other
    assert "It gives full marks to an empty answer." in other
    assert "Read those that hold for" not in other


def test_every_format_was_judged_on_every_test_prompt(deployed):
    project, _ = deployed
    scores = json.loads(latest(project, "08_reporting/format_scores.json").read_text())

    assert [row["format"] for row in scores] == ["merged", "f16", "q8_0", "q4_k_m"]
    assert {row["prompts"] for row in scores} == {24}
    assert {row["judged_share"] for row in scores} == {1.0}
    assert [row["cost"] is None for row in scores] == [True, False, False, False]


def test_nothing_exported_holds_a_secret_a_path_of_the_machine_or_a_row(deployed):
    project, _ = deployed
    rows = [
        json.loads(line)
        for table in (project.data / "05_model_input/training_set.jsonl").glob("*/*.jsonl")
        for line in table.read_text(encoding="utf-8").splitlines()
    ]
    texts = {row["prompt"].split("\n")[-1] for row in rows} | {row["response"] for row in rows}
    known = {text.encode() for text in texts} | {
        json.dumps(text, ensure_ascii=False)[1:-1].encode() for text in texts
    }
    assert len(known) > 60
    machine = {str(project.folder), str(Path.home()), str(Path.cwd()), "/tmp/", SECRET}

    for file in latest(project, "06_models/release").rglob("*"):
        content = file.read_bytes() if file.is_file() else b""
        assert not [each for each in machine if each.encode() in content], file
        assert not [each for each in known if each in content], file
