import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llamaduo.service_llm.text import fill, json_object


def test_placeholders_inside_the_data_stay_data():
    filled = fill("{{ a }} and {{b}}", {"a": "{{ b }} $5 {x}", "b": "{{ a }}"})

    assert filled == "{{ b }} $5 {x} and {{ a }}"


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ('{"a": 1}', {"a": 1}),
        ('```json\n{"a": 1}\n```', {"a": 1}),
        ('  ```\n{"a": {"b": "}"}}\n```  ', {"a": {"b": "}"}}),
        ('{"a": 1', None),
        ("[1, 2]", None),
        ('{"a": NaN}', None),
        ('{"a": 1} {"a": 2}', None),
        ("the score is 90", None),
        ("", None),
    ],
)
def test_only_a_whole_json_object_is_read(text, value):
    assert json_object(text) == value


@given(st.text())
def test_no_text_makes_the_reader_fail(text):
    assert json_object(text) is None or isinstance(json_object(text), dict)


@given(st.dictionaries(st.text(), st.text() | st.integers() | st.booleans()), st.data())
def test_a_reply_that_was_cut_off_is_never_read(value, data):
    whole = json.dumps(value)
    cut = data.draw(st.integers(min_value=0, max_value=len(whole) - 1))

    assert json_object(whole) == value
    assert json_object(whole[:cut]) is None
