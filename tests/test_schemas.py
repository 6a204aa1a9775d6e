import pandas as pd
import pytest
from pandera.errors import SchemaErrors

from llamaduo import schemas
from llamaduo.schemas import CoveragePairs, Table

TABLES = [t for t in vars(schemas).values() if isinstance(t, type) and issubclass(t, Table)]


@pytest.mark.parametrize(
    "table", [t for t in TABLES if t is not Table and not issubclass(t, CoveragePairs)]
)
def test_an_empty_file_has_the_columns_of_its_table(table):
    validated = table.validate(pd.DataFrame())

    assert list(validated.columns) == list(table.to_schema().columns)
    assert validated.empty


def test_a_coverage_set_gets_its_optional_columns():
    frame = pd.DataFrame({"id": [7], "prompt": ["p"], "response": [1], "licence": ["mine"]})

    (row,) = CoveragePairs.validate(frame).to_dict("records")

    assert row == {
        "id": "7",
        "prompt": "p",
        "response": "1",
        "licence": "mine",
        "category": "",
        "system": "",
        "source": "",
    }


@pytest.mark.parametrize("value", [{"k": True}, ["turn", "turn"], True, 1.50])
def test_what_is_no_text_is_refused_and_never_respelled(value):
    frame = pd.DataFrame({"id": ["a"], "prompt": ["p"], "response": [value]})

    with pytest.raises((ValueError, SchemaErrors), match="row 1: column response holds"):
        CoveragePairs.validate(frame, lazy=True)


def test_text_may_begin_with_white_space_but_not_be_of_it_alone():
    frame = pd.DataFrame({"id": ["a"], "prompt": ["\n p"], "response": ["\u3000r"]})

    assert CoveragePairs.validate(frame)["prompt"][0] == "\n p"
    with pytest.raises(SchemaErrors, match="str_matches"):
        CoveragePairs.validate(frame.assign(response=" \n"), lazy=True)
