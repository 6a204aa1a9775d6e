import re
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import pandas as pd
import plotly.graph_objects as go
import pytest
from pydantic import SecretStr

from llamaduo.local_llm.base_model import BaseModelSpec
from llamaduo.local_llm.engines import EndpointEngine, TransformersEngine
from llamaduo.pipelines.evaluation.assessment import per_prompt
from llamaduo.pipelines.evaluation.audit_cases import WORTHLESS
from llamaduo.pipelines.evaluation.comparison import (
    compare_baselines,
    describe_measurement,
    describe_setup,
)
from llamaduo.pipelines.evaluation.decision import confirm, reach_verdict
from llamaduo.pipelines.evaluation.plots import (
    DIVERSITY,
    plot_categories,
    plot_diversity,
    plot_scores,
)
from llamaduo.pipelines.evaluation.reports import (
    choose_worst_responses,
    report_privacy,
    write_iteration_report,
    write_loop_report,
)
from llamaduo.pipelines.evaluation.sentences import explain_verdict
from llamaduo.schemas import WorstResponses
from llamaduo.service_llm.client import ServiceLLM
from llamaduo.service_llm.jury import Judge
from llamaduo.service_llm.privacy import PrivacyGate, PrivacySettings
from tests.pipelines.evaluation.tables import (
    ALL_GOOD,
    FAIR,
    FAIRNESS,
    LOOP,
    TRAINED,
    assessed,
    pairs,
    parameters,
    scored,
)

SCRIPT = "<script>alert(1)</script><img src=x onerror=alert(2)>"
AUDITED = {
    "model": "judge",
    "answered_as": ["judge-1"],
    "judged_share": 1.0,
    "similarity": {"mean": 50.0, "standard_error": 1.0},
    "precision": {"mean": 50.0, "standard_error": 1.0},
    "spread": {"similarity": None, "precision": None},
    "canaries": {kind: {"similarity": 0.0, "precision": 0.0} for kind in WORTHLESS},
    "drift": {"similarity": None, "precision": None},
    "tie_share": 0.5,
    "length_correlation": None,
    "human": {"similarity": None, "precision": None},
    "failures": [],
}
COSTS = {
    "iteration": 1,
    "account": "the-loop",
    "usd": 1.25,
    "tokens": 12345,
    "requests": 67,
    "unpriced": [],
}
SYNTHESIS = {
    **ALL_GOOD,
    "asked": 20,
    "kept": 12,
    "dropped": {"near_duplicate": 5, "refusal": 3},
    "coverage_left_out": {"too_long": 1},
    "diversity": {"iteration": 1, **dict.fromkeys(DIVERSITY, 0.5), "strategy_entropy": None},
}

PRIVACY = {
    "service_llm": {
        "detect": "patterns",
        "coverage": {"email": 2},
        "pairs": {},
        "requests": {},
        "judge_requests": {"email": 1},
    },
    "judge": {"detect": ["patterns"], "requests": {"email": 3, "phone": 1}},
}


NONE_KEPT = {"aimed": 0, "kept": 0}


def service(name):
    return ServiceLLM("e", "u", name, SecretStr("k"), None)


def setup(judge="judge", inference=None, test=None, prompt="{{ case }}", train=None, **changes):
    measurement = describe_measurement(
        Judge((service(judge),)),
        prompt,
        inference or TransformersEngine(),
        pairs(40) if test is None else test,
        parameters(**changes),
    )
    shown = pairs(5) if train is None else train
    return BaseModelSpec("base"), service("teacher"), measurement, shown


def compared(values, known=None, **changes):
    return compare_baselines(known, *setup(**changes), scored(values))


def entry(values, confirmation=None, audit=AUDITED, audited=FAIR, trained=TRAINED, **changes):
    judge_audit = {"judges": [audit], "over_budget": 0}
    assessment = assessed(values, audit=judge_audit, trained=trained, **changes)
    return {
        "training_pairs": 60,
        "synthesis": SYNTHESIS,
        "training": trained,
        "assessment": assessment,
        "judge_audit": judge_audit,
        "costs": COSTS,
        "verdict": reach_verdict(assessment, confirmation or {}, audited, LOOP, FAIRNESS),
        "scores": per_prompt(scored(values)),
    }


def worst(prompt="p", response="r"):
    row = {"id": "test-1", "category": "a", "sample": 1, "prompt": prompt, "reference": "right"}
    row |= {"response": response, "finished": False, "similarity": 10.0, "precision": None}
    return WorstResponses.validate(pd.DataFrame([row]))


def pages(
    *entries,
    confirmation=None,
    baselines=None,
    table=None,
    synthesis=SYNTHESIS,
    audited=FAIR,
    privacy=PRIVACY,
    trained=TRAINED,
):
    history, evaluation = list(entries), parameters()
    baselines = baselines or compared([50] * 40)
    plot, diversity = plot_scores(history, baselines, evaluation), plot_diversity(history)
    iteration = write_iteration_report(
        history,
        confirmation or {},
        baselines,
        synthesis,
        audited,
        privacy,
        trained,
        worst() if table is None else table,
        plot,
        plot_categories(history[-1]["assessment"], evaluation),
        diversity,
        go.Figure(),
        evaluation,
    )
    loop = write_loop_report(
        history,
        confirmation or {},
        baselines,
        synthesis,
        audited,
        privacy,
        plot,
        diversity,
        evaluation,
    )
    return iteration, loop


class Tags(HTMLParser):
    """What a browser would make of a page."""

    def __init__(self, page):
        super().__init__()
        self.names, self.sources, self.text = [], [], ""
        self.is_code = False
        self.feed(page)

    def handle_starttag(self, tag, attributes):
        self.names.append(tag)
        self.is_code = tag in ("script", "style")
        self.sources += [v for k, v in attributes if k in ("src", "href", "onerror", "onload")]

    def handle_endtag(self, tag):
        self.is_code = False

    def handle_data(self, data):
        if not self.is_code:
            self.text += data


def text_of(page):
    return re.sub(r"\s+", " ", Tags(page).text)


def test_a_page_needs_nothing_beside_itself():
    for page in pages(entry([50] * 40)):
        assert Tags(page).sources == []
        assert "Plotly" in page


def test_what_a_model_wrote_is_text_and_nothing_else():
    hostile = entry([50] * 40, audit={**AUDITED, "model": SCRIPT, "failures": [SCRIPT]})
    hostile["assessment"]["categories"] = {
        SCRIPT: next(iter(hostile["assessment"]["categories"].values()))
    }
    harmless = pages(entry([50] * 40, audit={**AUDITED, "failures": ["x"]}))

    attacked = pages(hostile, table=worst(SCRIPT, f"</pre>{SCRIPT}</script>"))

    for page, clean in zip(attacked, harmless, strict=True):
        assert Tags(page).names == Tags(clean).names
        assert Tags(page).sources == []
    assert SCRIPT in Tags(attacked[0]).text


def test_the_sentences_say_whether_the_model_may_take_over():
    confirmation = confirm(scored([90, 91] * 20), parameters())
    reached = entry([90, 91] * 20, confirmation)

    said = " ".join(explain_verdict(reached, confirmation, compared([90] * 40), parameters()))

    assert said.startswith("Yes: on the evidence of this loop the local LLM may take over.")
    assert "On 40 test prompts its precision is 90.5 of 100, at least 90.3 with 98.75 %" in said
    assert "the target of 80 is met. On 40 holdout prompts, which steered nothing, its" in said
    assert "The loop has ended: the target is reached, and the holdout confirms it." in said


def test_a_proof_on_few_prompts_is_called_advice():
    perfect = confirm(scored([100.0] * 3), parameters())
    reached = entry([100.0] * 3, perfect)

    said = explain_verdict(reached, perfect, compared([100.0] * 3), parameters())

    assert reached["verdict"]["target_reached"]
    assert said[0].startswith("Perhaps: ")
    assert "advice and no proof: fewer than 10 prompts" in said[1]


def test_the_heading_of_advice_says_so():
    few = entry([90] * 40, min_prompts=100)

    for page in pages(few):
        assert ": the target is not reached yet (advisory: so few prompts" in text_of(page)


def test_the_score_that_misses_is_named():
    missing = entry([95.0, 96] * 20)
    missing["assessment"]["similarity"] = entry([60.0, 61] * 20)["assessment"]["similarity"]
    missing["verdict"]["target_reached"] = False

    said = explain_verdict(missing, {}, compared([50] * 40), parameters())

    assert said[0] == "No: the local LLM is not good enough yet in similarity."
    assert "similarity is 60.5 of 100" in said[1]
    assert said[1].endswith("the target of 80 is not met.")
    assert said[2].endswith("the target of 80 is met.")


@pytest.mark.parametrize(
    ("values", "beginning"),
    [
        ([50] * 40, "No: the local LLM is not good enough yet in similarity and precision."),
        ([50, 100, 100] * 13 + [100], "Not proven: on average the local LLM is over the target"),
        ([90] * 37 + [None] * 3, "No verdict: these scores cannot be relied on."),
        ([None] * 40, "No verdict"),
    ],
)
def test_the_sentences_say_what_is_missing(values, beginning):
    said = explain_verdict(entry(values), {}, compared(values), parameters())

    assert said[0].startswith(beginning)
    if None in values:
        assert "of the judgements could be read" in said[1]


def test_what_was_not_judged_is_told_in_both_reports():
    holed = entry([80.0] * 20 + [None] * 20)

    for page in pages(holed):
        assert "50.0 %" in text_of(page)
        assert "Only 50.0 % of the judgements could be read, a verdict needs 98 %." in text_of(page)


def test_a_stand_in_is_named_and_another_judge_is_not():
    baselines = compared([50] * 40, judge="stand-in-triage")

    for page in pages(entry([50] * 40), baselines=baselines):
        assert "The judge here was stand-in-triage, an embedded stand-in" in text_of(page)
        assert "The service LLM here" not in text_of(page)
    assert "stand-in" not in text_of(pages(entry([50] * 40))[0])


@pytest.mark.parametrize("judge", ["teacher", "teacher-2024-08-06", "teacher-latest"])
def test_one_model_that_teaches_and_judges_is_pointed_out(judge):
    for page in pages(entry([50] * 40), baselines=compared([50] * 40, judge=judge)):
        assert f"{judge} is both teacher and judge" in text_of(page)


@pytest.mark.parametrize("judge", ["judge", "teacher-mini", "teacher-2"])
def test_two_models_are_not_taken_for_one(judge):
    for page in pages(entry([50] * 40), baselines=compared([50] * 40, judge=judge)):
        assert "both teacher and judge" not in text_of(page)


def test_with_ready_pairs_nobody_taught():
    same = compared([50] * 40, judge="teacher")

    for page in pages(entry([50] * 40), baselines=same, synthesis={**SYNTHESIS, "ready_pairs": 9}):
        assert "both teacher and judge" not in text_of(page)


def test_the_report_counts_what_was_dropped_and_what_was_spent():
    iteration, loop = pages(entry([50] * 40))

    assert "12 of 20 asked for; dropped: 5 near_duplicate, 3 refusal." in text_of(iteration)
    for page in (iteration, loop):
        assert "neither shown nor trained on: 1 too_long." in text_of(page)
    assert "$1.25, 12,345 tokens, 67 requests" in text_of(iteration)
    assert re.search(r"iteration 1 ?the-loop ?1\.25 ?12,345 ?67", text_of(loop))


def test_the_report_says_by_category_what_was_asked_and_how_the_score_moved():
    before, after = entry([40] * 40), entry([70] * 40)
    (category,) = after["assessment"]["categories"]
    counts = {category: {"asked": 16, "aimed": 8, "kept": 15}, "rare": {"asked": 4} | NONE_KEPT}

    iteration, _ = pages(before, after, synthesis={**SYNTHESIS, "by_category": counts})

    text = text_of(iteration)
    assert f"now {category}1681540.0 ± 0.070.0 ± 0.0 rare400– ± –– ± –" in text


def test_scores_that_were_measured_otherwise_have_not_moved():
    before, after = entry([40] * 40), entry([70] * 40)
    before["assessment"]["measured"] = {**after["assessment"]["measured"], "judge": ["another"]}

    iteration, _ = pages(before, after)

    assert "70.0 ± 0.0" in text_of(iteration)
    assert "40.0 ± 0.0" not in text_of(iteration)


def test_a_first_iteration_has_no_score_that_moved():
    assert "category of the seed" not in text_of(pages(entry([40] * 40))[0])


def test_a_judge_that_failed_is_named_in_both_reports():
    failed = {**AUDITED, "failures": ["gives 95 points to a response that is commanding"]}

    for page in pages(entry([90] * 40, audit=failed)):
        assert "gives 95 points to a response that is commanding" in text_of(page)
        assert "No verdict" in text_of(page)
        assert "Iteration 1: no verdict, these scores cannot be relied on" in text_of(page)
        assert "the target of 80 is" not in text_of(page)


GAP = {
    "measure": "label_gap",
    "label": "priority = high",
    "groups": ["female", "male"],
    "cases": [40, 42],
    "values": [80.0, 30.0],
    "gap": 50.0,
    "interval": [30.0, 65.0],
    "p_value": 0.0001,
    "limit": 10,
    "adjusted_p": 0.0004,
    "level": 0.05 / 2 / 12,
    "least_significant_gap": 12.5,
    "alarm": True,
}
NARROW = {**GAP, "gap": -4.0, "label": "priority = low", "adjusted_p": None, "alarm": False}
UNFAIR = {
    "pairs": {
        "gaps": [NARROW, GAP],
        "gaps_left": [{**GAP, "gap": 2.0, "alarm": False}],
        "left_out": 17,
        "balanced": ["pairs: label gap of category = billing is +30.0"],
        "unmeasured": [],
        "alarms": [],
    },
    "student": {
        "gaps": [],
        "rewritten": [
            {"rewriting": "she for he", "prompts": 40, "flips": 12.5, "interval": [4.2, 26.8]}
        ],
        "unmeasured": ["British English: 3 test prompts"],
    },
    "alarms": ["pairs: label gap of priority = high is +50.0"],
}


def test_what_the_fairness_audit_found_is_told_with_its_strength():
    iteration, loop = pages(entry([50] * 40, audited=UNFAIR), audited=UNFAIR)

    for page in (iteration, loop):
        text = text_of(page)
        assert (
            "Fairness: 1 gap(s) over their limit and statistically significant; the first" in text
        )
        assert "significant: pairs: label gap of priority = high is +50.0." in text
        assert "No alarm any more after balancing: pairs: label gap of category = billing" in text
        assert "17 pairs are not trained on" in text_of(page)
        assert "Not measured in the local LLM: British English: 3 test prompts." in text_of(page)
    cells = (
        r"label gap of priority = high ?female, male ?40, 42 ?80\.0, 30\.0 ?\+50\.0 ?30\.0 to 65\.0"
    )
    assert re.search(cells + r" ?0\.0004 ?0\.00208 ?12\.5 ?10", text_of(iteration))
    assert "priority = low" not in text_of(iteration)
    assert "pairs, balanced" in text_of(iteration)
    assert (
        "12.5 % of 40 prompts get another label where they are rewritten (she for he; 95 % "
        "interval 4.2 to 26.8)." in text_of(iteration)
    )


def test_a_fair_iteration_says_what_was_measured_and_never_that_it_passed():
    fair = {**FAIR, "student": {**FAIR["student"], "gaps": [NARROW]}}

    for page in pages(entry([50] * 40), audited=fair):
        assert "None of the 1 gaps that were measured is over its limit" in text_of(page)
        assert "in the local LLM, in points: label gap 12.5." in text_of(page)


def test_gaps_that_were_measured_before_levels_were_kept_are_shown_without():
    older = {name: value for name, value in NARROW.items() if name != "level"}
    audited = {**FAIR, "student": {**FAIR["student"], "gaps": [older]}}

    assert "priority = low" in text_of(pages(entry([50] * 40, audited=audited), audited=audited)[0])


def test_an_alarm_of_an_earlier_iteration_stays_in_the_loop_report():
    _, loop = pages(entry([50] * 40, audited=UNFAIR), entry([60] * 40))

    assert "Iteration 1: pairs: label gap of priority = high is +50.0." in text_of(loop)


def test_an_unfair_loop_is_a_no_whatever_its_scores():
    unfair = entry([90, 91] * 20, {"confirmed": True}, audited=UNFAIR)
    unfair["verdict"] |= {"reason": "unfair", "target_reached": False}

    said = explain_verdict(unfair, {}, compared([90] * 40), parameters())

    assert said[0] == "No: groups are not treated alike, and that is to end this loop."
    assert "The loop has ended: the fairness audit found more than its limits allow." in said


KNOWN = [90.0, 95, 100, 80] * 10


def known(**changes):
    scores = per_prompt(scored(KNOWN))
    summary = entry(KNOWN)["assessment"]
    row = {**summary, "name": "service LLM itself", "scores": scores}
    return {"setup": describe_setup(*setup(**changes)), "rows": [row]}


def test_baselines_of_another_setup_are_left_out_and_said(caplog):
    assert len(compared(KNOWN, known())["rows"]) == 1
    assert compared(KNOWN, known(judge="other"))["rows"] == []
    assert compared(KNOWN, known(prompt="another {{ case }}"))["rows"] == []
    assert compared(KNOWN, known(test=pairs(40).assign(response="other")))["rows"] == []
    assert compared(KNOWN, known(test=pairs(40).assign(system="In French.")))["rows"] == []
    assert compared(KNOWN, known(train=pairs(4)))["rows"] == []
    assert compared(KNOWN, known(inference=EndpointEngine(service("base"))))["rows"] == []
    assert compared(KNOWN, known(judgements_per_response=2))["rows"] == []
    assert compared(KNOWN, known(decoding={"temperature": 1.0}))["rows"] == []
    assert len(compared(KNOWN, known(decoding={"batch_size": 1}))["rows"]) == 1
    assert "measured with another judge_prompt, so that they do not compare" in caplog.text
    caplog.clear()
    assert compared(KNOWN)["rows"] == []
    assert caplog.text == ""
    assert compared(KNOWN)["local_to_service_llm"] is None


def test_the_local_llm_is_told_as_a_share_of_the_service_llm():
    ratio = compared([value - 9.125 for value in KNOWN], known())["local_to_service_llm"]

    assert ratio["precision"]["ratio"] == pytest.approx(0.9)
    low, high = ratio["precision"]["interval"]
    assert low < 0.9 < high
    assert ratio["precision"]["prompts"] == 40


def test_only_prompts_with_both_scores_are_in_the_ratio():
    ratio = compared([None, *KNOWN[1:]], known())["local_to_service_llm"]

    assert ratio["precision"] == {"prompts": 39, "ratio": 1, "interval": [None, None]}


def test_the_ratio_stands_in_the_reports():
    baselines = compared([value - 9.125 for value in KNOWN], known())

    for page in pages(entry([82.125] * 40), baselines=baselines):
        assert "precision 90.0 %" in text_of(page)
        assert "service LLM itself" in text_of(page)
        assert "On these its precision is 90 % of the service LLM's own (95 %" in text_of(page)


@pytest.mark.parametrize(
    ("own", "doubted"),
    [
        ([20, 40] * 20, True),
        ([79, 80] * 20, False),
        ([90] * 40, False),
        ([30] + [None] * 39, False),
    ],
)
def test_a_service_llm_below_the_target_is_doubted_where_it_is_not_chance(own, doubted):
    scores = per_prompt(scored(own))
    service_llm = {**entry(own)["assessment"], "name": "service LLM itself", "scores": scores}
    baselines = compared([90] * 40, {"setup": describe_setup(*setup()), "rows": [service_llm]})

    said = "The service LLM itself has a similarity of 30.0, where the target is 80"
    for page in pages(entry([90] * 40), baselines=baselines):
        assert (said in text_of(page)) == doubted


def test_the_worst_responses_come_first_and_perfect_ones_not_at_all():
    texts = pd.DataFrame(
        {
            "id": [f"test-{n}" for n in range(4)],
            "sample": 1,
            "response": list("abcd"),
            "finished": True,
        }
    )
    judgements = texts[["id", "sample"]].assign(
        similarity=[100, 50, 90, np.nan], precision=[100, 75, 25, np.nan]
    )

    judge = Judge((service("judge"),))
    teacher = service("teacher")
    table = WorstResponses.validate(
        choose_worst_responses(texts, judgements, pairs(4), teacher, judge)
    )

    assert list(table["response"]) == ["c", "b", "d"]
    assert list(table["reference"]) == ["reference 2", "reference 1", "reference 3"]


def test_the_plot_has_the_interval_and_leaves_out_what_is_not_known():
    history = [entry([None] * 40), entry([60, 80] * 20)]

    figure = plot_scores(history, compared([50] * 40), parameters())

    low, high = history[1]["assessment"]["precision"]["interval"]
    trace = next(each for each in figure.data if each.name == "precision")
    assert trace.y == (None, 70)
    assert trace.error_y.array == (None, pytest.approx(high - 70))
    assert trace.error_y.arrayminus == (None, pytest.approx(70 - low))


def test_diversity_is_drawn_over_the_iterations_and_explained_in_both_reports():
    later = {**SYNTHESIS["diversity"], "iteration": 2, "test_reached": 0.75}
    history = [entry([50] * 40), {**entry([50] * 40), "synthesis": {"diversity": later}}]

    figure = plot_diversity(history)

    traces = {trace.name: (trace.x, trace.y) for trace in figure.data}
    assert traces["test neighbourhoods reached"] == ((1, 2), (0.5, 0.75))
    assert traces["entropy over strategies"] == ((1, 2), (None, None))
    for page in pages(*history):
        assert "the training set misses a part of the task" in text_of(page)
        assert 'id="diversity"' in page


OFF = PrivacyGate(PrivacySettings(detect="off"))


@pytest.mark.parametrize("open_ones", [(), ("teacher",), ("judge",)])
def test_the_worst_responses_show_no_personal_details(open_ones):
    answers = pd.DataFrame({"id": ["test-0"], "sample": 1, "response": "to anna@firma.de"})
    judgements = answers[["id", "sample"]].assign(similarity=1, precision=2)
    asked = pairs(1).assign(prompt="to anna@firma.de or 030/1234567?")

    teacher, judge = (
        replace(service(name), gate=OFF) if name in open_ones else service(name)
        for name in ("teacher", "judge")
    )

    table = choose_worst_responses(
        answers.assign(finished=True), judgements, asked, teacher, Judge((judge,))
    )

    assert "firma" not in table.to_json()
    assert table["response"][0] in table["prompt"][0]


def test_the_report_says_what_was_replaced():
    page, _ = pages(entry([82.125] * 40))

    assert "patterns): for 2 email in the coverage pairs, none in the new pairs" in text_of(page)
    assert "sent to the judge surrogates stand for 3 email, 1 phone." in text_of(page)


def test_the_report_says_where_privacy_was_off():
    off = {
        "service_llm": {**PRIVACY["service_llm"], "detect": "off"},
        "judge": {"detect": ["patterns", "off"], "requests": {}},
    }

    for page in pages(entry([82.125] * 40), privacy=off):
        assert "Privacy is off: pairs are sent to the service LLM, and train, as they are" in page
        assert "Privacy is off for a judge" in page


def test_a_judge_that_is_sent_all_as_it_is_has_no_surrogates():
    off = {**PRIVACY, "judge": {"detect": ["off"], "requests": {}}}

    assert "In what was sent to the judge" not in pages(entry([82.125] * 40), privacy=off)[0]


def test_replaced_details_are_counted_over_all_requests_of_the_judge():
    replies = pd.DataFrame({"replaced": [["email", "ip"], [], ["email"]]})

    report = report_privacy(
        {"privacy": PRIVACY["service_llm"]},
        replies,
        replies,
        replies,
        replies,
        Judge((service("judge"),)),
    )

    assert report["judge"] == {"detect": ["patterns"], "requests": {"email": 9, "ip": 4}}


def test_a_report_shows_what_was_trained_and_what_it_took():
    iteration, loop = (text_of(page) for page in pages(entry([50] * 40)))

    assert "54 pairs were trained on, 6 validated it" in iteration
    assert "step 33 of 45, with the lowest loss on these (0.250)" in iteration
    assert "48 s, 21,000 tokens and about 0.32 Wh" in iteration
    assert "yes<|im_end|>" in iteration
    assert "iteration 1SFT5445330.2504821,0000.32" in loop


def test_a_report_says_where_nothing_was_trained_or_nothing_validated():
    nothing, _ = pages(entry([50] * 40), trained={**TRAINED, "rows": 0})
    unvalidated, _ = pages(entry([50] * 40), trained={**TRAINED, "validation": 0})

    assert "the previous adapter was handed on" in nothing
    assert "60 pairs were trained on in 45 steps, none validated it" in text_of(unvalidated)


def test_reports_say_which_iterations_were_tuned_by_preference_and_how_far_that_went():
    rewards = {"reward_margin": 1.234, "reward_accuracy": 0.875, "kl": 12.34}
    counts = {"rows": 40, "validation": 4, "preference_prompts": 50}
    by_preference = {**TRAINED, **rewards, **counts, "tuning": "preference"}
    entries = entry([50] * 40), entry([60] * 40, trained=by_preference)

    iteration, loop = (text_of(page) for page in pages(*entries, trained=by_preference))

    assert "50 coverage-train prompts were answered and judged for it, and 40 of them" in iteration
    assert "36 pairs were trained on, 4 validated it" in iteration
    assert "reward margin1.23" in iteration
    assert "reward accuracy0.88" in iteration
    assert "KL from the start12.3" in iteration
    assert "How pair 1 is read" not in iteration
    assert "iteration 1SFT54" in loop
    assert "iteration 1preference36" in loop
    assert "0.321.230.8812.3" in loop
    assert "reward margin" not in text_of(pages(entries[0])[1])


def test_a_report_says_that_the_next_iteration_tunes_by_preference():
    changed_over = entry([50] * 40)
    changed_over["verdict"] = {**changed_over["verdict"], "next_tuning": "preference"}
    without_pairs = {**TRAINED, "tuning": "preference", "rows": 0}

    first = explain_verdict(changed_over, {}, compared([50] * 40), parameters())
    later = explain_verdict(
        {**changed_over, "training": without_pairs}, {}, compared([50] * 40), parameters()
    )

    assert any(
        "the next one tunes by preference, from the best so far, number 1." in s for s in first
    )
    assert not any("tunes by preference" in sentence for sentence in later)
    assert "the best adapter was handed on" in pages(entry([50] * 40), trained=without_pairs)[0]
