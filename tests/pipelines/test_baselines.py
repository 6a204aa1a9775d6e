import json

import pandas as pd
import pytest

from llamaduo.pipelines.baselines.nodes import answer_constantly, most_frequent_response
from llamaduo.schemas import Responses


@pytest.mark.parametrize(
    ("responses", "constant"),
    [
        (['{"a":"x","b":"1"}', '{"a":"x","b":"2"}', '{"a":"y","b":"2"}'], '{"a":"x","b":"2"}'),
        (["yes", "no", "yes"], "yes"),
        (['{"a":1}', '{"b":1}', '{"a":1}'], '{"a":1}'),
        (["1", "2", "2"], "2"),
    ],
    ids=["fields", "text", "other keys", "no objects"],
)
def test_the_constant_answer_is_right_most_often(responses, constant):
    assert most_frequent_response(responses) == constant


def test_every_prompt_gets_the_constant_answer():
    train = pd.DataFrame({"response": [json.dumps({"a": "x"})] * 2})
    test = pd.DataFrame({"id": ["t1", "t2"]})

    responses = Responses.validate(answer_constantly(train, test))

    assert list(responses["id"]) == ["t1", "t2"]
    assert set(responses["response"]) == {'{"a":"x"}'}
