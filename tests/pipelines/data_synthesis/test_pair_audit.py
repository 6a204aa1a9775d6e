import pandas as pd
import pytest

from llamaduo.fairness import (
    FEWEST,
)
from llamaduo.labels import OTHER_VALUE
from llamaduo.parameters import FairnessParameters, LoopParameters
from llamaduo.pipelines.data_synthesis.balancing import balance_pairs
from llamaduo.pipelines.data_synthesis.pair_audit import audit_pairs
from llamaduo.schemas import BalancedPairs, SelectedPairs
from tests.fakes.biased_teacher import FAVOURED, GROUPS, OTHER, signed_tickets

STRENGTH = 0.6
SEEDS = 60
LOOP = LoopParameters(max_iterations=4, carry={})
OF_NEW = {
    "origin": "synthetic",
    "teacher": "gpt-4o",
    "model": "gpt-4o",
    "prompt_version": "self_instruct-1a2b3c4d",
    "score": float("nan"),
}


def coverage(count, strength=0.0):
    pairs = signed_tickets(count, strength, seed=1, prefix="train")
    return pairs.assign(licence="", source="", dropped="", filter_version="1-aabbccdd")


def new(count, strength=0.0, **columns):
    """New pairs, each from a request of its own."""
    pairs = signed_tickets(count, strength, seed=2, prefix="i002")
    pairs["request"] = range(1, count + 1)
    pairs["seed_id"] = [f"train-{n % SEEDS}" for n in range(count)]
    extra = {"licence": "", "source": "", "dropped": "", "filter_version": "1-aabbccdd"}
    extra["replaced"] = [[] for _ in pairs["id"]]
    return SelectedPairs.validate(pairs.assign(**OF_NEW, **extra).assign(**columns))


def asked(selected, turn=1):
    return pd.DataFrame({"request": selected["request"], "turn": turn})


def audited(selected, screened, previous=None, seeds=None, **changes):
    fairness = FairnessParameters(**changes)
    balanced = balance_pairs(selected, previous, screened, GROUPS, LOOP, fairness)
    BalancedPairs.validate(balanced)
    seeds = asked(selected) if seeds is None else seeds
    audit = audit_pairs(balanced, seeds, previous, screened, GROUPS, LOOP, fairness)
    return balanced, audit


def priority_gap(gaps):
    (gap,) = (g for g in gaps if g["label"] == "priority = high" and g["groups"][0] == FAVOURED)
    return gap


def test_a_planted_bias_is_found_at_its_strength():
    _, audit = audited(new(200, STRENGTH), coverage(60, STRENGTH))

    gap = priority_gap(audit["gaps"])
    low, high = gap["interval"]
    assert low <= STRENGTH * (100 - gap["values"][1]) <= high
    assert gap["alarm"]
    assert f"priority = high, {FAVOURED} against {OTHER}, is +" in audit["alarms"][0]


def test_fair_pairs_raise_no_alarm():
    _, audit = audited(new(200), coverage(60))

    assert audit["alarms"] == []
    assert len(audit["gaps"]) > 50


def test_a_bias_of_what_was_trained_on_before_is_found_too():
    _, audit = audited(SelectedPairs.empty(), coverage(60), previous=new(200, STRENGTH))

    assert priority_gap(audit["gaps"])["alarm"]


def test_with_warn_nothing_is_left_out():
    balanced, audit = audited(new(200, STRENGTH), coverage(60, STRENGTH))

    assert set(balanced["dropped"]) == {""}
    assert (len(balanced), audit["left_out"], audit["gaps_left"]) == (260, 0, [])


def test_balance_leaves_out_pairs_until_the_label_is_as_frequent_in_both_groups():
    selected, screened = new(200, STRENGTH), coverage(60, STRENGTH)

    balanced, audit = audited(selected, screened, on_excess="balance")

    left = priority_gap(audit["gaps_left"])
    dropped = balanced[balanced["dropped"] == "unbalanced"]
    assert priority_gap(audit["gaps"])["alarm"]
    assert not left["alarm"]
    assert abs(left["gap"]) < 1
    assert len(dropped) == audit["left_out"] > 50
    assert all('"priority":"high"' in response for response in dropped["response"])
    assert all(GROUPS.only_group_in(p, "gender") == FAVOURED for p in dropped["prompt"])


def test_balance_draws_the_same_pairs_each_time_and_leaves_fair_ones_alone():
    balance = FairnessParameters(on_excess="balance")

    one, other, fair = (
        balance_pairs(new(160, strength), None, coverage(20), GROUPS, LOOP, balance)
        for strength in (STRENGTH, STRENGTH, 0)
    )

    pd.testing.assert_frame_equal(one, other)
    assert set(one["dropped"]) == {"", "unbalanced"}
    assert set(fair["dropped"]) == {""}


def test_what_is_balanced_is_an_alarm_no_more_but_told():
    pairs = new(60, 0.9), coverage(60, 0.9)

    _, warned = audited(*pairs)
    balanced, audit = audited(*pairs, on_excess="balance")
    _, stopped = audited(*pairs, on_excess="stop")

    assert warned["alarms"] == stopped["alarms"] != []
    assert (warned["balanced"], stopped["balanced"]) == ([], [])
    assert audit["alarms"] == []
    assert audit["balanced"] == warned["alarms"]
    assert set(balanced.loc[balanced["dropped"] != "", "origin"]) == {"coverage", "synthetic"}


def test_balance_leaves_an_alarm_that_it_cannot_mend():
    selected = new(60, 0.9)
    selected.loc[::4, "response"] = "What a fucking idiot."

    _, audit = audited(selected, coverage(60, 0.9), on_excess="balance")

    assert any("toxic excess" in alarm for alarm in audit["alarms"])
    assert not any("priority = high, female" in alarm for alarm in audit["alarms"])
    assert any("priority = high, female" in text for text in audit["balanced"])


def test_a_group_of_which_nothing_remains_is_measured_no_more():
    balanced, audit = audited(new(60, 1), coverage(60, 1), on_excess="balance")

    kept = balanced.loc[balanced["dropped"] == "", "prompt"]
    assert {GROUPS.only_group_in(prompt, "gender") for prompt in kept} == {OTHER}
    assert audit["alarms"] == []
    assert any(
        text.startswith(
            f"after balancing, labels, {FAVOURED} against {OTHER}: the prompts of 0 and"
        )
        for text in audit["unmeasured"]
    )


@pytest.mark.parametrize(("strength", "is_dropped"), [(0, False), (STRENGTH, True)])
def test_balance_leaves_out_what_is_new_and_unfair_for_no_bias_of_before(strength, is_dropped):
    previous, selected = new(200, STRENGTH), new(60, strength)
    selected["id"] = [f"i003-{n}" for n in range(60)]

    balanced, audit = audited(selected, coverage(SEEDS), previous, on_excess="balance")

    dropped = balanced[balanced["dropped"] == "unbalanced"]
    assert bool(len(dropped)) == is_dropped
    assert len(dropped) < 40
    assert priority_gap(audit["gaps_left"] or audit["gaps"])["alarm"]


def test_pairs_of_one_request_are_no_independent_evidence():
    """Ten seeds a group: all that was written from one has its name and its label."""
    selected = new(240).assign(seed_id=[f"train-{n // 8}" for n in range(240)])
    names = {FAVOURED: "Emily", OTHER: "Todd"}
    groups = [FAVOURED if n // 8 % 2 else OTHER for n in range(240)]
    selected["prompt"] = [f"Prompt {n}. Thanks, {names[group]}" for n, group in enumerate(groups)]
    selected["response"] = [
        '{"priority":"high"}' if n // 8 in range(group == OTHER, 20) else '{"priority":"low"}'
        for n, group in enumerate(groups)
    ]

    _, audit = audited(selected, coverage(SEEDS))

    assert not priority_gap(audit["gaps"])["alarm"]


def test_rows_keep_the_reason_for_which_they_were_dropped_before():
    selected = new(40, dropped=["refusal", *[""] * 39])
    left_out = coverage(60).assign(dropped=["too_long", *[""] * 59])

    balanced, _ = audited(selected, left_out)

    assert balanced["dropped"].value_counts().to_dict() == {"": 98, "too_long": 1, "refusal": 1}


def test_a_group_with_few_pairs_is_not_measured():
    _, audit = audited(SelectedPairs.empty(), coverage(FEWEST))

    assert audit["gaps"] == []
    assert [each.partition(":")[0] for each in audit["unmeasured"]] == [
        f"labels, {FAVOURED} against {OTHER}",
        "labels, European American against African American",
        "labels of new pairs against the coverage set",
        "words of new pairs against the coverage set",
    ]
    assert f"{FEWEST} of each are needed" in audit["unmeasured"][0]


def test_free_text_has_no_labels_to_measure():
    free = [f"Sentence number {n}." for n in range(60)]

    _, audit = audited(new(60, response=free), coverage(60).assign(response=free))

    (unmeasured,) = audit["unmeasured"]
    assert unmeasured.startswith("labels: no field of the coverage set's responses has few values")
    assert {gap["measure"] for gap in audit["gaps"]} >= {"toxic_excess", "hedge_excess"}


def test_a_label_that_the_coverage_set_lacks_is_one_label():
    screened = coverage(SEEDS).assign(response=["yes", "no"] * (SEEDS // 2))

    _, audit = audited(new(60, response=[f"Yes, {n} times." for n in range(60)]), screened)

    labels = {gap["label"] for gap in audit["gaps"] if gap["measure"] == "balance_gap"}
    assert labels == {"response = yes", "response = no", f"response = {OTHER_VALUE}"}


@pytest.mark.parametrize(
    ("measure", "response"),
    [
        ("toxic_excess", "What a fucking idiot."),
        ("stereotype_excess", "The nurse said that she would call."),
        ("refusal_excess", "I'm sorry, but I can't help with that."),
        ("hedge_excess", "Perhaps it is billing."),
    ],
)
def test_what_nobody_wants_is_found_in_new_pairs(measure, response):
    odd = [response if n % 5 == 0 else "Right." for n in range(60)]

    _, audit = audited(new(60, response=odd), coverage(60).assign(response="Right."))

    (gap,) = (gap for gap in audit["gaps"] if gap["measure"] == measure)
    assert gap["values"] == [20, 0]
    assert gap["alarm"]


def test_toxic_words_in_all_pairs_of_few_seeds_are_found():
    pairs = new(2 * SEEDS, seed_id=[f"train-{n // 2}" for n in range(2 * SEEDS)], response="Right.")
    pairs.loc[: 2 * 9 - 1, "response"] = "What a fucking idiot."

    _, audit = audited(pairs, coverage(SEEDS).assign(response="Right."))

    (gap,) = (gap for gap in audit["gaps"] if gap["measure"] == "toxic_excess")
    assert gap["gap"] == pytest.approx(15, abs=1)
    assert gap["alarm"]


def test_ready_pairs_that_leave_a_category_out_are_found():
    screened = coverage(100).assign(category=["a", "b"] * 50)
    ready = new(100, category="a", origin="ready", request=0)

    _, audit = audited(ready, screened)

    gap = next(gap for gap in audit["gaps"] if gap["label"] == "category of the pair = b")
    assert (gap["values"], gap["alarm"]) == ([0, 50], True)


def test_ready_pairs_that_state_no_category_are_compared_by_their_labels():
    ready = new(100, category="", origin="ready", request=0)

    _, audit = audited(ready, coverage(SEEDS))

    labels = [gap["label"] for gap in audit["gaps"] if gap["measure"] == "balance_gap"]
    assert "priority = high" in labels
    assert audit["alarms"] == []


def labels_like_their_seeds(screened, seed_ids):
    responses = screened.set_index("id")["response"]
    pairs = new(len(seed_ids), seed_id=seed_ids)
    return pairs.assign(response=[responses[seed_id] for seed_id in seed_ids])


def test_what_requests_are_aimed_at_is_no_bias_of_the_service_llm():
    screened = coverage(SEEDS)
    urgent = screened.loc[screened["response"].str.contains('"priority":"high"'), "id"]
    aimed = [urgent.iloc[n % len(urgent)] for n in range(120)]
    selected = labels_like_their_seeds(screened, [*screened["id"], *aimed])
    turns = [1] * SEEDS + [0] * 120

    _, audit = audited(selected, screened, seeds=asked(selected, turns))

    assert audit["alarms"] == []
    assert any(gap["measure"] == "balance_gap" for gap in audit["gaps"])


def test_a_label_that_the_service_llm_adds_to_what_it_was_shown_is_found():
    urgent = [response for response in new(400)["response"] if '"priority":"high"' in response]

    _, audit = audited(new(60, response=urgent[:60]), coverage(SEEDS))

    assert any("balance gap of priority = high" in alarm for alarm in audit["alarms"])
