import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llamaduo.service_llm.text import fill, json_values, read_json


def read(text):
    return read_json(text, lambda value: value if "a" in value else None)


def test_placeholders_inside_the_data_stay_data():
    filled = fill("{{ a }} and {{b}}", {"a": "{{ b }} $5 {x}", "b": "{{ a }}"})

    assert filled == "{{ b }} $5 {x} and {{ a }}"


@pytest.mark.parametrize(
    "text",
    [
        '{"a": 1}',
        '```json\n{"a": 1}\n```',
        '  ```\n{"a": 1}\n```  ',
        'Here it is:\n{"a": 1}\nHope this helps {user}!',
        'For example {project} and {{x}} [see 1]: {"a": 1}',
        '{"a": 1,}',
        '{"a": 1 , }\n',
        '{"a": 1} and again {"a": 1}',
        '<think>is it {"a": 2}?</think>\n{"a": 1}',
        '{"b": 2} {"a": 1}',
        '{} {"a": 1}',
    ],
)
def test_what_a_careful_reader_would_accept_is_read(text):
    assert read(text) == {"a": 1}


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ('```json\n{"a": "code ```x``` ,} ok"}\n```', {"a": "code ```x``` ,} ok"}),
        ('{"a": "quote \\" ,]"  ,}', {"a": 'quote " ,]'}),
        ('{"a": [1, 2,],}', {"a": [1, 2]}),
        ('{"a": {"a": 2}}', {"a": {"a": 2}}),
    ],
)
def test_what_stands_inside_a_string_or_an_object_stays_there(text, value):
    assert read(text) == value


@pytest.mark.parametrize(
    "text",
    [
        "",
        "the score is 90",
        "I'm sorry, I cannot judge this.",
        "[1, 2]",
        '[{"a": 1}]',
        '{"a": 1',
        '{"b": {"a": 1}, "c',
        '[{"a": 1}',
        '[{"a": 1}, {"a',
        '{"b": {"a": 1}}',
        '{"b": NaN, "c": {"a": 1}}',
        '{"a": NaN}',
        '{"a": Infinity}',
        "{'a': 1}",
        '{"a": 1, "a": 2}',
        '{"a": 1} {"a": 2}',
        '{"a": 1,,}',
        '{"a": 1 "b": 2}',
        '<think>{"a": 1}',
        '{"a":' * 100_000,
        "[" * 100_000,
        '{"' * 5_000,
    ],
)
def test_nothing_else_is_read(text):
    assert read(text) is None


@given(st.text(alphabet=st.sampled_from('{}[]",:\\ a1\n`')))
def test_no_text_makes_the_reader_fail(text):
    assert json_values(text) is None or isinstance(json_values(text), list)


@given(st.dictionaries(st.text(), st.text() | st.integers() | st.booleans(), min_size=1))
def test_an_object_is_read_as_it_was_written(value):
    assert json_values(json.dumps(value)) == [value]
