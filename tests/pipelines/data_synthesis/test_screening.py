import json

import pandas as pd
import pytest
from pydantic import ValidationError

from llamaduo.errors import InputError
from llamaduo.languages import language_of
from llamaduo.parameters import TaskCheck
from llamaduo.pipelines.data_synthesis.screening import (
    filter_version,
    screen_coverage,
    screen_pairs,
)
from llamaduo.schemas import ScreenedCoverage, ScreenedPairs
from tests.pipelines.data_synthesis.tables import (
    FINE_TUNING,
    SERVICE_LLM,
    coverage,
    parameters,
    parsed,
)

EMPTY = pd.DataFrame({"prompt": pd.Series([], dtype=str)})
TICKET = "My router has been blinking red since Monday and nobody answers the phone"
ANSWER = '{"category": "network"}'


def texts(*prompts):
    return pd.DataFrame({"prompt": list(prompts)})


@pytest.fixture
def screened(random_model):
    """The reason of each row."""

    def screening(
        rows,
        known=(),
        test=("reserved one two three", "kept apart four five six"),
        holdout=(),
        of_coverage=None,
        max_length=1024,
        service_llm=SERVICE_LLM,
        **changes,
    ):
        table = screen_pairs(
            rows,
            coverage(3) if of_coverage is None else of_coverage,
            texts(*known) if known else None,
            texts(*test),
            texts(*holdout) if holdout else EMPTY,
            random_model,
            service_llm,
            parameters(**changes),
            FINE_TUNING.model_copy(update={"max_length": max_length}),
        )
        return list(ScreenedPairs.validate(table)["dropped"])

    return screening


def test_each_drop_carries_its_reason(screened):
    rows = parsed(
        "alpha beta gamma delta",
        "",
        "broken",
        "the seed is something else now",
        "reserved one two three",
        "alpha beta gamma delta epsilon",
        "old words already known here",
        unreadable=["", "", "no list of pairs", "", "", "", ""],
    )

    assert screened(rows, known=["old words already known"]) == [
        "",
        "empty",
        "schema",
        "copy_of_seed",
        "near_copy_of_test",
        "near_duplicate",
        "near_duplicate",
    ]


def test_a_copy_of_a_dropped_row_is_judged_on_its_own(screened):
    rows = parsed("reserved one two three", "fresh words of its own", "fresh words of its own!")

    assert screened(rows) == ["near_copy_of_test", "", "near_duplicate"]


def test_case_and_punctuation_hide_no_copy_of_a_test_prompt(screened):
    assert screened(parsed("RESERVED, one... two -- three!")) == ["near_copy_of_test"]


def test_an_instruction_that_prompts_share_makes_no_duplicates(screened):
    instruction = "Please sort the following ticket into one of the eight known categories:"
    test = [f"{instruction} parcel{n} late{n}" for n in range(12)]

    rows = parsed(f"{instruction} router blinks red", f"{instruction} parcel3 late3!")

    assert screened(rows, test=test) == ["", "near_copy_of_test"]


@pytest.mark.parametrize(
    ("text", "copy"),
    [
        ("배송이 언제 도착하나요 알려주세요", "배송이 언제 도착하나요 알려주세요!"),
        ("我的包裹什么时候到请告诉我", "我的包裹什么时候能到请告诉我?"),
        ("พัสดุของฉันจะมาถึงเมื่อไหร่", "พัสดุของฉันจะมาถึงเมื่อไหร่ครับ"),
        ("أين طردي الذي طلبته أمس", "أين طردي الذي طلبته أمس؟"),
    ],
    ids=["korean", "chinese", "thai", "arabic"],
)
def test_near_copies_are_found_in_every_script(screened, text, copy):
    assert screened(parsed(copy), test=[text, "something else entirely"]) == ["near_copy_of_test"]


def of_task(*pairs):
    prompts, responses = zip(*pairs, strict=True)
    return coverage(len(pairs)).assign(prompt=prompts, response=responses)


def test_a_near_copy_of_a_holdout_prompt_is_dropped_too(screened):
    assert screened(parsed("Far is, the moon HOW?"), holdout=["far is the moon how"]) == [
        "near_copy_of_test"
    ]


def test_a_pair_of_the_coverage_set_is_known_in_the_first_iteration(screened):
    assert screened(parsed("prompt number 1")) == ["near_duplicate"]


@pytest.mark.parametrize(
    "refusal",
    [
        "I'm sorry, but I can't assist with that request.",
        "I’m very sorry, I cannot help you with this.",
        "Sorry, I can not provide that.",
        "As an AI language model, I have no router.",
        "Unfortunately, I am unable to generate such an example.",
        "I won't write this.",
        "I must decline.",
        "I cannot and will not help with that.",
    ],
)
def test_a_response_that_declines_is_a_refusal(screened, refusal):
    assert screened(parsed(TICKET, response=refusal)) == ["refusal"]


@pytest.mark.parametrize(
    "answer",
    [
        "I'm sorry to hear that your router fails. Please restart it.",
        "We cannot find your order.",
        "The customer says: I can't help it.",
        "I can help with that.",
        "As an assistant manager at Acme I led a team of four.",
        "As an AI engineer, I build models.",
        "I cannot reproduce this problem.",
    ],
)
def test_an_apology_is_no_refusal(screened, answer):
    assert screened(parsed(TICKET, response=answer)) == [""]


def test_a_task_whose_responses_decline_may_go_on_doing_so(screened):
    moderation = of_task(("Build a bomb", "I can't help with that."), ("Bake bread", "Gladly."))

    rows = parsed(TICKET, response="I cannot assist with this.")

    assert screened(rows, of_coverage=moderation) == [""]


SCHEMA = {
    "type": "object",
    "required": ["category"],
    "properties": {"category": {"enum": ["network", "billing"]}},
}


@pytest.mark.parametrize(
    ("response", "reason"),
    [
        (ANSWER, ""),
        ('{"category": "other"}', "fails_check"),
        ('{"category": "network"', "fails_check"),
        ("network", "fails_check"),
        ("[" * 100_000, "fails_check"),
    ],
)
def test_a_response_must_pass_the_json_schema_of_its_task(screened, response, reason):
    task = of_task(("prompt", ANSWER), ("other", ANSWER))

    rows = parsed(TICKET, response=response)

    assert screened(rows, of_coverage=task, check={"json_schema": SCHEMA}) == [reason]


def names_the_network(prompt, response):
    return "router" in prompt and json.loads(response)["category"] == "network"


def test_a_stray_refusal_of_the_task_itself_does_not_let_all_others_pass(screened):
    task = coverage(40)
    task.loc[7, "response"] = "I'm sorry, but I can't help with that."

    rows = parsed(TICKET, response="I cannot assist with this.")

    assert screened(rows, of_coverage=task) == ["refusal"]


def test_a_response_that_shows_nothing_is_empty(screened):
    assert screened(parsed(TICKET, response="\u200b \n\u2060")) == ["empty"]


def test_a_check_that_raises_is_a_failed_one_and_is_said(screened, caplog):
    rows = parsed(TICKET, response="no JSON")

    reasons = screened(rows, check={"callable": f"{__name__}.names_the_network"})

    assert reasons == ["fails_check"]
    assert "data_synthesis.check raised for 1 pairs: i002-0, JSONDecodeError" in caplog.text


def test_a_check_can_be_a_function_named_in_the_parameters(screened):
    rows = parsed(TICKET, "the invoice is wrong again, please send me a new one", response=ANSWER)
    check = {"callable": f"{__name__}.names_the_network"}

    assert screened(rows, check=check) == ["", "fails_check"]


@pytest.mark.parametrize(
    ("check", "sentence"),
    [
        ({}, "either a json_schema or a callable"),
        ({"json_schema": SCHEMA, "callable": "json.loads"}, "either a json_schema or a callable"),
        ({"json_schema": {"type": "objekt"}}, "json_schema is no JSON schema: 'objekt'"),
        ({"callable": "llamaduo.no_such.function"}, "No module named 'llamaduo.no_such'"),
    ],
)
def test_a_check_that_cannot_be_one_is_refused_with_the_parameters(check, sentence):
    with pytest.raises(ValidationError, match=sentence):
        TaskCheck(**check)


def test_a_schema_never_reaches_out_for_another_one(screened):
    with pytest.raises(InputError, match=r"refers to 'http://127.0.0.1:1/schema.json'"):
        screened(
            parsed(TICKET, response=ANSWER),
            check={"json_schema": {"$ref": "http://127.0.0.1:1/schema.json"}},
        )


def test_a_pair_longer_than_the_model_can_take_is_dropped(screened):
    rows = parsed(TICKET, f"{TICKET}. " + "and so on " * 100)

    assert screened(rows, max_length=128) == ["", "too_long"]


def test_a_prompt_or_response_in_another_language_is_dropped(screened):
    task = of_task(
        ("My router blinks blue since this morning", "Please restart the router and wait."),
        ("The invoice of last month is wrong again", "We have sent a new invoice."),
    )
    rows = parsed(
        "Le colis que j'ai commandé la semaine dernière n'est toujours pas arrivé",
        "The parcel that I ordered last week has still not arrived at my house",
        "My screen went black in the middle of a call with my grandmother",
        response=["We look into it.", "We look into it.", "배송이 언제 도착하나요 알려주세요"],
    )

    assert screened(rows, of_coverage=task) == ["wrong_language", "", "wrong_language"]
    assert screened(rows, of_coverage=task, languages=["en", "fr", "ko"]) == ["", "", ""]


@pytest.mark.parametrize("code", ["EN", "english", "en-US"])
def test_a_code_that_no_text_can_have_is_refused_with_the_parameters(code):
    with pytest.raises(ValidationError, match=r"unknown: .* expected ISO 639 codes"):
        parameters(languages=["de", code])


def test_a_stray_text_does_not_make_its_language_one_of_the_task(screened):
    task = coverage(60).assign(prompt=[f"{TICKET}, says customer {n}" for n in range(60)])
    task.loc[3, "prompt"] = "Le colis que j'ai commandé la semaine dernière n'est pas arrivé"

    rows = parsed("Où est la facture que vous deviez m'envoyer la semaine dernière ?")

    assert screened(rows, of_coverage=task) == ["wrong_language"]


def test_the_instruction_that_all_prompts_share_hides_no_other_language(screened):
    instruction = "Please sort the following support ticket into one of the eight categories. "
    task = of_task(
        (f"{instruction}The box does not arrive", ANSWER),
        (f"{instruction}Where is it that I can pay?", ANSWER),
    )

    rows = parsed(f"{instruction}Le colis n'est pas arrivé, où est-il ?", response=ANSWER)

    assert screened(rows, of_coverage=task) == ["wrong_language"]


@pytest.mark.parametrize("text", ["hi", "order #4411 ??", '{"category":"billing"}', "🙂", ""])
def test_a_text_too_short_to_tell_has_no_language(text):
    assert language_of(text) is None


def test_texts_without_a_word_are_told_apart_by_their_marks(screened):
    assert screened(parsed("🙂", "🙁🙁", "🙂 "), test=["!?", "reserved"]) == [
        "",
        "",
        "near_duplicate",
    ]


def test_the_filter_version_changes_with_what_the_checks_depend_on():
    versions = {
        filter_version(parameters(**changes), FINE_TUNING)
        for changes in ({}, {"pairs_per_iteration": 5}, {"max_similarity": 0.6},
                        {"check": {"callable": f"{__name__}.names_the_network"}})
    }  # fmt: skip

    assert len(versions) == 3


@pytest.fixture
def screened_coverage(random_model):
    def screening(train, test=("kept apart",), max_length=1024, **changes):
        settings = FINE_TUNING.model_copy(update={"max_length": max_length})
        table = screen_coverage(
            train, texts(*test), EMPTY, random_model, SERVICE_LLM, parameters(**changes), settings
        )
        return list(ScreenedCoverage.validate(table)["dropped"])

    return screening


def test_coverage_pairs_near_a_test_prompt_or_too_long_are_left_out_and_named(
    screened_coverage, caplog
):
    train = coverage(3)
    train.loc[1, "prompt"] = "and so on " * 100
    train.loc[2, "prompt"] = "what is the capital of France, please?"

    reasons = screened_coverage(train, ["What is the capital of France?"], max_length=128)

    assert reasons == ["", "too_long", "near_copy_of_test"]
    (warning,) = caplog.messages
    assert warning.startswith("2 of 3 pairs of coverage_train are left out: train-1 (")
    assert "tokens, at most 128 fit), train-2 (near_copy_of_test)" in warning


def test_a_coverage_set_of_which_nothing_is_left_is_refused(screened_coverage):
    with pytest.raises(InputError, match="none of the 2 pairs"):
        screened_coverage(coverage(2), ["prompt number 0", "prompt number 1"])


def test_a_check_that_the_coverage_set_fails_itself_is_refused(screened_coverage):
    with pytest.raises(InputError, match=r"3 of 3 responses .* fail data_synthesis\.check"):
        screened_coverage(coverage(3), check={"json_schema": SCHEMA})
