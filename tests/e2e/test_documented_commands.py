"""Each command of the README and the pages: run here, or by the test that is named."""

import re
import shlex
import shutil
import sqlite3
import subprocess
from pathlib import Path

import pytest

from tests.e2e.conftest import Project

REPOSITORY = Path(__file__).parents[2]
BLOCK = re.compile(r"```bash[^\n]*\n(.*?)```", re.DOTALL)
NEWCOMER = "test_a_newcomers_own_file_goes_from_nothing_to_an_honest_verdict"
SCHEDULER = "test_a_scheduler_runs_the_stages_to_the_end_that_a_driver_comes_to"
PARTS = "test_parts_that_are_attached_bring_an_iteration_to_the_end_that_a_driver_came_to"
ELSEWHERE = {
    "kedro run": NEWCOMER,
    "kedro run --pipelines=coverage": NEWCOMER,
    "kedro doctor": NEWCOMER,
    "kedro run --resume": "test_a_killed_loop_resumes_to_the_same_end",
    "kedro run --pipelines=evaluation": (
        "test_evaluation_alone_repeats_the_last_complete_iteration"
    ),
    "kedro run --from-nodes=evaluation.assess_scores": (
        "test_a_slice_reads_what_is_committed_and_not_what_another_slice_left"
    ),
    'llamaduo forget --matching "Jürgen Müller" --matching j.mueller@firma.example': (
        "test_a_person_is_forgotten_in_the_midst_of_a_loop_which_then_goes_on"
    ),
    "kedro run --pipelines=baselines": (
        "test_the_key_is_in_no_output_and_in_no_file_that_a_run_or_viz_writes"
    ),
    "kedro viz run --include-hooks --params=at=2": "test_at_shows_an_earlier_iteration",
    "kedro run --from-nodes=evaluation.compare_baselines --params=at=best": (
        "test_baselines_come_into_a_report_that_was_made_before"
    ),
    "kedro run --pipelines=deployment": (
        "test_a_release_holds_the_model_its_gguf_files_and_its_cards"
    ),
    "kedro serve": "test_what_was_released_without_a_network_is_served_without_one",
    "LLAMADUO_API_KEY=… kedro serve --host=0.0.0.0": (
        "test_an_address_that_others_reach_without_a_key_is_warned_of_and_sigterm_ends_it"
    ),
    "kedro viz build": ("test_a_static_site_shows_the_lineage_and_no_text_where_rows_are_off"),
    "kedro run --namespaces=data_synthesis --runner-params=attach=new": SCHEDULER,
    "kedro run --namespaces=fine_tuning --runner-params=attach=LOOP/1": PARTS,
    "kedro run --namespaces=evaluation --runner-params=attach=LOOP/1": PARTS,
    "kedro run --namespaces=data_synthesis --runner-params=attach=LOOP/2": PARTS,
    "MLFLOW_TRACKING_URI=sqlite:///data/mlflow.sqlite kedro run": (
        "test_a_loop_is_a_run_with_a_run_for_each_iteration_whatever_was_interrupted"
    ),
}
"""Command: the test that runs it."""
SCRIPTS = ("sbatch", "loop=", "after=", "for ", "job=", "done", "--wrap")
"""Lines of the Slurm script, which is run whole."""
OTHERS = (
    "VLLM_ALLOW_RUNTIME_LORA_UPDATING=True vllm serve",
    "mlflow server",
    "cd gguf && ollama create",
    "vllm serve ./model",
    "pip install",
    "python -m http.server",
)
"""Not this project's programs; they were not run."""


def commands():
    for page in [REPOSITORY / "README.md", *sorted(REPOSITORY.glob("docs/*.md"))]:
        for block in BLOCK.findall(page.read_text(encoding="utf-8")):
            for line in block.replace("\\\n", " ").splitlines():
                command = re.sub(r"\s+# .*", "", line).strip()
                if command and not command.startswith((*SCRIPTS, *OTHERS)):
                    yield command


RUN_HERE = sorted({*commands()} - ELSEWHERE.keys())


def test_what_is_run_elsewhere_is_documented_and_has_its_test():
    tests = "".join(path.read_text(encoding="utf-8") for path in REPOSITORY.glob("tests/**/*.py"))
    for command, test in ELSEWHERE.items():
        assert command in {*commands()}, command
        assert f"def {test}(" in tests, test


@pytest.fixture(scope="module")
def copy(finished, tmp_path_factory):
    """A project of which the commands may change the data, one after the other."""
    folder = tmp_path_factory.mktemp("documented") / "copy"
    shutil.copytree(finished[0].folder, folder, symlinks=True)
    return Project(folder)


@pytest.mark.parametrize("command", RUN_HERE)
def test_a_documented_command_works(copy, command):
    if command.startswith("make "):
        make = ["make", "--dry-run", *command.split()[1:]]
        subprocess.run(make, cwd=REPOSITORY, check=True, capture_output=True)
        return
    if command.startswith("sqlite3 "):
        query = re.search(r'"(.*)"', command)[1]
        connection = sqlite3.connect(copy.data / "journal.sqlite")
        assert connection.execute(query).fetchall()
        connection.close()
        return
    loop = copy.loops()[0]
    program, *words = shlex.split(command.replace("LOOP", loop))
    assert program == "kedro"
    options = ["--env=test", "--yes"] if "prune" in words else ["--env=test"]
    copy.kedro(*words, *options)
