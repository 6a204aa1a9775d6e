"""The README's first command as a newcomer gives it: a fresh clone, and nothing installed."""

import os
import re
import subprocess
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[2]
FOREIGN = re.compile(r"VIRTUAL_ENV|PYTHON\w*|OMP_\w+|PYTEST_\w+|KEDRO_\w+|COLUMNS")
ENDING = re.search(
    r"It ends with\n\n```text\n(.*?)```", (REPOSITORY / "README.md").read_text("utf-8"), re.DOTALL
)[1]


def beginnings(text):
    """The words of each line before its first figure, rule or path."""
    return [re.split(r"[\d┃━─│┏┡└/]", line)[0].strip() for line in text.strip().splitlines()]


@pytest.mark.soak
def test_make_run_in_a_fresh_clone_ends_as_the_readme_shows(tmp_path):
    subprocess.run(["git", "clone", "--quiet", REPOSITORY, tmp_path / "clone"], check=True)
    environment = {name: v for name, v in os.environ.items() if not FOREIGN.fullmatch(name)}

    run = subprocess.run(
        ["make", "run"],
        cwd=tmp_path / "clone",
        env=environment,
        check=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        encoding="utf-8",
    )

    last_table = run.stdout[run.stdout.rindex("Scores on the test set") :]
    print(last_table)
    assert beginnings(last_table)[-8:] == beginnings(ENDING)[-8:]
