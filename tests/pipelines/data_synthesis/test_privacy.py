"""What trains is what was sent."""

import json
from dataclasses import replace

import pandas as pd
import pytest

from llamaduo.parameters import IterationParameters
from llamaduo.pipelines.data_synthesis.asking import ask_service_llm
from llamaduo.pipelines.data_synthesis.reading import parse_pairs
from llamaduo.pipelines.data_synthesis.screening import screen_coverage, screen_pairs
from llamaduo.pipelines.data_synthesis.seeding import choose_seeds
from llamaduo.schemas import ScreenedCoverage, ScreenedPairs
from llamaduo.service_llm.privacy import PrivacyGate, PrivacySettings
from tests.fakes.openai_server import FakeOpenAI, completion
from tests.pipelines.data_synthesis.tables import (
    FINE_TUNING,
    NO_READY_PAIRS,
    SERVICE_LLM,
    coverage,
    parameters,
    parsed,
    so_far,
)
from tests.service_llm.conftest import service_at

TEST = pd.DataFrame({"prompt": ["kept apart, write to otto@meier.fr"]})
NONE = TEST.head(0)
OFF = replace(SERVICE_LLM, gate=PrivacyGate(PrivacySettings(detect="off")))


def with_details(table):
    table.loc[0, "system"] = "You work for anna@firma.de"
    table.loc[0, "prompt"] = "please write to anna@firma.de about this matter"
    table.loc[0, "response"] = '{"contact": "ANNA@firma.de"}'
    return table


@pytest.fixture
def screened(random_model):
    def screening(service_llm=SERVICE_LLM):
        settings = (random_model, service_llm, parameters(), FINE_TUNING)
        table = screen_coverage(with_details(coverage(3)), TEST, NONE, *settings)
        return ScreenedCoverage.validate(table), settings

    return screening


def test_a_row_is_protected_as_a_whole_and_tells_what_was_replaced(screened):
    table, _ = screened()

    row = table.iloc[0]
    assert list(table["replaced"]) == [["email", "email", "email"], [], []]
    assert not table[["system", "prompt", "response"]].stack().str.contains("firma").any()
    assert json.loads(row["response"])["contact"].lower() == row["prompt"].split()[3]
    assert row["system"].split()[-1] == row["prompt"].split()[3]


def test_what_the_data_card_quotes_is_protected_too(random_model):
    rows = coverage(3).assign(source="export by anna@firma.de")

    table = screen_coverage(rows, TEST, NONE, random_model, SERVICE_LLM, parameters(), FINE_TUNING)

    assert not table["source"].str.contains("firma").any()


def test_with_privacy_off_rows_stay_as_they_are(screened):
    table, _ = screened(OFF)

    assert table["prompt"][0] == "please write to anna@firma.de about this matter"
    assert list(table["replaced"]) == [[], [], []]


def test_what_is_sent_and_what_the_new_pairs_take_over_is_what_trains(screened, tmp_path):
    table, _ = screened()
    asking = parameters(strategies={"s": 1}, pairs_per_iteration=24)
    prompts = {"s": "{{ seed }}"}
    seeds = choose_seeds(table, NO_READY_PAIRS, prompts, so_far(2), None, None, None, None, asking)
    answer = json.dumps({"pairs": [{"prompt": "p", "response": "r"}]})
    with FakeOpenAI(answer=lambda body: completion(answer)) as server:
        service = service_at(server.base_url, tmp_path / "journal.sqlite")
        replies = ask_service_llm(seeds, prompts, service, parameters(), IterationParameters())
    pairs = parse_pairs(replies, table, NO_READY_PAIRS, so_far(2), None, parameters())

    sent = {body["messages"][0]["content"] for body in server.asked()}
    pair = {name: table[name][0] for name in ("system", "prompt", "response")}
    assert json.dumps(pair, ensure_ascii=False) in sent
    assert "firma" not in "".join(sent)
    assert not any(replies["replaced"])
    of_first = pairs[pairs["seed_id"] == "train-0"]
    assert set(of_first["system"]) == {table["system"][0]}
    assert set(of_first["seed_prompt"]) == {table["prompt"][0]}


def ends_in_example(prompt, response):
    return response.endswith(("example.com", "example.org", "example.net"))


def test_the_checks_judge_what_trains(random_model):
    table = coverage(2).assign(response="write to anna@firma.de")
    settings = (
        random_model,
        SERVICE_LLM,
        parameters(check={"callable": f"{__name__}.ends_in_example"}),
    )
    rows = parsed("a fresh prompt of its own", response="write to otto@meier.fr")

    known = screen_coverage(table, TEST, NONE, *settings, FINE_TUNING)
    pairs = screen_pairs(rows, known, None, TEST, NONE, *settings, FINE_TUNING)

    assert [*known["dropped"], *pairs["dropped"]] == ["", "", ""]


def test_copies_of_test_prompts_are_found_in_the_raw_text_and_what_is_kept_is_protected(screened):
    table, settings = screened()
    rows = parsed(
        "kept apart: write to otto@meier.fr",
        "please write to anna@firma.de about this matter",
        "the number is 030/1234567, call soon",
        system=["", "You work for anna@firma.de", ""],
        response=["r", '{"contact": "ANNA@firma.de"}', "030/1234567"],
    )

    pairs = ScreenedPairs.validate(screen_pairs(rows, table, None, TEST, NONE, *settings))

    assert list(pairs["dropped"]) == ["near_copy_of_test", "near_duplicate", ""]
    assert list(pairs["replaced"]) == [["email"], ["email"] * 3, ["phone"] * 2]
    assert pairs["prompt"][1] == table["prompt"][0]
    assert pairs["response"][2] in pairs["prompt"][2]
    assert "1234567" not in pairs["response"][2]
