"""Every checked-in environment loads, and every entry and parameter of it is usable."""

import json
import re
import shutil
from dataclasses import replace
from graphlib import TopologicalSorter
from pathlib import Path

import pytest
import yaml
from kedro.framework.project import pipelines
from kedro.framework.session import KedroSession
from kedro.framework.startup import bootstrap_project
from kedro.io import MemoryDataset
from kedro_viz.data_access import DataAccessManager
from kedro_viz.integrations.kedro.data_loader import load_data
from kedro_viz.models.flowchart.nodes import DataNode
from kedro_viz.server import populate_data
from omegaconf import OmegaConf
from pydantic import BaseModel

from llamaduo import schemas
from llamaduo.errors import InputError
from llamaduo.forgetting.places import places_of
from llamaduo.iterations import is_whole_loop
from llamaduo.parameters import FineTuningParameters
from llamaduo.service_llm.budget import Price
from llamaduo.service_llm.journal import Journal
from tests.fakes.openai_server import FakeOpenAI, echo
from tests.service_llm.conftest import request

REPOSITORY = Path(__file__).parents[1]
ENVIRONMENTS = sorted(
    {path.name for path in (REPOSITORY / "conf").iterdir() if path.is_dir()}
    - {"base", "accelerate"}
)
ROOTS = ("data", "data/dev", "data/openai", "data/paper/classify", "data/test")
KEYS = ("OPENAI", "AZURE_OPENAI", "GEMINI", "ANTHROPIC", "VLLM")
GROUPS = (
    "loop",
    "iteration",
    "data_synthesis",
    "fine_tuning",
    "evaluation",
    "fairness",
    "baselines",
    "coverage",
    "deployment",
)


@pytest.fixture(scope="module")
def keys():
    with pytest.MonkeyPatch.context() as environment:
        for name in KEYS:
            environment.setenv(f"{name}_API_KEY", f"sk-{name}")
        yield


@pytest.fixture(scope="module", params=ENVIRONMENTS)
def context(request, keys):
    bootstrap_project(REPOSITORY)
    with KedroSession.create(project_path=REPOSITORY, env=request.param) as session:
        yield session.load_context()


def test_every_parameter_group_is_typed(context):
    assert all(isinstance(context.params[group], BaseModel) for group in GROUPS)


def test_every_dataset_of_every_pipeline_has_an_entry_that_can_be_made(context):
    used = {name for pipeline in pipelines.values() for name in pipeline.datasets()}
    entries = {name for name in used if not name.startswith("params:")}

    catalog = context.catalog  # made anew at each access
    for name in entries:
        dataset = catalog.get(name)
        assert dataset is not None, name
        assert not isinstance(dataset, MemoryDataset), name


def test_forgetting_knows_the_places_of_all_environments_without_credentials(monkeypatch):
    for name in KEYS:
        monkeypatch.delenv(f"{name}_API_KEY", raising=False)
    bootstrap_project(REPOSITORY)
    places = places_of(REPOSITORY)

    data = [REPOSITORY / root for root in ROOTS]
    assert places.roots >= {*data, REPOSITORY / "conf/base/prompts/judge.txt"}
    assert {ledger.folder for ledger in places.ledgers} == {root / "ledger" for root in data}
    assert {path.name for path in places.roles["tested"]} == {
        *("coverage_test.jsonl", "coverage_dev.jsonl", "coverage_holdout.jsonl"),
    }
    inputs = {path.name for path in places.inputs}
    assert inputs >= {"raw_pairs.jsonl", "coverage_train.jsonl", "human_scores.jsonl", "judge.txt"}
    assert places.made >= {"training_set.jsonl", "coverage_report.json", "baselines.json"}
    assert not places.made & inputs


def test_forgetting_knows_which_files_are_on_this_machine(tmp_path):
    bootstrap_project(REPOSITORY)
    shutil.copytree(REPOSITORY / "conf", tmp_path / "conf")
    entries = {"ready_pairs": "file:///elsewhere/pairs.csv", "raw_pairs": "s3://bucket/pairs.csv"}
    OmegaConf.save(
        {name: {"filepath": path} for name, path in entries.items()},
        tmp_path / "conf/test/catalog.yml",
    )

    places = places_of(tmp_path)

    assert Path("/elsewhere/pairs.csv") in places.roots & places.roles["ready"]
    assert places.remote == ["s3://bucket/pairs.csv"]


def test_forgetting_looks_at_what_stays_on_a_disk_beside_object_storage(tmp_path):
    bootstrap_project(REPOSITORY)
    shutil.copytree(REPOSITORY / "conf", tmp_path / "conf")
    (text,) = texts("globals", "scale.md")
    root = OmegaConf.create(text)
    OmegaConf.save({**root, "local_data": "here"}, tmp_path / "conf/test/globals.yml")

    places = places_of(tmp_path)

    assert places.remote == [root.data]
    assert {tmp_path / "here", tmp_path / "here/journal.sqlite"} <= places.roots
    assert tmp_path / "here/ledger" in [ledger.folder for ledger in places.ledgers]


def test_nobody_is_forgotten_while_a_configuration_cannot_be_read(tmp_path):
    bootstrap_project(REPOSITORY)
    shutil.copytree(REPOSITORY / "conf", tmp_path / "conf")
    (tmp_path / "conf/test/catalog.yml").write_text("coverage_train: [", encoding="utf-8")

    with pytest.raises(InputError, match=r"conf/test cannot be read.* mend it first"):
        places_of(tmp_path)


def test_the_layers_of_every_pipeline_have_an_order(context):
    """Kedro-Viz shows none of them where two are each above the other."""
    catalog = context.catalog
    for pipeline in pipelines.values():
        layers = TopologicalSorter()
        for node in pipeline.nodes:
            above, below = (
                {
                    catalog[name].metadata["kedro-viz"]["layer"]
                    for name in names
                    if not name.startswith("params:")
                }
                for names in (node.inputs, node.outputs)
            )
            for layer in below:
                layers.add(layer, *above - {layer})
        layers.prepare()


def test_the_layers_are_told_apart_by_colour(context):
    """Kedro-Viz knows colours of single entries only; a new entry takes those of its layer."""
    text = (REPOSITORY / ".viz/styles.json").read_text(encoding="utf-8")
    styles = {name: json.dumps(style) for name, style in json.loads(text).items()}
    catalog = context.catalog
    entries = {name for name in catalog if not name.startswith("param")}
    layers = {name: catalog[name].metadata["kedro-viz"]["layer"] for name in entries}

    assert styles.keys() == entries
    by_layer = {(layers[name], style) for name, style in styles.items()}
    assert len(by_layer) == len(set(layers.values())) == len(set(styles.values()))


def test_no_entry_that_holds_texts_has_a_preview_where_those_of_rows_are_off(tmp_path):
    bootstrap_project(REPOSITORY)
    shutil.copytree(REPOSITORY / "conf", tmp_path / "conf")
    given = OmegaConf.load(REPOSITORY / "conf/base/globals.yml")
    OmegaConf.save({**given, "preview_rows": False}, tmp_path / "conf/base/globals.yml")
    quoting = {"pair_audit", "fairness_audit", "training_audit", "training_report"}

    shown = {on: entries_with_a_preview(folder) for on, folder in ((1, REPOSITORY), (0, tmp_path))}

    holding = {name for name, schema in schemas_of_tables().items() if TEXTS & schema.keys()}
    assert len(holding) > 30
    assert shown[1] >= holding | quoting
    assert shown[1] - shown[0] == holding | quoting
    assert shown[0] >= {"verdict", "score_plot", "scores", "judge_prompt", "service_llm", "adapter"}


TEXTS = {"prompt", "response", "text", "row", "rejected"}
"""Columns."""


def schemas_of_tables():
    """The columns of each entry that is validated."""
    tables = {}
    for file in ("inputs", "iterations", "baselines", "coverage", "deployment"):
        entries = yaml.safe_load((REPOSITORY / f"conf/base/catalog_{file}.yml").read_text("utf-8"))
        for name, entry in entries.items():
            if validator := entry.get("validator"):
                schema = getattr(schemas, validator.rpartition(".")[2])
                tables[name] = schema.to_schema().columns
    return tables | {
        "previous_training_set": tables["training_set"],
        "previous_audit_cases": tables["audit_cases"],
    }


def entries_with_a_preview(folder):
    """By Kedro-Viz's own reading of the catalog."""
    manager = DataAccessManager()
    populate_data(manager, *load_data(folder, package_name="llamaduo", include_hooks=True))
    return {
        node.name
        for node in manager.nodes.as_list()
        if isinstance(node, DataNode)
        and node.is_preview_enabled()
        and hasattr(node.kedro_obj, "preview")
    }


def test_no_entry_is_left_over(context):
    used = {name for pipeline in pipelines.values() for name in pipeline.datasets()}

    named = {name for name in context.catalog if not name.startswith("param")}

    assert named - used == set()


def test_the_default_pipeline_is_the_whole_loop(context):
    assert is_whole_loop(pipelines["__default__"], context.params["loop"])
    assert (
        pipelines["__default__"].node_dependencies
        == (
            pipelines["data_synthesis"] + pipelines["fine_tuning"] + pipelines["evaluation"]
        ).node_dependencies
    )


def test_every_node_has_one_output(context):
    assert all(len(node.outputs) == 1 for node in pipelines["__default__"].nodes)


def test_only_screening_and_the_confirmation_read_the_holdout(context):
    screening = {"screen_coverage", "screen_pairs", "extend_training_set"}
    confirmation = [
        "open_holdout",
        "answer_holdout_prompts",
        "ask_holdout_judge",
        "parse_holdout_judgements",
        "score_holdout_prompts",
        "confirm",
    ]
    holdout = {"coverage_holdout"}
    for node in pipelines["evaluation"].nodes:  # in their order
        if node.short_name in confirmation[:-1]:
            holdout |= set(node.outputs)

    readers = {
        node.short_name
        for pipeline in pipelines.values()
        for node in pipeline.nodes
        if holdout & set(node.inputs)
    }

    assert len(holdout) == len(confirmation)
    # It counts what was replaced in the requests.
    assert readers == {*screening, *confirmation, "report_privacy"}


def test_what_a_table_holds_is_validated():
    for file in ("inputs", "iterations", "baselines", "coverage"):
        text = (REPOSITORY / f"conf/base/catalog_{file}.yml").read_text(encoding="utf-8")
        for name, entry in yaml.safe_load(text).items():
            if not name.startswith("_") and "JSONLines" in entry["type"]:
                assert entry["validator"].startswith("llamaduo.schemas."), name


def asked_once(service_llm, journal):
    """The one request that an endpoint got from a service LLM, and its reply."""
    with FakeOpenAI(answer=echo) as server:
        there = replace(service_llm, base_url=server.base_url, journal=Journal(journal))
        (reply,) = there.complete_all(
            [request(1, temperature=1, response_schema={"name": "s", "schema": {}})], "test"
        )
        (exchange,) = server.served
    return exchange, reply


def test_teacher_and_judge_of_each_environment_ask_an_endpoint(context, tmp_path):
    service_llm, judge = (context.catalog.load(name) for name in ("service_llm", "judge"))

    for n, each in enumerate((service_llm, *judge.jury)):
        exchange, reply = asked_once(each, tmp_path / f"{n}.sqlite")  # none answers for another

        assert reply.text == "answer to item-1"
        assert exchange.body["model"] == each.model


def texts(kind, page="endpoints.md"):
    """The blocks of a page that are marked as being of a kind."""
    text = (REPOSITORY / "docs" / page).read_text(encoding="utf-8")
    return re.findall(rf"```yaml {kind}\n(.*?)```", text, re.DOTALL)


@pytest.fixture
def documented(tmp_path, keys):
    """Makes the catalog of an environment whose file is a text of the documentation."""
    shutil.copytree(REPOSITORY / "conf", tmp_path / "conf")
    (tmp_path / "conf/documented").mkdir()
    bootstrap_project(REPOSITORY)

    def catalog(text):
        (tmp_path / "conf/documented/catalog.yml").write_text(text, encoding="utf-8")
        source = str(tmp_path / "conf")
        with KedroSession.create(REPOSITORY, env="documented", conf_source=source) as session:
            return session.load_context().catalog

    return catalog


def test_the_documented_inference_endpoint_answers_for_the_local_llm(documented, tmp_path):
    (text,) = texts("inference")
    engine = documented(text).load("inference")

    with FakeOpenAI(answer=echo, models=[engine.server.model]) as server:
        journal = Journal(tmp_path / "journal.sqlite")
        moved = replace(engine.server, base_url=server.base_url, journal=journal)

        assert replace(engine, server=moved).check() is None


def test_the_documented_training_on_several_gpus_is_one_that_the_parameters_take(monkeypatch):
    monkeypatch.chdir(REPOSITORY)
    base = OmegaConf.load("conf/base/parameters_fine_tuning.yml").fine_tuning
    (text,) = texts("accelerate", "scale.md")

    parameters = FineTuningParameters(**{**base, **OmegaConf.create(text).fine_tuning})

    assert parameters.launcher == "accelerate"


@pytest.mark.parametrize(
    ("text", "key", "takes_schema"),
    [
        *zip(
            texts("catalog"),
            ["sk-OPENAI", "sk-AZURE_OPENAI", "sk-GEMINI", "sk-ANTHROPIC", "none", "none", "none"],
            [True, True, True, False, True, True, True],
            strict=True,
        )
    ],
    ids=["openai", "azure", "gemini", "anthropic", "vllm", "ollama", "llama.cpp"],
)
def test_each_documented_endpoint_is_asked(text, key, takes_schema, documented, tmp_path):
    ((name, entry),) = yaml.safe_load(text).items()
    loaded = documented(text).load(name)
    (service_llm,) = loaded.jury if name == "judge" else (loaded,)

    exchange, reply = asked_once(service_llm, tmp_path / "journal.sqlite")

    assert service_llm.base_url == entry["base_url"]
    assert reply.text == "answer to item-1"
    assert exchange.body["model"] == entry["model"]
    assert ("response_format" in exchange.body) == takes_schema
    assert service_llm.api_key.get_secret_value() == key


def test_the_documented_prices_are_added_to_those_that_ship(tmp_path):
    bootstrap_project(REPOSITORY)
    shutil.copytree(REPOSITORY / "conf", tmp_path / "conf")
    (text,) = texts("prices")
    (tmp_path / "conf/test/globals.yml").write_text(f"data: data/test\n{text}", encoding="utf-8")
    model = {"service_llm": {"model": "my-own-server"}, "judge": {"model": "gpt-4o"}}
    OmegaConf.save(model, tmp_path / "conf/test/catalog.yml")

    with KedroSession.create(REPOSITORY, env="test", conf_source=str(tmp_path / "conf")) as session:
        catalog = session.load_context().catalog

    assert catalog.get("service_llm").unchecked().price == Price(input=0, output=0)
    assert catalog.get("judge").unchecked().jury[0].price == Price(input=2.5, output=10)


def test_a_change_to_an_entry_that_does_not_exist_is_refused_by_name(tmp_path):
    bootstrap_project(REPOSITORY)
    shutil.copytree(REPOSITORY / "conf", tmp_path / "conf")
    OmegaConf.save({"jugde": {"model": "gpt-4.1"}}, tmp_path / "conf/test/catalog.yml")

    with (
        KedroSession.create(REPOSITORY, env="test", conf_source=str(tmp_path / "conf")) as session,
        pytest.raises(InputError, match=r"no entry jugde to change.*did you mean judge\?"),
    ):
        session.load_context()
