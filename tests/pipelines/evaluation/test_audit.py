import hashlib
import json
from itertools import count

import numpy as np
import pandas as pd
import pytest
from pandera.errors import SchemaError

from llamaduo.parameters import IterationParameters
from llamaduo.pipelines.evaluation.audit import audit_judge
from llamaduo.pipelines.evaluation.audit_cases import (
    ANCHORS,
    CANARY_PROMPTS,
    WORTHLESS,
    ask_audited_judge,
    choose_audit_cases,
)
from llamaduo.pipelines.evaluation.judging import ask_judge, parse_judgements
from llamaduo.schemas import AuditCases, HumanScores
from llamaduo.service_llm.budget import Account
from llamaduo.service_llm.jury import Judge
from llamaduo.statistics import describe_gain
from tests.fakes.openai_server import FakeOpenAI, completion
from tests.pipelines.evaluation.tables import LOOP, MEASUREMENT, pairs, parameters
from tests.service_llm.conftest import service_at

MEASURED = {**MEASUREMENT, "judge": ["m"]}
PROMPT = "{{ nonce }}\n{{ case }}\n{{ nonce }}"


def responses(number=40):
    """Each a reference with some of its ten words replaced."""
    return pd.DataFrame(
        {
            "id": [f"test-{n}" for n in range(number)],
            "sample": 1,
            "response": [f"reference {n}{' wrong' * (1 + n % 4)}" for n in range(number)],
        }
    )


def fair(case):
    """100 for the reference, 50 and less for a response that names it, nothing for the rest."""
    if case["response"] == case["reference"]:
        return 100
    return 50 - 10 * case["response"].count("wrong") if case["reference"] in case["response"] else 0


def saying(score):
    def answer(body):
        case = json.loads(body["messages"][-1]["content"].split("\n")[1])
        value = score(case)
        return completion(json.dumps({"similarity": value, "precision": value}))

    return answer


@pytest.fixture
def audited(tmp_path):
    """Let a judge of a kind score, and audit it."""
    number = count()

    def auditing(
        score,
        human=None,
        history=None,
        cases=None,
        measurement=MEASURED,
        index=1,
        table=None,
        tests=None,
        **changes,
    ):
        evaluation, iteration = parameters(**changes), IterationParameters(index=index)
        table = responses() if table is None else table
        tests = pairs(40) if tests is None else tests
        with FakeOpenAI(answer=saying(score)) as server:
            judge = Judge((service_at(server.base_url, tmp_path / f"{next(number)}.sqlite"),))
            human = HumanScores.empty() if human is None else HumanScores.validate(human)
            chosen = AuditCases.validate(choose_audit_cases(table, tests, human, cases))
            replies = ask_judge(table, tests, PROMPT, judge, evaluation, iteration)
            audit_replies = ask_audited_judge(chosen, PROMPT, judge, evaluation, iteration)
        judgements = parse_judgements(replies)
        audit_judgements = parse_judgements(audit_replies)
        report = audit_judge(
            chosen,
            audit_judgements,
            replies,
            judgements,
            table,
            measurement,
            history,
            LOOP,
            evaluation,
        )
        (only,) = report["judges"]
        return only, report, chosen

    return auditing


def test_a_fair_judge_passes_with_each_kind_of_canary_told(audited):
    judge, _, cases = audited(fair)

    assert judge["failures"] == []
    assert judge["judged_share"] == 1
    assert judge["canaries"]["reference"] == {"similarity": 100, "precision": 100}
    for kind in (*WORTHLESS, "other_reference"):
        assert judge["canaries"][kind]["precision"] == 0
    assert cases["kind"].value_counts().to_dict() == {
        **dict.fromkeys((*WORTHLESS, "reference", "other_reference"), CANARY_PROMPTS),
        "anchor": ANCHORS,
    }
    assert judge["answered_as"] == ["m"]


@pytest.mark.parametrize(
    ("score", "failure"),
    [
        (
            lambda c: 90 if "give it 100" in c["response"] else fair(c),
            "response that is commanding",
        ),
        (lambda c: 60 if "expert" in c["response"] else fair(c), "that is flattering"),
        (lambda c: fair(c) if c["response"] else 40, "that is empty"),
        (lambda c: 0.8 * fair(c), "gives the reference itself only 80 points"),
        (lambda c: 95 if c["response"].startswith("ref") else 0, "reference of another prompt 95"),
        (
            lambda c: fair(c) if fair(c) in (0, 100) else 60,
            "gives nearly every imperfect response 60 points",
        ),
        (lambda c: fair(c) if c["response"] else "none", "has not scored these canaries: empty"),
    ],
    ids=["commanded", "flattered", "empty", "harsh", "blind", "constant", "mute"],
)
def test_a_judge_that_cannot_be_relied_on_is_told_why(audited, caplog, score, failure):
    judge, _, _ = audited(score)

    assert any(failure in each for each in judge["failures"]), judge["failures"]
    assert any(failure in each.getMessage() for each in caplog.records)


PARTS = ["brake", "front light", "chain and both pedals", "saddle"]


def in_json(wrong):
    """References of three fields, and responses that have the first one wrong, or some more."""
    part = [PARTS[n % 4] for n in range(40)]
    other = [PARTS[(n + 1) % 4] for n in range(40)]
    fields = [{"part": part[n], "urgent": n % 3 == 0, "shop": f"s{n % 2}"} for n in range(40)]
    given = [
        {**fields[n], "part": other[n], **({"shop": "none"} if wrong(n) else {})} for n in range(40)
    ]
    return list(map(json.dumps, fields)), list(map(json.dumps, given))


def in_labels():
    return [PARTS[n % 4] for n in range(40)], [PARTS[(n + 1) % 4] for n in range(40)]


@pytest.mark.parametrize(
    ("texts", "doubted"),
    [
        (in_json(lambda n: False), False),
        (in_json(lambda n: n % 2), True),
        (in_labels(), False),
    ],
    ids=["one field wrong in each", "one or two fields wrong", "each label wrong"],
)
def test_one_score_for_all_is_doubted_only_where_responses_are_worth_different_ones(
    audited, texts, doubted
):
    references, given = texts
    known = dict(zip(references, given, strict=True))

    def score(case):
        if case["response"] == case["reference"]:
            return 100
        return 67 if case["response"] in known.values() else 0

    judge, _, _ = audited(
        score,
        table=responses().assign(response=given),
        tests=pairs(40).assign(response=references),
    )

    found = [each for each in judge["failures"] if "nearly every imperfect response 67" in each]
    assert bool(found) == doubted, judge["failures"]


def noisy(seed):
    """A fair judge with an error of 8 points, which depends on case and seed alone."""

    def score(case):
        digest = hashlib.sha256(f"{seed} {case}".encode()).digest()
        return float(np.clip(fair(case) + np.random.default_rng(list(digest)).normal(0, 8), 0, 100))

    return score


def entry(report, measurement=MEASURED):
    return {"judge_audit": report, "assessment": {"measured": measurement}}


@pytest.mark.parametrize(
    ("later", "drifts"),
    [
        (fair, False),
        (noisy(1), False),
        (lambda c: fair(c) + (5 if 0 < fair(c) < 100 else 0), True),
    ],
    ids=["the same", "noisy", "5 points kinder"],
)
def test_a_judge_that_moves_what_it_gave_the_same_responses_is_found(audited, later, drifts):
    _, first, cases = audited(fair)

    judge, _, frozen = audited(later, history=[entry(first)], cases=cases, index=2)

    assert frozen.equals(cases)
    assert judge["drift"]["precision"]["prompts"] == ANCHORS
    assert any("since it first judged them" in each for each in judge["failures"]) == drifts


def test_a_judge_with_another_prompt_has_not_drifted_and_is_watched_from_then_on(audited):
    kinder = lambda c: fair(c) + (5 if 0 < fair(c) < 100 else 0)  # noqa: E731
    _, first, cases = audited(fair)
    earlier = [entry(first, {**MEASURED, "judge_prompt": "old"})]

    joined, second, _ = audited(fair, history=earlier, cases=cases, index=2)
    drifted, _, _ = audited(kinder, history=[*earlier, entry(second)], cases=cases, index=3)

    assert joined["drift"]["precision"] is None
    assert any("+5.0 points since it first" in each for each in drifted["failures"])


def test_anchors_that_were_not_scored_are_no_beginning(audited):
    _, mute, cases = audited(lambda c: "none")
    _, second, _ = audited(fair, cases=cases, index=2)

    judge, _, _ = audited(fair, history=[entry(mute), entry(second)], cases=cases, index=3)

    assert judge["drift"]["precision"]["prompts"] == ANCHORS


def test_noise_alone_is_seldom_called_drift():
    """2,000 audits of 30 anchors with an error of 8 points; a loop may err in 5 %."""
    moves = np.random.default_rng(1).normal(0, 8 * 2**0.5, (2000, ANCHORS))

    p_values = [describe_gain(each)["p_value"] for each in moves]

    assert (np.array(p_values) < 0.05 / 10 / 2).mean() < 0.005


def test_the_journal_answers_no_audit_but_its_own(tmp_path):
    """A judge that has become worse since the last loop must not pass on what it said then."""
    cases = choose_audit_cases(responses(), pairs(40), HumanScores.empty(), None)
    with FakeOpenAI(answer=saying(fair)) as server:
        judge = Judge((service_at(server.base_url, tmp_path / "journal.sqlite"),))
        asked = []
        for loop, index in (("a", 1), ("a", 1), ("a", 2), ("b", 1)):
            iteration = IterationParameters(index=index, account=Account(name=loop))
            ask_audited_judge(cases, PROMPT, judge, parameters(), iteration)
            asked.append(len(server.asked()))

    assert asked[1] == asked[0]
    assert asked[3] - asked[2] == asked[2] - asked[1] == asked[0]


def human_scores(shift):
    rows = [
        {
            "system": "",
            "prompt": f"h{n}",
            "reference": "right",
            "response": "right" + "?" * (n % 4),
            "precision": v,
        }
        for n, v in enumerate(np.linspace(0, 100, 40))
    ]
    table = pd.DataFrame(rows)
    known = [fair(row) for row in rows]
    return table.assign(precision=np.clip(np.array(known) + shift, 0, 100))


def test_the_judge_is_measured_by_people_where_they_have_scored(audited):
    agreeing, _, _ = audited(fair, human=human_scores(0))
    harsher, _, _ = audited(fair, human=human_scores(-20))

    assert agreeing["human"]["precision"]["spearman"] == 1
    assert agreeing["human"]["precision"]["weighted_kappa"] == 1
    assert agreeing["human"]["precision"]["offset"] == 0
    assert harsher["human"]["precision"]["offset"] == 20
    assert harsher["human"]["precision"]["weighted_kappa"] < 0.9
    assert agreeing["human"]["similarity"] is None


def test_people_s_cases_are_asked_for_once_and_the_others_in_each_iteration(tmp_path):
    cases = choose_audit_cases(responses(), pairs(40), human_scores(0), None)
    with FakeOpenAI(answer=saying(fair)) as server:
        judge = Judge((service_at(server.base_url, tmp_path / "journal.sqlite"),))
        asked = []
        for index in (1, 2):
            iteration = IterationParameters(index=index)
            ask_audited_judge(cases, PROMPT, judge, parameters(), iteration)
            asked.append(len(server.asked()))

    frozen = 6 * CANARY_PROMPTS - CANARY_PROMPTS + ANCHORS
    assert asked[0] <= frozen + 40
    assert asked[1] - asked[0] == asked[0] - len(set(human_scores(0)["prompt"]))


def by_repeat():
    """Noise that differs from request to request."""
    numbers = count()

    def score(case):
        return noisy(next(numbers))(case)

    return score


def test_ties_lengths_and_the_spread_within_a_response_are_told(audited):
    judge, _, _ = audited(fair)
    repeated, _, _ = audited(by_repeat(), judgements_per_response=3)

    assert judge["tie_share"] == 0.25
    assert judge["length_correlation"] < -0.9  # the more question marks, the longer and the worse
    assert judge["spread"]["precision"] is None
    assert repeated["spread"]["precision"] == pytest.approx(8, rel=0.4)


def test_scores_that_people_give_later_are_measured_by_too(audited):
    _, _, cases = audited(fair)

    judge, _, later = audited(fair, human=human_scores(0), cases=cases, index=2)

    assert judge["human"]["precision"]["cases"] == 40
    assert later[later["kind"] != "human"].reset_index(drop=True).equals(cases)


def test_people_s_rows_without_any_score_are_refused():
    unscored = human_scores(0).rename(columns={"precision": "score"})

    with pytest.raises(SchemaError, match="has_score"):
        HumanScores.validate(unscored)


def test_references_that_are_all_alike_make_no_canary_of_another_one(audited):
    fields = {f"field {n}": n for n in range(12)}
    tests = pairs(40).assign(response=[json.dumps({**fields, "id": n}) for n in range(40)])

    cases = choose_audit_cases(responses(), tests, HumanScores.empty(), None)

    assert "other_reference" not in set(cases["kind"])


def test_the_reference_of_another_prompt_is_the_one_that_is_least_alike():
    tests = pairs(3).assign(response=["red green blue", "red green white", "one two three"])

    cases = choose_audit_cases(responses(3), tests, HumanScores.empty(), None)

    other = cases[cases["kind"] == "other_reference"]
    assert list(other["response"]) == ["one two three", "one two three", "red green blue"]


def test_a_task_with_one_answer_for_all_has_no_other_reference():
    tests = pairs(10).assign(response="yes")

    cases = choose_audit_cases(responses(10), tests, HumanScores.empty(), None)

    assert "other_reference" not in set(cases["kind"])
    assert (cases["kind"] == "anchor").sum() == 10
