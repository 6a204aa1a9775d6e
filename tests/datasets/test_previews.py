"""What Kedro-Viz shows of entries that are no tables."""

import inspect
import json

import pytest
from kedro.io import AbstractDataset, Version
from kedro_datasets._typing import JSONPreview

from llamaduo.datasets import CardDataset, PageDataset

JOURNAL = {"filepath": "journal.sqlite"}
LLM = {
    "base_url": "https://user:sk-url@example.com:8443/v1?token=sk-query",
    "model": "some-model",
    "journal": JOURNAL,
    "credentials": {"api_key": "sk-key"},
}


def preview(kind, **config):
    dataset = AbstractDataset.from_config("entry", {"type": f"llamaduo.datasets.{kind}", **config})
    assert inspect.signature(dataset.preview).return_annotation is JSONPreview
    return dataset.preview()


def test_a_service_llm_shows_its_terms_and_no_key():
    shown = preview("ServiceLLMDataset", **LLM)

    assert json.loads(shown)["base_url"] == "https://example.com:8443/v1"
    assert "sk-" not in shown


def test_a_judge_shows_each_member_and_no_key():
    shown = preview("JudgeDataset", **LLM, jury={"second": {**LLM, "model": "other-model"}})

    assert [member["model"] for member in json.loads(shown)] == ["some-model", "other-model"]
    assert "sk-" not in shown


def test_inference_shows_its_engine_and_no_key():
    assert json.loads(preview("InferenceDataset", engine="transformers", journal=JOURNAL)) == {
        "engine": "transformers"
    }

    shown = preview("InferenceDataset", engine="endpoint", **LLM)

    assert json.loads(shown)["model"] == "some-model"
    assert "sk-" not in shown


def test_a_base_model_shows_what_its_folder_or_its_id_says(tmp_path):
    (tmp_path / "config.json").write_text('{"model_type": "llama"}')

    of_folder = json.loads(preview("BaseModelDataset", filepath=str(tmp_path)))
    of_hub = json.loads(preview("BaseModelDataset", model_id="some/model", load_in_4bit=True))

    assert of_folder["config"] == {"model_type": "llama"}
    assert (of_hub["name_or_path"], of_hub["load_in_4bit"]) == ("some/model", True)


def test_prompts_show_their_lines(tmp_path):
    (tmp_path / "a.txt").write_text("Täglich\n{{ case }}", encoding="utf-8")
    placeholders = {"placeholders": ["case"]}

    one = preview("PromptDataset", filepath=str(tmp_path / "a.txt"), **placeholders)
    folder = preview("PromptFolderDataset", filepath=str(tmp_path), **placeholders)

    assert json.loads(one) == ["Täglich", "{{ case }}"]
    assert json.loads(folder) == {"a": ["Täglich", "{{ case }}"]}


def test_groups_show_their_words():
    shown = preview("AuditGroupsDataset", filepath="conf/base/fairness/english.yml")

    assert "first_names" in json.loads(shown)["names"][0]


def test_checkpoints_show_what_each_training_left(tmp_path):
    (tmp_path / "a-training/checkpoint-3").mkdir(parents=True)

    assert json.loads(preview("CheckpointsDataset", filepath=str(tmp_path / "none"))) == {}
    assert json.loads(preview("CheckpointsDataset", filepath=str(tmp_path))) == {
        "a-training": ["checkpoint-3"]
    }


@pytest.mark.parametrize(
    ("kind", "name"), [(CardDataset, "card.md"), (PageDataset, "page.html")], ids=["card", "page"]
)
def test_a_card_shows_its_lines_and_a_page_its_address(kind, name, tmp_path):
    path = str(tmp_path / name)
    kind(filepath=path, version=Version(None, "v1")).save("# One\n<b>two</b>")

    shown = json.loads(kind(filepath=path, version=Version(None, None)).preview())

    address = (tmp_path / name / "v1" / name).as_uri()
    assert shown == (
        ["# One", "<b>two</b>"] if kind is CardDataset else {"open in a browser": address}
    )
