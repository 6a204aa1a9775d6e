import json

import pandas as pd
import pytest

from llamaduo.parameters import BaselineParameters, IterationParameters
from llamaduo.pipelines.baselines.nodes import (
    AGREEMENT,
    answer_by_service_llm,
    answer_constantly,
    gather_responses,
    judge_baselines,
    most_frequent_response,
)
from llamaduo.pipelines.evaluation.comparison import SERVICE_LLM
from llamaduo.schemas import Responses
from llamaduo.service_llm.jury import Judge
from tests.fakes.openai_server import FakeOpenAI, completion
from tests.pipelines.evaluation.tables import pairs, parameters
from tests.service_llm.conftest import service_at


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


def is_right(body):
    case = json.loads(body["messages"][-1]["content"].split("\n")[1])
    value = 100 if case["response"] == case["reference"] else 0
    return completion(json.dumps({"similarity": value, "precision": value}))


def test_the_service_llm_is_measured_by_the_references_and_by_its_own_first_answers(tmp_path):
    """Of four prompts it answers the first as the reference, and two alike both times."""
    nothing = Responses.empty()
    answers = pd.DataFrame(
        [
            ("test-0", 1, "reference 0"),
            ("test-0", 2, "other"),
            ("test-1", 1, "same"),
            ("test-1", 2, "same"),
            ("test-2", 1, "also"),
            ("test-2", 2, "also"),
            ("test-3", 2, "without a first one"),
        ],
        columns=["id", "sample", "response"],
    ).assign(tokens=1, finished=True)
    gathered = gather_responses(nothing, nothing, nothing, answers)
    prompt = "{{ nonce }}\n{{ case }}"

    with FakeOpenAI(answer=is_right) as server:
        service = service_at(server.base_url, tmp_path / "journal.sqlite")
        rows = judge_baselines(
            gathered,
            pairs(4),
            prompt,
            Judge((service,)),
            service,
            parameters(),
            IterationParameters(),
        )

    own, agreement = ({row["name"]: row for row in rows}[name] for name in (SERVICE_LLM, AGREEMENT))
    assert own["scores"]["precision"] == {"test-0": 100, "test-1": 0, "test-2": 0, "test-3": None}
    assert own["judged_share"] == 0.75
    assert agreement["scores"]["precision"] == {"test-0": 0, "test-1": 100, "test-2": 100}


def test_the_service_llm_is_not_marked_down_for_the_surrogates_that_it_was_sent(tmp_path):
    table = pairs(2).assign(prompt="who wrote: anna@firma.de", response="anna@firma.de")
    nothing, iteration = Responses.empty(), IterationParameters()

    def answer(body):
        content = body["messages"][-1]["content"]
        return is_right(body) if "\n" in content else completion(content.split()[-1])

    with FakeOpenAI(answer=answer) as server:
        service = service_at(server.base_url, tmp_path / "journal.sqlite")
        answers = answer_by_service_llm(service, table, BaselineParameters(), iteration)
        rows = judge_baselines(
            gather_responses(nothing, nothing, nothing, answers),
            table,
            "{{ nonce }}\n{{ case }}",
            Judge((service,)),
            service,
            parameters(),
            iteration,
        )

    assert [row["precision"]["mean"] for row in rows] == [100, 100]
    assert not any("firma" in str(entry.body) for entry in server.served)
