import json

import pytest

from llamaduo.parameters import IterationParameters
from llamaduo.pipelines.data_synthesis.judging import judge_pairs, read_pair_score, select_pairs
from llamaduo.schemas import PairJudgeReplies, SelectedPairs
from llamaduo.service_llm.jury import Judge
from tests.fakes.openai_server import FakeOpenAI, completion
from tests.pipelines.data_synthesis.tables import coverage, parameters, parsed
from tests.service_llm.conftest import service_at

PROMPT = "Score this: {{ case }}"
SCORES = {"bad": 20, "fair": 60, "good": 80, "best": 95}


def score(body):
    content = body["messages"][-1]["content"]
    pair = json.loads(content.removeprefix("Score this: "))
    assert pair.keys() == {"example", "prompt", "candidate"}
    assert pair["example"] == {"prompt": "prompt number 0", "response": "response 0"}
    return completion(json.dumps({"score": SCORES.get(pair["prompt"], "none")}))


@pytest.fixture
def select(tmp_path):
    """The reasons, after the judge was asked about those rows that are not dropped yet."""
    with FakeOpenAI(answer=score) as server:
        service = service_at(server.base_url, tmp_path / "journal.sqlite")

        def selecting(rows, judging, asked):
            synthesis = parameters(judging=judging)
            replies = judge_pairs(
                rows, coverage(1), PROMPT, Judge((service,)), synthesis, IterationParameters()
            )
            assert len(server.asked()) == asked
            selected = select_pairs(rows, PairJudgeReplies.validate(replies), synthesis)
            return list(SelectedPairs.validate(selected)["dropped"])

        yield selecting


def screened(*prompts, **columns):
    rows = parsed(*prompts).drop(columns=["unreadable", "seed_prompt"])
    usual = {"dropped": "", "filter_version": "1", "replaced": [[] for _ in prompts]}
    return rows.assign(**usual | columns)


def test_without_judging_nothing_is_asked_and_every_reason_stays(select):
    rows = screened("bad", "good", dropped=["", "empty"])

    assert select(rows, None, asked=0) == ["", "empty"]


def test_a_pair_under_the_least_score_is_poor(select):
    assert select(screened("bad", "good", "fair"), {"min_score": 60}, asked=3) == ["poor", "", ""]


def test_what_is_dropped_already_is_not_judged(select):
    rows = screened("good", "best", dropped=["near_duplicate", ""])

    assert select(rows, {"min_score": 60}, asked=1) == ["near_duplicate", ""]


def test_a_pair_without_a_readable_score_is_unjudged_and_not_poor(select):
    assert select(screened("odd", "good"), {"min_score": 0}, asked=2) == ["unjudged", ""]


def test_of_n_pairs_of_a_request_the_best_is_kept(select):
    rows = screened("fair", "best", "good", "good", "bad", request=[1, 1, 1, 2, 2])

    reasons = select(rows, {"min_score": 50, "best_of": 2}, asked=4)

    # Equal pairs are asked about once. Of three the two best stay, of the one that is left it.
    assert reasons == ["not_best", "", "", "", "poor"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [('{"score": 85}', 85), ('```json\n{"score": "85/100"}\n```', 85), ('{"score": 101}', None),
     ('{"score": 8', None), ("85", None), (None, None)],
)  # fmt: skip
def test_only_a_score_on_the_scale_is_read(text, expected):
    assert read_pair_score(text) == expected
