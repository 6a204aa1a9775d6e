"""The README's first command as a newcomer gives it: a fresh clone, and nothing installed."""

import os
import re
import subprocess
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[2]
FOREIGN = re.compile(
    r"V(IRTUAL_)?ENV|EXTRAS|M(AKE)?FLAGS|MAKELEVEL|(PYTHON|OMP|PYTEST|KEDRO)\w*|COLUMNS"
)
ENDING = re.compile(r"It ends with\n\n```text\n(.*?)```", re.DOTALL)


def beginnings(text):
    """The words of each line before its first figure, rule or path."""
    return [re.split(r"[\d┃━─│┏┡└/]", line)[0].strip() for line in text.strip().splitlines()]


@pytest.mark.soak
def test_make_run_in_a_fresh_clone_ends_as_the_readme_shows(tmp_path):
    clone = tmp_path / "clone"
    subprocess.run(["git", "clone", "--quiet", REPOSITORY, clone], check=True)
    ending = ENDING.search((clone / "README.md").read_text("utf-8"))[1]
    environment = {name: v for name, v in os.environ.items() if not FOREIGN.fullmatch(name)}

    run = subprocess.run(
        ["make", "run"],
        cwd=clone,
        env=environment,
        check=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        encoding="utf-8",
    )

    last_table = run.stdout[run.stdout.rindex("Scores on the test set") :]
    print(last_table)
    assert beginnings(last_table)[-8:] == beginnings(ending)[-8:]
