"""The notebooks, executed in a project whose loop has ended."""

import json
import re
import shutil
import sqlite3
from html import unescape

import nbformat
import pandas as pd
import pytest
from nbclient import NotebookClient

from tests.e2e.conftest import REPOSITORY

NOTEBOOKS = sorted((REPOSITORY / "notebooks").glob("*.ipynb"))


@pytest.fixture
def execute(after_a_loop, tmp_path, monkeypatch):
    """Run a notebook as a person does, in its folder, and give its code cells."""
    monkeypatch.setenv("KEDRO_ENV", "test")
    monkeypatch.setenv("PYTHONPATH", str(after_a_loop.folder / "src"))
    for name in ("IPYTHONDIR", "JUPYTER_CONFIG_DIR", "JUPYTER_DATA_DIR", "JUPYTER_RUNTIME_DIR"):
        monkeypatch.setenv(name, str(tmp_path / name))
    folder = after_a_loop.folder / "notebooks"
    shutil.copytree(REPOSITORY / "notebooks", folder)

    def run(name, *more):
        notebook = nbformat.read(folder / name, as_version=4)
        notebook.cells += more
        where = {"metadata": {"path": str(folder)}}
        NotebookClient(notebook, kernel_name="python3", resources=where, timeout=200).execute()
        return [cell for cell in notebook.cells if cell.cell_type == "code"]

    return run


def shown(cell):
    """The rows of the table that a cell shows, all cells as text."""
    html = "".join(each.data["text/html"] for each in cell.outputs if "data" in each)
    rows = re.findall(r"<tr>(.*?)</tr>", html, re.DOTALL)
    return [
        [unescape(text) for text in re.findall(r"<t[hd][^>]*>(.*?)</t[hd]>", row, re.DOTALL)]
        for row in rows
    ]


def the(cells, start):
    """The cell that contains some code."""
    return next(cell for cell in cells if start in cell.source)


def texts(cells):
    return "".join(
        each.get("text", "") + each.get("data", {}).get("text/plain", "")
        for cell in cells
        for each in cell.outputs
    )


def test_a_finished_run_is_inspected(after_a_loop, execute):
    (loop,) = after_a_loop.loops()
    history = after_a_loop.json("08_reporting/iteration_history.json", f"{loop}-i002")
    lines = after_a_loop.load("03_primary/selected_pairs.jsonl", f"{loop}-i002").splitlines()
    reasons = pd.Series([json.loads(line)["dropped"] or "kept" for line in lines])

    cells = execute("01_inspect_a_run.ipynb")

    table = [row for row in shown(the(cells, "iteration_history")) if row[0] in ("1", "2")]
    assert table == [
        [
            str(entry["assessment"]["iteration"]),
            str(entry["training_pairs"]),
            *(
                str(round(entry["assessment"][score][what], 1))
                for score in ("similarity", "precision")
                for what in ("mean", "lower_bound")
            ),
            str(round(entry["assessment"]["full_marks_percentage"], 1)),
        ]
        for entry in history
    ]
    assert ["reason", "max_iterations"] in shown(the(cells, '"verdict"'))
    counted = {row[0]: row[1] for row in shown(the(cells, "value_counts")) if len(row) == 2}
    assert counted.items() >= {name: str(n) for name, n in reasons.value_counts().items()}.items()
    for plot in ("score_plot", "training_curve"):
        outputs = the(cells, plot).outputs
        assert any("application/vnd.plotly.v1+json" in each.get("data", {}) for each in outputs)
    assert "WARNING" not in texts(cells)


def test_teacher_base_model_and_student_answer_side_by_side(after_a_loop, execute):
    path = REPOSITORY / "notebooks/02_try_the_student.ipynb"
    code = [cell for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "code"]
    own = "Triage this support ticket as JSON.\\nMail nora@firma-meier.de about INV-20931."
    asked_again = [
        nbformat.v4.new_code_cell(cell.source.replace("prompts = []", f'prompts = ["{own}"]'))
        for cell in code[1:-1]
    ]

    cells = execute(path.name, *asked_again)

    *_, table, seconds = cells[: len(code)]
    head, *answers = [row for row in shown(table) if "id" not in row]
    assert head[-4:] == ["prompt", "teacher", "base model", "student"]
    assert len(answers) == 3
    for _, prompt, teacher, base_model, student in answers:
        assert prompt.startswith("Triage this support ticket")
        assert json.loads(teacher).keys() == {"category", "priority", "product", "reference"}
        assert base_model
        assert student
        assert base_model != student
    took = {row[0]: float(row[1]) for row in shown(seconds) if len(row) == 2 and row[0]}
    assert took.keys() == {"teacher", "base model", "student"}
    assert min(took.values()) > 0
    (_, prompt, teacher, _, _) = shown(cells[-1])[-1]
    assert "nora@firma-meier.de" in prompt
    assert json.loads(teacher)["reference"] == "INV-20931"
    journal = sqlite3.connect(after_a_loop.data / "journal.sqlite")
    try:
        sent = "".join(str(row) for row in journal.execute("select * from attempts"))
    finally:
        journal.close()
    assert "INV-20931" in sent
    assert "firma-meier" not in sent
    assert "Traceback" not in texts(cells)
    assert "Warning" not in texts(cells)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.name)
def test_what_a_notebook_shows_is_not_in_the_repository(path):
    notebook = nbformat.read(path, as_version=4)

    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert code
    assert all(not cell.outputs and cell.execution_count is None for cell in code)
