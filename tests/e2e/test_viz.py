"""Kedro-Viz on a finished loop, as its REST interface, a static site and a browser show it."""

import json
import shutil
from urllib.request import urlopen

import pytest

from tests.e2e.conftest import Project
from tests.e2e.viz import browsing, click, serving

NOT_OURS = "ERR_NAME_NOT_RESOLVED"
"""Its page asks Google for a font."""


@pytest.fixture(scope="module")
def address(finished):
    project, _ = finished
    with serving(project, "--env=test") as address:
        yield address


@pytest.fixture(scope="module")
def visited(address):
    """One page for all tests: what they click is theirs, what the console says concerns all."""
    with browsing(address) as (page, errors):
        yield page, errors


def get(address, path):
    with urlopen(f"{address}/api/{path}") as answer:
        return json.load(answer)


def preview(address, name):
    (node,) = [n["id"] for n in get(address, "main")["nodes"] if n["name"] == name]
    return get(address, f"nodes/{node}").get("preview")


def rows(path):
    with path.open(encoding="utf-8") as lines:
        return [json.loads(line) for line in lines]


def test_the_browser_shows_three_boxes_and_a_layer_of_what_was_before(visited):
    page, _ = visited

    boxes = [*map(str.strip, page.locator(".pipeline-node--modularPipeline").all_text_contents())]
    layers = page.locator(".pipeline-layer-name").all_inner_texts()

    assert set(boxes) == {"data_synthesis", "fine_tuning", "evaluation"}
    assert set(layers) == {"inputs", "models", "previous_iteration", *boxes}


def test_each_layer_has_its_colour(visited):
    page, _ = visited
    one_of_each = ["coverage_train", "judge", "previous_verdict", "training_set", "adapter"]

    fills = page.evaluate(
        "names => names.map(name => [...document.querySelectorAll('.pipeline-node')]"
        ".find(node => node.textContent.trim() === name)"
        ".querySelector('.pipeline-node__bg').style.fill)",
        one_of_each,
    )

    assert all(fills)
    assert len(set(fills)) == len(one_of_each)


def test_a_click_on_score_plot_draws_the_curve(visited):
    page, errors = visited

    click(page, "score_plot")

    page.locator(".pipeline-metadata .js-line").first.wait_for(state="attached")  # it may be flat
    assert [error for error in errors if NOT_OURS not in error] == []


def test_a_click_on_training_set_shows_rows(visited, finished):
    page, errors = visited
    project, _ = finished
    first = json.loads(
        (project.folder / "data/01_raw/coverage_train.jsonl").read_text().split("\n")[0]
    )

    click(page, "training_set")

    page.locator(".preview-table__data", has_text=first["id"]).first.wait_for()
    cells = page.locator(".preview-table__data").all_inner_texts()
    assert first["response"] in cells
    assert [error for error in errors if NOT_OURS not in error] == []


def test_at_shows_an_earlier_iteration(finished, address):
    project, _ = finished
    with serving(project, "--env=test", "--params=at=1") as then:
        of_first = json.loads(preview(then, "verdict")), preview(then, "previous_verdict")
    of_last = json.loads(preview(address, "verdict")), preview(address, "previous_verdict")

    assert (of_first[0]["iteration"], of_first[1]) == (1, None)
    assert (of_last[0]["iteration"], json.loads(of_last[1])["iteration"]) == (2, 1)


def test_a_static_site_shows_the_lineage_and_no_text_where_rows_are_off(finished, tmp_path):
    project = Project(tmp_path / "project")
    shutil.copytree(
        finished[0].folder, project.folder, symlinks=True, ignore=shutil.ignore_patterns("build")
    )
    project.configure("globals.yml", {"preview_rows": False, "data": "data/test"}, env="base")

    project.kedro("viz", "build", "--include-previews", "--include-hooks")

    site = project.folder / "build/api"
    names = {node["name"] for node in json.loads((site / "main").read_text())["nodes"]}
    assert names >= {"data_synthesis", "fine_tuning", "evaluation", "training_set", "service_llm"}
    nodes = (site / "nodes").iterdir()
    shown = [json.dumps(json.loads(node.read_text()).get("preview")) for node in nodes]
    said = {
        text
        for name in ("training_set", "responses", "worst_responses", "counterfactuals")
        for file in project.data.glob(f"*/{name}.jsonl/*/*.jsonl")
        for row in rows(file)
        for text in (row.get("prompt", ""), row.get("response", ""))
        if len(text) > 20
    }
    # A JSON preview is a JSON text inside of one.
    forms = {json.dumps(json.dumps(text)[1:-1])[1:-1] for text in said}
    forms |= {json.dumps(text)[1:-1] for text in said}
    assert len(said) > 100
    assert len([each for each in shown if each != "null"]) > 40
    assert [each[:80] for each in shown if any(form in each for form in forms)] == []
