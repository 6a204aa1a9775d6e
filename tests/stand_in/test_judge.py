import json

import pytest

from llamaduo.stand_in.judge import judge

PROMPT = "Triage this support ticket as JSON.\nWhere is order ORD-1?"
REFERENCE = '{"category":"delivery","priority":"normal","product":"none","reference":"ORD-1"}'


def scores(response):
    return judge({"prompt": PROMPT, "reference": REFERENCE, "response": response})


def test_an_exact_response_has_full_scores():
    assert scores(REFERENCE) == {"similarity": 100.0, "precision": 100.0}


def test_other_spaces_and_order_cost_no_precision():
    fields = dict(reversed(json.loads(REFERENCE).items()))

    assert scores(json.dumps(fields, indent=2))["precision"] == 100.0


def test_a_wrong_field_costs_a_quarter_of_the_precision():
    # 8 of the 9 tokens are common: 2 * 8 / 18
    assert scores(REFERENCE.replace("normal", "high")) == {"similarity": 88.9, "precision": 75.0}


def test_a_missing_field_is_a_wrong_one():
    response = '{"category":"delivery","priority":"normal","product":"none"}'

    assert scores(response) == {"similarity": 80.0, "precision": 75.0}


def test_a_field_of_another_type_or_letter_case_is_wrong():
    response = REFERENCE.replace('"delivery"', '["delivery"]').replace("ORD-1", "ord-1")

    assert scores(response) == {"similarity": 100.0, "precision": 50.0}


def test_a_word_of_any_script_and_case_is_one_token():
    assert scores("Лампа")["similarity"] == 0.0
    # 2 * 1 / (9 + 1)
    assert scores("DELIVERY")["similarity"] == 20.0


def test_prose_around_the_object_costs_all_precision():
    assert scores(f"Sure, here you are: {REFERENCE}") == {"similarity": 81.8, "precision": 0.0}


@pytest.mark.parametrize(
    "response",
    [
        "",
        "delivery",
        "[" * 100_000,
        '{"category":"delivery"',
        "[" + REFERENCE + "]",
        json.dumps(REFERENCE),
        REFERENCE + REFERENCE,
        "1" * 5000,
        "null",
    ],
)
def test_what_is_no_json_object_has_no_precision(response):
    assert scores(response)["precision"] == 0.0


def test_scores_that_a_response_claims_for_itself_count_for_nothing():
    assert scores('{"similarity": 100, "precision": 100}') == {"similarity": 0.0, "precision": 0.0}


def test_an_empty_response_scores_zero():
    assert scores("") == {"similarity": 0.0, "precision": 0.0}
