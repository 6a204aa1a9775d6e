import json
import random

import pytest

from llamaduo.stand_in.task import (
    CATALOGUE,
    CATEGORIES,
    INSTRUCTION,
    PRIORITIES,
    answer,
    make_ticket,
)


def tickets(number, seed=1):
    rng = random.Random(seed)
    return [make_ticket(rng, CATEGORIES[i % len(CATEGORIES)]) for i in range(number)]


def test_every_label_is_one_of_the_policy_and_every_code_stands_in_the_ticket():
    for ticket in tickets(5000):
        assert ticket.category in CATEGORIES
        assert ticket.priority in PRIORITIES
        assert ticket.product in (*CATALOGUE, "none")
        assert ticket.reference == "none" or ticket.reference in ticket.text


def test_a_product_is_labelled_exactly_when_the_ticket_names_it():
    for ticket in tickets(5000):
        named = [name for name in CATALOGUE if name.lower() in ticket.text.lower()]
        assert named == ([] if ticket.product == "none" else [ticket.product])


def test_no_phrase_keeps_a_mark_of_the_grammar():
    for ticket in tickets(5000):
        assert not set("{}<>|") & set(ticket.text)


def test_the_labels_that_are_asked_for_are_kept():
    ticket = make_ticket(random.Random(3), "cancel", "low")

    assert (ticket.category, ticket.priority) == ("cancel", "low")


def test_priorities_are_near_balanced():
    priorities = [ticket.priority for ticket in tickets(3000)]

    for priority, share in PRIORITIES.items():
        assert priorities.count(priority) / 3000 == pytest.approx(share, abs=0.04)


def test_a_pair_has_the_form_of_the_coverage_set():
    pair = make_ticket(random.Random(5)).pair()

    assert pair["prompt"].startswith(INSTRUCTION + "\n")
    assert list(json.loads(pair["response"])) == ["category", "priority", "product", "reference"]
    assert ": " not in pair["response"].split('"reference"')[0]


@pytest.mark.parametrize(
    ("ticket", "labels"),
    [
        (
            "Where is my parcel ORD-5512? Please answer by tonight.",
            ("delivery", "high", "none", "ORD-5512"),
        ),
        (
            "please close my quillow account, no hurry",
            ("cancel", "low", "Quillow", "none"),
        ),
        # a stranger outweighs the lock-out
        (
            "I can't log in because someone changed my password.",
            ("security", "normal", "none", "none"),
        ),
        # the request outweighs the story
        (
            "Daybly crashes so often that I want to cancel my subscription.",
            ("cancel", "normal", "Daybly", "none"),
        ),
        # the thing is back, only money is missing
        (
            "I sent the Kettra back in May and the refund has not come. #88123",
            ("billing", "normal", "Kettra", "#88123"),
        ),
        # cannot get in at all, though the cause is a fault
        (
            "The login page shows error E-77 and nobody can sign in to Nimbra.",
            ("login", "normal", "Nimbra", "none"),
        ),
        # the moment that something happened says nothing about time
        (
            "This morning the app crashed when I opened a file!!!",
            ("bug", "normal", "none", "none"),
        ),
        ("The kettle\u2019s lid is broken, can\u2019t wait.", ("return", "high", "none", "none")),
    ],
)
def test_the_rules_answer_as_the_policy_says(ticket, labels):
    assert tuple(answer(ticket).values()) == labels


def test_the_rules_agree_with_most_labels_of_the_grammar():
    drawn = tickets(1000, seed=9)

    right = [
        answer(ticket.text)[field] == label
        for ticket in drawn
        for field, label in ticket.labels.items()
    ]

    assert sum(right) / len(right) > 0.93
