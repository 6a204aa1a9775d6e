"""The README's five steps in its own words, with 150 requests of a hotel's guests."""

import csv
import json
import random
import re
import subprocess
from itertools import product
from pathlib import Path

import pytest

from tests.e2e.conftest import make_project
from tests.fakes.openai_server import FakeOpenAI, completion

REPOSITORY = Path(__file__).parents[2]
BLOCKS = dict(
    re.findall(r"```yaml (\w+)\n(.*?)```", (REPOSITORY / "README.md").read_text("utf-8"), re.DOTALL)
)
ANSWERS = {
    "the tap in the bathroom drips all night long": "team: repairs",
    "nobody has brought the towels that I asked for": "team: housekeeping",
    "a charge for the minibar stands on my bill": "team: front desk",
    "the soup last night was served stone cold": "team: kitchen",
    "my window does not close and the wind howls": "team: repairs",
    "could an extra pillow be sent up this evening": "team: housekeeping",
    "I would like to leave two days earlier than booked": "team: front desk",
    "is there anything without nuts on the menu": "team: kitchen",
    "the lamp beside my bed has begun to flicker": "team: repairs",
    "please have the carpet vacuumed while we are out": "team: housekeeping",
}
OPENINGS = [
    "Good evening from the third floor,",
    "Sorry to be writing again so soon, but",
    "We arrived with two children yesterday and",
    "As a guest who returns every single spring I must say that",
    "Before my taxi comes at seven:",
    "My husband thinks it is nothing, yet",
    "Hello there, a short note because",
    "After a long flight from Santiago I found that",
    "Nothing urgent, only that",
    "The colleague on the phone told me to write:",
    "To whoever reads the messages at this hour,",
    "It was a lovely stay so far, however",
    "For the record of the manager on duty,",
    "I tried the number on the card twice and now",
    "Greetings from the room at the end of the corridor,",
]
SHORT = (
    "loop.max_iterations=2,data_synthesis.pairs_per_iteration=[80],fairness.sample=2,"
    "evaluation.decoding.max_new_tokens=8"  # a random model goes on to the last of them
)
WORDS = (
    "again along another balcony because before broken cold corridor curtain daughter door early "
    "elevator evening family finally floor friend garden heating hour invoice kettle key later "
    "loud lounge luggage mirror morning neighbour night noon other parking phone please pool quiet "
    "reception remote shower since sofa somebody stairs still table taxi television tonight towel "
    "twice until upstairs usually waiter wardrobe weather weekend while window without yesterday"
)


def requests_of_guests():
    return [(f"{opening} {issue}", issue) for opening, issue in product(OPENINGS, ANSWERS)]


def answer(body):
    """Teacher and judge of that task."""
    text = body["messages"][-1]["content"]
    if "new examples" in text:
        rng = random.Random(text)
        pairs = [
            {
                "prompt": " ".join([*rng.sample(WORDS.split(), 12), *issue.split()[-2:]]),
                "response": right,
            }
            for issue, right in rng.choices([*ANSWERS.items()], k=8)
        ]
        return completion(json.dumps({"pairs": pairs}), model=body["model"])
    if "You judge" in text:
        case = json.loads(re.search(r"^\{.*\}$", text, re.MULTILINE).group())
        same = case["response"].strip() == case["reference"]
        return completion(json.dumps(dict.fromkeys(("similarity", "precision"), 100 * same)))
    return completion("team: front desk", model=body["model"])


@pytest.fixture
def newcomer(tmp_path):
    project = make_project(tmp_path / "project")
    with (project.folder / "data/01_raw/tickets.csv").open("w", encoding="utf-8", newline="") as f:
        rows = [[text, ANSWERS[issue], ANSWERS[issue]] for text, issue in requests_of_guests()]
        csv.writer(f).writerows([["question", "answer", "topic"], *rows])
    return project


def write(project, kind, text):
    names = {"catalog": "catalog", "models": "catalog_models", "globals": "globals"}
    path = project.folder / f"conf/local/{names.get(kind, f'parameters_{kind}')}.yml"
    path.parent.mkdir(exist_ok=True)
    path.write_text(text, encoding="utf-8")


def ignored_by_git(paths):
    command = ["git", "check-ignore", "--no-index", *paths]
    return subprocess.check_output(command, cwd=REPOSITORY, text=True).split()


def test_a_newcomers_own_file_goes_from_nothing_to_an_honest_verdict(newcomer, monkeypatch):
    project = newcomer
    monkeypatch.setenv("OPENAI_API_KEY", "sk-newcomer")

    write(project, "catalog", BLOCKS["catalog"])
    write(project, "globals", BLOCKS["globals"])
    write(project, "parameters", BLOCKS["parameters"])
    project.kedro("run", "--pipelines=coverage")
    own, demo = "data/01_raw/tickets/coverage_train.jsonl", "data/01_raw/coverage_train.jsonl"
    assert "towels" in (project.folder / own).read_text("utf-8")
    assert (project.folder / demo).read_bytes() == (REPOSITORY / demo).read_bytes()
    assert ignored_by_git([own, demo]) == [own]

    with FakeOpenAI(answer=answer) as server:
        models = BLOCKS["models"].replace("https://api.openai.com/v1", server.base_url)
        small = {
            "model_id: HuggingFaceTB/SmolLM2-1.7B-Instruct": (
                "filepath: data/06_models/random-2-layer"
            ),
            "load_in_4bit: true": "load_in_4bit: false",
        }
        for documented, ours in small.items():
            assert documented in models
            models = models.replace(documented, ours)
        write(project, "models", models)
        write(project, "settings", BLOCKS["settings"])
        checked = project.kedro("doctor")
        shown = project.kedro("run", f"--params={SHORT}", code=2)
        asked = server.asked()

    assert "75" in checked
    assert "stopped without reaching the target: max_iterations (advisory: so few" in shown
    assert {body["model"] for body in asked} == {"gpt-4o-2024-08-06", "gpt-4.1"}
    ledger = project.folder / "data/ledger"
    (closed,) = ledger.glob("*/closed.json")
    assert json.loads(closed.read_text("utf-8"))["iteration"] == 2
    (report,) = project.folder.glob("data/08_reporting/evaluation_report.html/*-i002/*.html")
    page = report.read_text("utf-8")
    assert "team: repairs" in page
    assert "stand-in" not in page
