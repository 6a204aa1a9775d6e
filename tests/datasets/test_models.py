import json

import pytest
from kedro.io import DataCatalog, DatasetError, Version

from llamaduo.datasets import (
    AdapterDataset,
    BaseModelDataset,
    CheckpointsDataset,
    InferenceDataset,
    JudgeDataset,
    ReleaseDataset,
    ServiceLLMDataset,
)
from llamaduo.errors import InputError
from llamaduo.local_llm.engines import TransformersEngine

PRICE = {"input": 2, "output": 8}


@pytest.fixture
def trained(tmp_path):
    folder = tmp_path / "work/adapter"
    folder.mkdir(parents=True)
    (folder / "adapter_config.json").write_text("{}")
    (folder / "manifest.json").write_text('{"rows": 3}')
    return folder


def adapter(folder, version="v1"):
    return AdapterDataset(filepath=str(folder / "adapter"), version=Version(version, version))


def test_an_adapter_appears_whole_under_its_version(tmp_path, trained):
    assert not adapter(tmp_path / "data").exists()

    adapter(tmp_path / "data").save(trained)

    assert adapter(tmp_path / "data").exists()
    folder = adapter(tmp_path / "data").load()
    assert folder == tmp_path / "data/adapter/v1/adapter"
    assert sorted(path.name for path in folder.iterdir()) == [
        "adapter_config.json",
        "manifest.json",
    ]
    assert [path.name for path in folder.parent.iterdir()] == ["adapter"]


def test_an_adapter_previews_its_manifest(tmp_path, trained):
    adapter(tmp_path / "data").save(trained)

    assert json.loads(adapter(tmp_path / "data").preview()) == {"rows": 3}


def test_a_version_of_an_adapter_is_never_written_over(tmp_path, trained):
    adapter(tmp_path / "data").save(trained)

    with pytest.raises(DatasetError, match="must not exist"):
        adapter(tmp_path / "data").save(trained)


def on_objects(folder):
    return AdapterDataset(filepath=f"memory:/{folder}/adapter", version=Version("v1", "v1"))


def test_an_adapter_on_object_storage_is_read_from_a_copy_on_this_machine(tmp_path, trained):
    (trained / "checkpoint").mkdir()
    (trained / "checkpoint/weights").write_bytes(b"1")

    on_objects(tmp_path).save(trained)

    folder = on_objects(tmp_path).load()
    assert (folder / "manifest.json").read_text() == '{"rows": 3}'
    assert (folder / "checkpoint/weights").read_bytes() == b"1"
    assert on_objects(tmp_path).load() == folder  # downloaded once
    assert json.loads(on_objects(tmp_path).preview()) == {"rows": 3}
    with pytest.raises(DatasetError, match="must not exist"):
        on_objects(tmp_path).save(trained)


class Export:
    """Content that is written where it will lie, or breaks off."""

    def __init__(self, breaks_off=False):
        self.breaks_off = breaks_off

    def write(self, folder):
        folder.mkdir()
        (folder / "manifest.json").write_text('{"name": "student"}')
        if self.breaks_off:
            raise OSError(28, "No space left on device")


def release(folder, version="v1"):
    version = version and Version(version, version)
    return ReleaseDataset(filepath=str(folder / "release"), version=version)


def test_content_is_written_where_it_will_lie(tmp_path):
    release(tmp_path).save(Export())

    assert release(tmp_path).load() == tmp_path / "release/v1/release"
    assert json.loads(release(tmp_path).preview()) == {"name": "student"}


def test_content_that_breaks_off_leaves_nothing(tmp_path):
    with pytest.raises(DatasetError, match="No space left on device"):
        release(tmp_path).save(Export(breaks_off=True))

    assert not release(tmp_path).exists()
    assert not [path for path in tmp_path.rglob("*") if path.suffix == ".partial"]


def test_what_a_killed_save_has_left_goes_with_the_next_one(tmp_path):
    unfinished = tmp_path / "release/v0/.release.partial"
    unfinished.mkdir(parents=True)
    (unfinished / "manifest.json").touch()

    release(tmp_path).save(Export())

    assert not unfinished.exists()
    assert release(tmp_path, "v1").exists()


def test_a_folder_without_versions_that_is_not_empty_is_never_written_over(tmp_path):
    release(tmp_path, None).save(Export())

    with pytest.raises(DatasetError, match=r"is there already, .* never written over"):
        release(tmp_path, None).save(Export())


def test_content_goes_to_object_storage_with_its_marker_last(tmp_path):
    stored = ReleaseDataset(filepath=f"memory:/{tmp_path}/release", version=Version("v1", "v1"))

    stored.save(Export())

    assert json.loads((stored.load() / "manifest.json").read_text()) == {"name": "student"}


def test_an_adapter_whose_upload_broke_off_is_none(tmp_path, trained):
    dataset, uploaded = on_objects(tmp_path), []
    put_file = dataset._fs.put_file

    class Broken(type(dataset._fs)):
        def put_file(self, lpath, rpath, **options):
            if uploaded:
                raise OSError("no route to host")
            uploaded.append(rpath)
            put_file(lpath, rpath, **options)

    dataset._fs = Broken()
    with pytest.raises(DatasetError, match="no route to host"):
        dataset.save(trained)

    assert len(uploaded) == 1
    assert not on_objects(tmp_path).exists()
    with pytest.raises(DatasetError, match="no adapter in"):
        on_objects(tmp_path).load()


def test_what_needs_a_disk_refuses_an_url_and_says_where_to_name_a_folder():
    url, told = "s3://bucket/llamaduo/x", r"needs a disk .* local_data in .*globals\.yml"

    with pytest.raises(DatasetError, match=told):
        CheckpointsDataset(filepath=url)
    with pytest.raises(DatasetError, match=told):
        ServiceLLMDataset(base_url="stand-in", model="m", journal={"filepath": url})


def test_a_folder_without_a_model_is_refused_with_what_to_do(tmp_path):
    with pytest.raises(DatasetError, match=r"expected config\.json.*make install"):
        BaseModelDataset(filepath=str(tmp_path)).load()


def test_a_hub_id_is_handed_on_as_it_is():
    spec = BaseModelDataset(model_id="org/name", revision="abc", load_in_4bit=True).load()

    assert (spec.name_or_path, spec.revision, spec.load_in_4bit) == ("org/name", "abc", True)


def test_a_hub_id_stands_in_for_the_folder_that_an_environment_inherits():
    assert (
        BaseModelDataset(filepath="folder", model_id="org/name").load().name_or_path == "org/name"
    )


def test_a_base_model_needs_a_folder_or_a_hub_id():
    with pytest.raises(DatasetError, match="a filepath or a model_id, and this entry neither"):
        BaseModelDataset()


def service(base_url, tmp_path, **options):
    journal = {"filepath": str(tmp_path / "journal.sqlite")}
    return ServiceLLMDataset(base_url=base_url, model="m", journal=journal, **options)


@pytest.mark.parametrize("key", [None, "", "  \n"], ids=["null", "none", "blank"])
def test_an_endpoint_on_the_net_needs_a_key(tmp_path, key):
    with pytest.raises(DatasetError, match=r"api\.example\.com needs a key"):
        service("https://api.example.com/v1", tmp_path, credentials={"api_key": key}).load()


def test_an_adapter_that_is_not_there_is_named(tmp_path):
    with pytest.raises(DatasetError, match="no adapter in"):
        adapter(tmp_path / "data", "typo").load()


def test_a_base_url_without_a_scheme_is_refused(tmp_path):
    with pytest.raises(DatasetError, match="begins with http"):
        service("localhost:8000/v1", tmp_path).load()


def test_an_endpoint_on_loopback_needs_none(tmp_path):
    assert service("http://localhost:8000/v1", tmp_path).load().model == "m"


def test_a_key_is_cleaned_and_never_shown(tmp_path):
    dataset = service("https://api.example.com/v1", tmp_path, credentials={"api_key": "sk-42\n"})

    assert dataset.load().api_key.get_secret_value() == "sk-42"
    assert "sk-42" not in f"{dataset!r} {dataset.load()!r}"


@pytest.mark.parametrize("key", ["sk 42", "sk-\n42", "sk-42\u200b", "sk-4é"])
def test_a_key_that_cannot_be_one_is_refused_by_the_name_of_its_host(tmp_path, key):
    dataset = service("https://api.example.com/v1", tmp_path, credentials={"api_key": key})

    with pytest.raises(DatasetError, match=r"the api_key for api.example.com holds") as caught:
        dataset.load()
    assert key not in str(caught.value)


@pytest.mark.parametrize(
    "url", ["https://me:secret@api.example.com/v1", "https://api.example.com/v1?key=secret"]
)
def test_a_base_url_that_carries_a_secret_is_refused_without_showing_it(tmp_path, url):
    with pytest.raises(DatasetError, match=r"keys belong into credentials.yml") as caught:
        service(url, tmp_path).load()
    assert "secret" not in str(caught.value).replace("secrets", "")


def test_a_limit_that_is_misspelt_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"^limits.rpm: there is no such key; known are attempts"):
        service("https://api.example.com/v1", tmp_path, limits={"rpm": 500})


def test_a_price_is_the_model_s_own_or_unknown(tmp_path):
    prices = {"date": "2026", "source": "s", "usd_per_million_tokens": {"m": PRICE}}

    assert service("http://localhost/v1", tmp_path, prices=prices).load().price.input == 2
    other = {**prices, "usd_per_million_tokens": {"n": PRICE}}
    assert service("http://localhost/v1", tmp_path, prices=other).load().price is None


def test_the_stand_in_starts_once_and_keeps_one_name_in_the_journal(tmp_path):
    first, second = service("stand-in", tmp_path).load(), service("stand-in", tmp_path).load()

    assert first.base_url == second.base_url
    assert first.base_url.startswith("http://127.0.0.1:")
    assert first.endpoint == second.endpoint
    assert first.endpoint.startswith("stand-in-")


def jury(tmp_path, **others):
    prices = {"date": "2026", "source": "s", "usd_per_million_tokens": {"m": PRICE, "n": PRICE}}
    return JudgeDataset(
        base_url="https://api.example.com/v1",
        model="m",
        journal={"filepath": str(tmp_path / "journal.sqlite")},
        prices=prices,
        credentials={"api_key": "sk-first"},
        jury=others or None,
    )


def test_a_judge_is_one_model_or_a_jury_with_one_journal_and_price_list(tmp_path):
    local = {"base_url": "http://127.0.0.1:8000/v1", "model": "n"}

    assert jury(tmp_path).load().models == ["m"]
    judge = jury(tmp_path, second=local).load()

    assert judge.models == ["m", "n"]
    assert {member.journal.path for member in judge.jury} == {tmp_path / "journal.sqlite"}
    assert judge.jury[1].price.input == 2


def test_no_key_of_one_member_goes_to_another_one_s_endpoint(tmp_path):
    local = {"base_url": "http://127.0.0.1:8000/v1", "model": "n"}
    abroad = {"base_url": "https://api.example.org/v1", "model": "n"}

    assert jury(tmp_path, second=local).load().jury[1].api_key.get_secret_value() == "none"
    with pytest.raises(DatasetError, match=r"api\.example\.org needs a key"):
        jury(tmp_path, second=abroad).load()


def test_a_jury_that_names_a_model_twice_is_refused(tmp_path):
    twin = {"base_url": "http://127.0.0.1:8000/v1", "model": "m"}

    with pytest.raises(DatasetError, match=r"the jury names a model twice: m, m"):
        jury(tmp_path, second=twin).load()


def test_no_key_of_a_jury_is_shown(tmp_path):
    second = {"base_url": "https://api.example.org/v1", "model": "n"}
    dataset = jury(tmp_path, second={**second, "credentials": {"api_key": "sk-second"}})

    shown = f"{dataset!r} {dataset} {dataset._describe()} {dataset.load()!r}"
    assert "sk-first" not in shown
    assert "sk-second" not in shown
    assert "api.example.org" in str(dataset._describe())


def test_credentials_are_named_in_the_catalog_for_each_member(tmp_path):
    entry = {
        "type": "llamaduo.datasets.JudgeDataset",
        "base_url": "https://api.example.com/v1",
        "model": "m",
        "journal": {"filepath": str(tmp_path / "journal.sqlite")},
        "credentials": "first",
        "jury": {
            "second": {
                "base_url": "https://api.example.org/v1",
                "model": "n",
                "credentials": "second",
            }
        },
    }
    keys = {name: {"api_key": f"sk-{name}"} for name in ("first", "second")}

    judge = DataCatalog.from_config({"judge": entry}, keys).load("judge")

    assert [member.api_key.get_secret_value() for member in judge.jury] == ["sk-first", "sk-second"]


def test_personal_details_are_replaced_unless_privacy_is_off(tmp_path):
    assert service("stand-in", tmp_path).load().gate.settings.detect == "patterns"
    assert service("stand-in", tmp_path, privacy=False).load().gate.settings.detect == "off"


def test_each_member_of_a_jury_has_the_privacy_of_the_first_unless_it_says_otherwise(tmp_path):
    local = {"base_url": "http://127.0.0.1:1/v1"}
    other = {**local, "model": "other", "privacy": "patterns"}

    entry = {"base_url": "stand-in", "model": "m", "journal": {"filepath": str(tmp_path / "j")}}
    judge = JudgeDataset(**entry, privacy="off", jury={"a": {**local, "model": "n"}, "b": other})

    found = [member.gate.settings.detect for member in judge.load().jury]
    assert found == ["off", "off", "patterns"]


def test_names_cannot_be_found_without_the_extra_and_a_model(tmp_path):
    privacy = {"detect": "presidio", "model": "no_such_model"}

    with pytest.raises(DatasetError, match=r"'\.\[pii\]'|spacy download no_such_model"):
        service("stand-in", tmp_path, privacy=privacy).load()


def inference(tmp_path, engine="endpoint", **options):
    return InferenceDataset(
        engine=engine, journal={"filepath": str(tmp_path / "journal.sqlite")}, **options
    )


def test_this_process_computes_responses_or_a_server_that_is_sent_them_unchanged(tmp_path):
    there = {"base_url": "http://127.0.0.1:8000/v1", "model": "gpt-5-of-mine"}

    assert isinstance(inference(tmp_path, "transformers").load(), TransformersEngine)
    server = inference(tmp_path, **there).load().server

    assert server.gate.settings.detect == "off"
    assert server.accepts.temperature  # whatever the name recalls
    assert (server.price.input, server.price.output) == (0, 0)


@pytest.mark.parametrize(
    ("engine", "options", "said"),
    [
        ("vllm", {}, "engine: vllm with neither"),
        ("endpoint", {"model": "m"}, "engine: endpoint with model"),
        ("transformers", {"base_url": "http://me:secret@host/v1"}, "transformers with base_url"),
    ],
)
def test_an_engine_with_what_does_not_go_with_it_is_refused(tmp_path, engine, options, said):
    with pytest.raises(DatasetError, match=said) as caught:
        inference(tmp_path, engine, **options)
    assert "secret" not in str(caught.value)


def test_a_server_elsewhere_needs_a_key_which_is_never_shown(tmp_path):
    there = {"base_url": "http://gpu.example.com:8000/v1", "model": "m"}

    with pytest.raises(DatasetError, match=r"gpu\.example\.com needs a key"):
        inference(tmp_path, **there).load()
    dataset = inference(tmp_path, **there, credentials={"api_key": "sk-42"})
    assert "sk-42" not in f"{dataset!r} {dataset._describe()} {dataset.load()!r}"
