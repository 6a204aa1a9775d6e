"""What the pages say of files, entries and settings is so."""

import re
import runpy
import shutil
from pathlib import Path

import pytest
import yaml
from kedro.framework.project import pipelines
from kedro.framework.session import KedroSession
from kedro.framework.startup import bootstrap_project

from llamaduo.input_check import wrong_parameters

REPOSITORY = Path(__file__).parents[1]
PAGES = {
    page.relative_to(REPOSITORY).as_posix(): page.read_text(encoding="utf-8")
    for page in [*REPOSITORY.glob("*.md"), *REPOSITORY.glob("docs/*.md")]
}
SETTINGS = {
    f"{page}: {text.splitlines()[1][:40]}": text
    for page, whole in PAGES.items()
    for text in re.findall(r"```yaml[^\n]*\n(# conf/.*?)```", whole, re.DOTALL)
}


def anchors(page):
    """Those of the headings, as GitHub makes them."""
    titles = re.findall(r"^#+ (.*)$", page, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title).strip().lower().replace(" ", "-") for title in titles}


@pytest.mark.parametrize("name", PAGES)
def test_every_link_leads_somewhere(name):
    targets = re.findall(r"\]\(([^)\s]+)\)", PAGES[name])
    for target in targets:
        if "://" in target:
            continue
        path, _, anchor = target.partition("#")
        file = (REPOSITORY / name).parent / path if path else REPOSITORY / name
        assert file.exists(), target
        if anchor:
            assert anchor in anchors(file.read_text(encoding="utf-8")), target


def test_the_reference_of_the_data_is_that_of_the_code():
    page = runpy.run_path(str(REPOSITORY / "docs/generate_data.py"))["page"]

    assert page(PAGES["docs/data.md"]) == PAGES["docs/data.md"], "run docs/generate_data.py"


@pytest.mark.parametrize("text", SETTINGS.values(), ids=SETTINGS)
def test_documented_settings_are_read_as_they_stand(text, tmp_path):
    file = re.match(r"# conf/(?:local|base)/(\w+\.yml)", text)[1]
    shutil.copytree(REPOSITORY / "conf", tmp_path / "conf")
    shutil.rmtree(tmp_path / "conf/local")
    (tmp_path / "conf/local").mkdir()
    file = file if file == "globals.yml" else f"{file.split('.')[0].split('_')[0]}.yml"
    (tmp_path / "conf/local" / file).write_text(text, encoding="utf-8")
    bootstrap_project(REPOSITORY)

    with KedroSession.create(REPOSITORY, conf_source=str(tmp_path / "conf")) as session:
        context = session.load_context()
        catalog = context.catalog
        assert wrong_parameters(context.config_loader["parameters"]) == []
        entries = set().union(*(each.datasets() for each in pipelines.values()))
        if file == "catalog.yml":
            assert yaml.safe_load(text).keys() <= entries
        for name in entries:
            assert catalog.get(name) is not None


def test_every_dial_of_the_readme_is_a_parameter():
    bootstrap_project(REPOSITORY)
    rows = re.findall(r"^\| (`\w+\.[\w.]+`[^|]*) \|", PAGES["README.md"], re.MULTILINE)
    with KedroSession.create(REPOSITORY) as session:
        parameters = session.load_context().params

    assert len(rows) > 10
    for row in rows:
        first, *others = re.findall(r"`([\w.]+)`", row)
        family = first.rpartition(".")[0]
        for name in [first, *(each if "." in each else f"{family}.{each}" for each in others)]:
            group, *path = name.split(".")
            value = parameters[group]
            for part in path:
                value = getattr(value, part)
