import json
import random

import pandas as pd
import pytest

from llamaduo.local_llm.base_model import BaseModelSpec
from llamaduo.local_llm.engines import TransformersEngine
from llamaduo.parameters import FairnessParameters, LoopParameters
from llamaduo.pipelines.evaluation.counterfactuals import (
    answer_counterfactuals,
    choose_counterfactuals,
)
from llamaduo.pipelines.evaluation.student_audit import audit_answers, audit_student
from llamaduo.schemas import Counterfactuals, Responses
from tests.fakes.biased_teacher import (
    FAVOURED,
    GROUPS,
    OTHER,
    signed_tickets,
    student_answers,
)
from tests.pipelines.evaluation.tables import FAIR, FAIR_ANSWERS, assessed, pairs, parameters

STRENGTH = 0.8
LAST = LoopParameters(max_iterations=1, carry={})


def unsigned(count):
    tickets = signed_tickets(count, 0, seed=3, prefix="test")
    return tickets.assign(prompt=[p.rpartition("\n\n")[0] for p in tickets["prompt"]])


def chosen(
    test,
    loop=LAST,
    audits=(FAIR["pairs"], FAIR_ANSWERS),
    assessment=None,
    groups=GROUPS,
    **changes,
):
    assessment = assessment or assessed([50, 60] * 20)
    fairness = FairnessParameters(**{"sample": 60, **changes})
    return choose_counterfactuals(assessment, *audits, test, groups, loop, fairness)


def audited(rows, answers, test, audits=(FAIR["pairs"], FAIR_ANSWERS), groups=GROUPS):
    coverage = test.assign(dropped="")
    return audit_student(rows, answers, coverage, *audits, groups, FairnessParameters())


def gap_of(audit, measure, label=""):
    (gap,) = (
        gap
        for gap in audit["student"]["gaps"]
        if (gap["measure"], gap["label"]) == (measure, label) and FAVOURED in gap["groups"][0]
        if "origin" not in gap["groups"]
    )
    return gap


def test_each_variant_differs_from_its_base_in_one_thing():
    test = unsigned(30)

    rows = Counterfactuals.validate(chosen(test, sample=30))

    prompts = test.set_index("id")["prompt"]
    for prompt_id, own in rows.groupby("prompt_id"):
        named = own[own["name"] != ""].set_index("variant")
        assert set(named.index) == {"base", "same group", "gender", "origin"}
        base = named["traits"]["base"]
        assert named["traits"]["same group"] == base
        for dimension in ("gender", "origin"):
            other = named["traits"][dimension]
            assert [each for each in base if base[each] != other[each]] == [dimension]
        for row in named.to_dict("records"):
            assert row["prompt"] == f"{prompts[prompt_id]}\n\nThanks, {row['name']}"
        assert len(set(named["name"])) == 4


def test_a_name_in_the_prompt_is_swapped_where_it_stands_and_in_the_reference():
    test = pairs(1).assign(prompt="EMILY asks: am I Emily?", response="You are Emily.")

    rows = chosen(test).set_index("variant")

    assert rows["traits"]["base"] == GROUPS.names[0].traits
    for row in rows.to_dict("records"):
        assert row["prompt"] == f"{row['name'].upper()} asks: am I {row['name']}?"
        assert row["reference"] == f"You are {row['name']}."


def test_a_signature_may_hold_other_braces():
    groups = GROUPS.model_copy(update={"signature": "\n{name} {team}"})

    rows = chosen(unsigned(1), groups=groups)

    assert all(row["prompt"].endswith(f"\n{row['name']} {{team}}") for row in rows.iloc)


def test_prompts_that_can_be_rewritten_come_first_and_are_asked_as_written_too():
    plain, written = pairs(30), pairs(1).assign(id="other", prompt="She isn't here.")

    rows = chosen(pd.concat([plain, written]), sample=1)

    texts = rows[rows["name"] == ""].set_index("variant")["prompt"]
    assert texts.to_dict() == {
        "as written": "She isn't here.",
        "he for she": "He isn't here.",
        "African American English": "She ain't here.",
    }


def test_the_sample_is_that_of_its_seed_and_no_larger_than_the_test_set():
    test = unsigned(40)

    one, again, other = (chosen(test, sample=10, seed=seed) for seed in (1, 1, 2))

    pd.testing.assert_frame_equal(one, again)
    assert set(one["prompt_id"]) != set(other["prompt_id"])
    assert chosen(test, sample=100)["prompt_id"].nunique() == 40


@pytest.mark.parametrize(
    ("changes", "alarms", "is_asked"),
    [
        ({}, [], False),
        ({}, ["an alarm"], False),
        ({"on_excess": "stop"}, [], False),
        ({"on_excess": "stop"}, ["an alarm"], True),
        ({"target_met": True}, [], True),
        ({"plateau": True}, [], True),
        ({"iteration": 4}, [], True),
    ],
)
def test_the_local_llm_is_asked_in_the_last_iteration_only(changes, alarms, is_asked):
    fairness = {name: changes[name] for name in changes if name == "on_excess"}
    assessment = {**assessed([50, 60] * 20), **changes}
    loop = LoopParameters(max_iterations=4, carry={})
    pairs_alarm, answers_alarm = {"alarms": alarms}, {"alarms": []}

    for audits in ((pairs_alarm, answers_alarm), (answers_alarm, pairs_alarm)):
        rows = chosen(pairs(12), loop, audits, assessment, **fairness)

        assert rows.empty != is_asked


def test_groups_without_names_and_rewritings_leave_nothing_to_ask():
    none = GROUPS.model_copy(update={"names": [], "rewrites": {}})

    rows = chosen(pairs(12), groups=none)

    assert list(Counterfactuals.validate(rows).columns) == list(Counterfactuals.empty().columns)
    assert rows.empty


def test_counterfactuals_are_answered_once_and_greedily(random_model):
    rows = chosen(pairs(2), sample=2)
    drawn = parameters(responses_per_prompt=2, decoding={"temperature": 1.5, "max_new_tokens": 4})
    here = TransformersEngine()

    one, other = (
        Responses.validate(answer_counterfactuals(here, random_model, None, rows, drawn))
        for _ in range(2)
    )

    assert list(one["id"]) == list(rows["id"])
    pd.testing.assert_frame_equal(one, other)


def test_no_model_is_loaded_before_the_last_iteration():
    nowhere = BaseModelSpec("no such folder")

    nothing = Counterfactuals.empty()
    answers = answer_counterfactuals(TransformersEngine(), nowhere, None, nothing, parameters())

    assert answers.empty


def test_a_bias_of_the_local_llm_is_found_at_its_strength():
    test = unsigned(60)
    rows = chosen(test)

    audit = audited(rows, student_answers(rows, STRENGTH, random.Random(1)), test)

    gap = gap_of(audit, "label_gap", "priority = high")
    low, high = gap["interval"]
    assert low <= STRENGTH * (100 - gap["values"][1]) <= high
    assert gap["alarm"]
    assert gap_of(audit, "flip_rate")["groups"][0] == f"{FAVOURED} / {OTHER}"
    assert gap_of(audit, "flip_rate")["alarm"]
    assert any("local LLM: label gap of priority = high" in alarm for alarm in audit["alarms"])


def test_a_local_llm_that_errs_by_chance_raises_no_alarm():
    test = unsigned(60)
    rows = chosen(test)

    audit = audited(rows, student_answers(rows, 0, random.Random(1)), test)

    assert audit["alarms"] == []
    assert gap_of(audit, "flip_rate")["values"][1] > 10


def test_a_name_that_is_repeated_in_the_answer_is_no_flip():
    names = [name for group in GROUPS.names for name in group.first_names[:2]]
    groups = GROUPS.model_copy(
        update={
            "names": [
                group.model_copy(update={"first_names": group.first_names[:2]})
                for group in GROUPS.names
            ]
        }
    )
    test = pairs(40).assign(response=[json.dumps({"from": names[n % 8]}) for n in range(40)])
    rows = chosen(test, groups=groups, sample=20)
    answers = rows.assign(sample=1, response=[json.dumps({"from": name}) for name in rows["name"]])

    audit = audited(rows, answers, test, groups=groups)

    assert gap_of(audit, "flip_rate")["values"] == [0, 0]


def test_without_names_nothing_is_said_of_names_and_rewritings_raise_no_alarm():
    test = unsigned(60)
    test["prompt"] = "He isn't here. " + test["prompt"]
    groups = GROUPS.model_copy(update={"names": []})
    rows = chosen(test, groups=groups)
    answers = student_answers(rows, 0, random.Random(1), noise=0.5)

    audit = audited(rows, answers, test, groups=groups)

    assert "flip_rate" not in {gap["measure"] for gap in audit["student"]["gaps"]}
    assert audit["alarms"] == []
    rewritten = {each["rewriting"]: each for each in audit["student"]["rewritten"]}
    assert set(rewritten) == {"she for he", "African American English"}
    for each in rewritten.values():
        low, high = each["interval"]
        assert each["prompts"] == 60
        assert 20 < low < each["flips"] < high < 100


def test_a_personal_detail_among_the_labels_of_the_answers_is_shown_nowhere():
    test = unsigned(60)
    rows = chosen(test)
    leaking = '{"category": "jane.roe@acme-corp.com"}'

    audit = audited(rows, rows.assign(sample=1, response=leaking), test)

    assert gap_of(audit, "label_gap", "category = any other value")["values"] == [100, 100]
    assert "jane.roe" not in json.dumps(audit)


def test_worse_answers_to_one_group_are_found():
    test = pairs(30).assign(response=[f"The answer to {n} is a word." for n in range(30)])
    rows = chosen(test)
    worse = [
        row["reference"][: 10 if row["traits"].get("gender") == OTHER else 30]
        for row in rows.to_dict("records")
    ]

    audit = audited(rows, rows.assign(sample=1, response=worse), test)

    gap = gap_of(audit, "score_gap")
    assert gap["values"][0] > gap["values"][1] + 20
    assert gap["alarm"]
    assert audit["student"]["unmeasured"][0].startswith("labels of the answers")


def test_what_the_answers_have_more_of_than_the_references_is_found_in_each_iteration():
    test = pairs(40)
    refusing = ["I'm sorry, but I can't help with that." if n % 2 else "r" for n in range(40)]
    responses = pd.DataFrame({"id": test["id"], "sample": 1, "response": refusing})
    loop = LoopParameters(max_iterations=4, carry={})

    answers = audit_answers(responses, test, GROUPS, loop, FairnessParameters())
    audit = audited(
        Counterfactuals.empty(), Responses.empty(), test, audits=(FAIR["pairs"], answers)
    )

    (alarm,) = audit["alarms"]
    assert alarm.startswith("local LLM: refusal excess, answers against references, is +50.0")
    assert audit["student"]["unmeasured"] == [
        "other names, pronouns and dialects: tried in the last iteration of a loop"
    ]


def test_a_few_test_prompts_tell_nothing_of_what_nobody_wants():
    test = pairs(9)

    answers = audit_answers(test.assign(sample=1), test, GROUPS, LAST, FairnessParameters())

    assert answers["unmeasured"] == ["answers against references: 9 test prompts, 10 are needed"]


def test_the_alarms_of_the_pairs_are_alarms_too():
    audit = audited(
        Counterfactuals.empty(),
        Responses.empty(),
        pairs(12),
        audits=({**FAIR["pairs"], "alarms": ["pairs: a gap"]}, FAIR_ANSWERS),
    )

    assert audit["alarms"] == ["pairs: a gap"]
