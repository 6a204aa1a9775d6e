from itertools import product

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rapidfuzz.distance import LCSseq

from llamaduo.near_duplicates import NearDuplicates, Quotations, Reserved, Tokenizer, similarity


def test_the_similarity_is_rouge_l():
    rng = np.random.default_rng(3)
    texts = [" ".join(rng.choice(list("abcdefgh"), size=rng.integers(3, 12))) for _ in range(20)]
    tokenizer = Tokenizer(texts)
    lists = [tokenizer.tokens(text) for text in texts]

    for a, b in product(lists, lists):
        f1 = 2 * LCSseq.similarity(a, b) / (len(a) + len(b))
        assert similarity(a, b) == pytest.approx(f1)


def test_all_near_duplicates_of_a_text_are_found_in_the_order_of_adding():
    texts = ["one two three four", "five six seven eight", "one two three", "two three four"]
    tokenizer = Tokenizer()
    known = NearDuplicates(0.7, map(tokenizer.tokens, texts))

    assert known.of(tokenizer.tokens("one, two, three, four!")) == [0, 2, 3]
    assert known.of(tokenizer.tokens("nine ten")) == []


INSTRUCTION = "Please sort the following support ticket into exactly one of the eight categories"
TICKETS = [f"ticket{n} about{n} thing{n} number{n}" for n in range(24)]


def own_words(text, *samples):
    return len(Tokenizer(*samples).tokens(text))


@pytest.mark.parametrize(
    "template",
    [
        f"{INSTRUCTION}: {{}}",
        f"{{}} {INSTRUCTION}.",
        f"Ticket 17. {INSTRUCTION}: {{}} Answer with one single JSON object.",
    ],
    ids=["before", "after", "around"],
)
def test_what_most_prompts_share_is_no_part_of_them(template):
    prompts = [template.format(ticket) for ticket in TICKETS]

    assert own_words(prompts[0], [*prompts, "An odd prompt among them."]) <= 6


def test_a_reworded_word_hides_nothing_but_itself():
    prompts = [f"{INSTRUCTION}: {ticket}" for ticket in TICKETS]

    assert own_words(prompts[0].replace("support", "help"), prompts) == 5


def test_each_category_may_have_an_instruction_of_its_own():
    instructions = {"a": INSTRUCTION, "b": "Write one line that sums this long report up", "c": ""}
    rows = [(name, f"{text}: {t}") for name, text in instructions.items() for t in TICKETS]
    pairs = pd.DataFrame(rows, columns=["category", "prompt"])

    tokenizer = Tokenizer.of_task(pairs)

    assert {len(tokenizer.tokens(text)) for text in pairs["prompt"]} == {4}


def test_a_few_prompts_that_are_alike_are_near_duplicates_and_share_no_instruction():
    alike = [f"one two three four five six {end}" for end in ("seven", "eight")]

    assert own_words(alike[0], alike) == 7


def test_a_prompt_that_is_nothing_but_the_instruction_keeps_its_words():
    prompts = [f"{INSTRUCTION}: {ticket}" for ticket in TICKETS]

    assert own_words(INSTRUCTION, prompts) == len(INSTRUCTION.split())


RESERVED = "Where is the parcel that I ordered two weeks ago?"


@pytest.mark.parametrize(
    ("text", "is_copy"),
    [
        ("where is the parcel that I ordered two weeks ago", True),
        (f"{' '.join(TICKETS[:9])} {RESERVED} {' '.join(TICKETS[9:])}", True),
        ("where is the cable that I ordered for my old lamp and who can repair the door", False),
    ],
    ids=["near-duplicate", "quoted", "neither"],
)
def test_a_reserved_text_is_found_by_itself_and_inside_another(text, is_copy):
    tokenizer = Tokenizer()
    reserved = Reserved(0.7, [tokenizer.tokens(RESERVED)])

    assert reserved.has_copy(tokenizer.tokens(text)) == is_copy


@given(st.lists(st.lists(st.integers(0, 2), max_size=24), min_size=1, max_size=6))
def test_quoted_is_a_text_of_which_four_fifths_stand_in_runs_of_another(texts):
    def covered(text, other):
        runs = {tuple(other[start : start + 6]) for start in range(len(other) - 5)}
        starts = [n for n in range(len(text) - 5) if tuple(text[n : n + 6]) in runs]
        return len({place for start in starts for place in range(start, start + 6)})

    quotations = Quotations(texts)

    for other in texts:
        assert quotations.of(other) == [
            n for n, text in enumerate(texts) if 0 < covered(text, other) >= 0.8 * len(text)
        ]
