"""Files as people have them: each bad row is named, and every other is read, before any request."""

import gzip
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from datasets import Dataset, DatasetDict
from kedro.io import DataCatalog, DatasetError, MemoryDataset
from kedro.runner import SequentialRunner

from llamaduo.errors import InputError
from llamaduo.local_llm.base_model import BaseModelSpec, load_tokenizer
from llamaduo.parameters import CoverageParameters, FineTuningParameters
from llamaduo.pipelines.coverage import create_pipeline

REPOSITORY = Path(__file__).parents[2]
CASES = yaml.safe_load(Path(__file__).with_name("messy_files.yml").read_text(encoding="utf-8"))
PLACEHOLDERS = {
    "<long>": "long " * 100_000,
    "<cell>": "x" * 500_000,
    "<deep>": "[" * 100_000 + "]" * 100_000,
}


def write(case, folder):
    """Write the case's file or folder, and give its path."""
    name = case.get("file", "raw")
    path = folder / name
    for file, content in case.get("files", {}).items():
        write_text(path / file, content)
    if name == "raw" and "rows" in case:
        DatasetDict({"train": Dataset.from_list(case["rows"])}).save_to_disk(path)
    elif "rows" in case:
        pq.write_table(pa.Table.from_pylist(case["rows"]), path)
    elif "content" in case:
        write_text(path, case["content"], case.get("encoding", "utf-8"))
    return name


def write_text(path, content, encoding="utf-8"):
    for placeholder, text in PLACEHOLDERS.items():
        content = content.replace(placeholder, text)
    path.parent.mkdir(parents=True, exist_ok=True)
    whole = content.encode(encoding)
    packed = path.suffix == ".gz" and not whole.startswith(b"\x1f\x8b")
    path.write_bytes(gzip.compress(whole) if packed else whole)


@pytest.fixture(scope="module")
def base_model():
    model = BaseModelSpec(str(REPOSITORY / "data/06_models/random-2-layer"))
    load_tokenizer(model)  # imports what is slow to import
    return model


@pytest.fixture
def run(base_model, tmp_path, monkeypatch):
    """Runs the pipeline up to the pairs with the project's own catalog, in an empty folder."""
    monkeypatch.chdir(tmp_path)
    text = (REPOSITORY / "conf/base/catalog_coverage.yml").read_text(encoding="utf-8")
    entries = yaml.safe_load(text.replace("${globals:data}", "data"))

    def run(case, **coverage):
        entry = {"filepath": write(case, tmp_path), **case.get("entry", {})}
        config = {name: each for name, each in entries.items() if not name.startswith("_")}
        catalog = DataCatalog.from_config({**config, "raw_pairs": config["raw_pairs"] | entry})
        catalog["base_model"] = MemoryDataset(base_model)
        parameters = CoverageParameters(**{**case.get("coverage", {}), **coverage})
        catalog["params:coverage"] = MemoryDataset(parameters)
        fine_tuning = FineTuningParameters(start="base", learning_rate=1, epochs=1)
        catalog["params:fine_tuning"] = MemoryDataset(fine_tuning)
        SequentialRunner().run(create_pipeline().to_outputs("coverage_pairs"), catalog)
        return catalog

    return run


def find(names):
    return [case for case in CASES if names in case]


@pytest.mark.timeout(5, func_only=True)
@pytest.mark.parametrize("case", find("pairs"), ids=lambda case: case["name"])
def test_bad_rows_are_named_and_all_others_are_read(case, run):
    catalog = run(case, on_bad_rows="drop")

    checked = catalog.load("checked_rows")
    name = case.get("file", "raw")
    bad = [
        f"{row['file']}:{row['line']}:{field}".removeprefix(f"{name}:")
        for row in checked.to_dict("records")
        for field, _ in row["problems"]
    ]
    assert bad == case.get("bad", [])
    pairs = catalog.load("coverage_pairs")
    assert len(pairs) == case["pairs"]
    assert set(case.get("texts", [])) <= set(pairs.to_numpy().ravel())
    assert {each.name for each in Path().iterdir()} == {name, "data"}


@pytest.mark.timeout(5, func_only=True)
@pytest.mark.parametrize("case", find("bad"), ids=lambda case: case["name"])
def test_one_message_has_every_bad_row_and_their_count(case, run):
    with pytest.raises(InputError) as caught:
        run(case)

    message = str(caught.value)
    rows = {place.rsplit(":", 1)[0] for place in case["bad"]}
    assert message.startswith(f"{len(rows)} of ")
    name = case.get("file", "raw")
    for place in case["bad"]:
        assert (place if place.startswith("raw/") else f"{name}:{place}") + ": " in message


@pytest.mark.timeout(5, func_only=True)
@pytest.mark.parametrize("case", find("refused"), ids=lambda case: case["name"])
def test_a_file_that_cannot_be_read_at_all_is_refused_by_one_sentence(case, run):
    with pytest.raises((DatasetError, InputError)) as caught:
        run(case, on_bad_rows="drop")

    assert case["refused"] in str(caught.value)
    assert str(caught.value).count("row: ") <= 1


def test_there_are_forty_files():
    assert len(CASES) >= 40


def test_the_pipeline_has_no_service_llm_to_send_requests_to():
    assert not create_pipeline().inputs() & {"service_llm", "judge"}
