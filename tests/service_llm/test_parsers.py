"""Judge answers and pairs as models write them, and cut at every byte; 5,000 each by make soak."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llamaduo.pipelines.data_synthesis.reading import read_pairs
from llamaduo.pipelines.evaluation.judging import SCORES, read_judgement

NOTHING = dict.fromkeys(SCORES)

scores = st.integers(0, 100) | st.floats(0, 100).map(lambda value: round(value, 2))
spellings = st.sampled_from([lambda v: v, str, lambda v: f"{v}/100", lambda v: f"{v} / 100"])
prose = st.sampled_from(
    [
        "",
        "Here is my verdict for {project}:\n",
        "On a scale of 0 to 100 [see 1] I say:\n",
        '<think>Maybe 10/100? {"similarity": 1}</think>\n',
    ]
)
after = st.sampled_from(["", "\n", "\nHope this helps {user}!", "\n\n(I gave 85 points.)"])
fences = st.sampled_from(["{}", "```json\n{}\n```", "```\n{}\n```"])
storable = st.characters(exclude_categories=["Cs"], exclude_characters="\0")
texts = st.text(storable, max_size=40) | st.sampled_from(
    ["code ```x``` ok", 'a "quoted", ]', "{{ seed }} ${x}", '{"prompt": 1}', "ünï\u2028cödé 🦙"]
)


def with_trailing_commas(text):
    """Before each closing brace that ends the text."""
    body = text.rstrip("}]")
    return body + "".join("," + mark for mark in text[len(body) :])


def dressed(draw, value):
    """A value as JSON in one of the dresses in which models send it, and where its JSON ends."""
    text = json.dumps(
        value, ensure_ascii=draw(st.booleans()), indent=draw(st.sampled_from([None, 1]))
    )
    if draw(st.booleans()) and "\n" not in text:
        text = with_trailing_commas(text)
    before, fence = draw(prose), draw(fences)
    opening, closing = fence.split("{}")
    whole = f"{before}{opening}{text}{closing}{draw(after)}"
    return whole, len(before) + len(opening) + len(text)


@st.composite
def judgements(draw):
    values = {name: draw(scores) for name in SCORES}
    spelt = {name: draw(spellings)(value) for name, value in values.items()}
    extra = draw(
        st.sampled_from([{}, {"reason": "so"}, {"detail": {"similarity": 1, "precision": 1}}])
    )
    return *dressed(draw, {**extra, **spelt}), {name: float(v) for name, v in values.items()}


@st.composite
def pair_sets(draw):
    pairs = draw(st.lists(st.fixed_dictionaries({"prompt": texts, "response": texts}), max_size=4))
    return *dressed(draw, {"pairs": pairs}), pairs


def unreadable(text):
    rows = read_pairs(text)
    return rows != [] and all(row["unreadable"] for row in rows)


def cut_at_every_byte(text):
    encoded = text.encode()
    return [encoded[:length].decode(errors="replace") for length in range(len(encoded))]


@given(judgements())
def test_a_dressed_judgement_is_read_right_and_a_cut_one_never(judgement):
    whole, end, values = judgement

    assert read_judgement(whole) == values
    assert [cut for cut in cut_at_every_byte(whole[:end]) if read_judgement(cut) != NOTHING] == []


@given(pair_sets())
def test_dressed_pairs_are_read_right_and_cut_ones_never(pair_set):
    whole, end, pairs = pair_set

    read = [{name: row[name] for name in ("prompt", "response")} for row in read_pairs(whole)]
    assert read == pairs
    assert [cut for cut in cut_at_every_byte(whole[:end]) if not unreadable(cut)] == []


NO_SCORES = """
NaN Infinity -Infinity 1e999 -5 101 true null [85] {"score":85} "٨٥" "8_5" "1,0" "85%" "8/10" "-5"
"+5" "" "100.5" "nan" "0x10" "1e1"
"""
numbers = st.sampled_from(NO_SCORES.split())


@given(numbers, judgements(), st.sampled_from(SCORES))
def test_what_is_no_score_is_null(number, judgement, name):
    other = next(each for each in SCORES if each != name)
    whole = f'{{"{other}": 50, "{name}": {number}}}'

    assert read_judgement(whole) == NOTHING


@given(judgements(), st.text(max_size=10), st.data())
def test_a_mutilated_judgement_is_on_the_scale_or_null(judgement, noise, data):
    whole, *_ = judgement
    at = data.draw(st.integers(0, len(whole)))
    until = data.draw(st.integers(at, min(len(whole), at + 10)))

    read = read_judgement(whole[:at] + noise + whole[until:])

    assert read == NOTHING or all(0 <= value <= 100 for value in read.values())


@pytest.mark.parametrize("text", ['{"pairs": [' * 30_000, '{"pairs": "x"}', '{"pairs": [[1, 2]]}'])
def test_a_foreign_form_of_pairs_is_unreadable(text):
    assert unreadable(text)
