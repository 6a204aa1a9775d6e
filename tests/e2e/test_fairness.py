"""A teacher that ties a label to a name group, and the student that learns from it."""

import json

import pytest
import yaml
from rich import print

from llamaduo.fairness import compare_pairs
from tests.fakes.biased_teacher import (
    ENGLISH,
    FAVOURED,
    GROUPS,
    OTHER,
    biased,
    signed_tickets,
)
from tests.fakes.openai_server import FakeOpenAI

STRENGTH = 1
"""All of women's tickets are urgent, so that no greedy answer exaggerates what was planted."""
PAIRS, NAMES = 400, 2
"""Tickets, and first names of each group: a small model learns few of them well."""
ONE_ITERATION = {
    "loop": {"max_iterations": 1},
    "fine_tuning": {"epochs": 3},
    "evaluation": {
        "target_precision": 100,
        "decoding": {"temperature": 0.7, "max_new_tokens": 64, "batch_size": 30},
    },
}


def train_on_signed_tickets(project):
    """The demo's model in place of the random one, and a coverage set with few names.

    Returns:
        The coverage set.
    """
    groups = yaml.safe_load(ENGLISH.read_text(encoding="utf-8"))
    for group in groups["names"]:
        group["first_names"] = group["first_names"][:NAMES]
    (project.folder / "conf/base/fairness/english.yml").write_text(yaml.safe_dump(groups))
    tickets = signed_tickets(PAIRS, STRENGTH, seed=1, prefix="train", names=NAMES)
    tickets.to_json(
        project.folder / "data/01_raw/coverage_train.jsonl", orient="records", lines=True
    )
    model = {"filepath": "data/06_models/smollm2-135m-instruct"}
    project.configure("catalog.yml", {"base_model": model})
    return tickets


def planted_gap(tickets):
    """Points by which the tickets of one group are urgent more often than those of the other."""
    is_urgent = tickets["response"].str.contains('"priority":"high"')
    groups = [GROUPS.only_group_in(prompt, "gender") for prompt in tickets["prompt"]]
    shares = 100 * is_urgent.groupby(groups).mean()
    return shares[FAVOURED] - shares[OTHER]


def run_loop(project, on_excess):
    fairness = {"on_excess": on_excess, "sample": 120}
    project.configure("parameters.yml", {**ONE_ITERATION, "fairness": fairness})
    project.kedro("run", "--env=test", code=2, timeout=3600)
    return f"{project.loops()[-1]}-i001"


def are_urgent(project, version):
    """By test prompt: whether the student calls it urgent, signed by either group."""
    rows = [
        {**json.loads(one), **json.loads(other)}
        for one, other in zip(
            project.load("07_model_output/counterfactuals.jsonl", version).splitlines(),
            project.load("07_model_output/counterfactual_responses.jsonl", version).splitlines(),
            strict=True,
        )
    ]
    return {
        group: {
            row["prompt_id"]: '"priority":"high"' in row["response"]
            for row in rows
            if row["variant"] in ("base", "gender") and row["traits"]["gender"] == group
        }
        for group in (FAVOURED, OTHER)
    }


def label_gap(gaps):
    (gap,) = (
        gap
        for gap in gaps
        if (gap["measure"], gap["label"]) == ("label_gap", "priority = high")
        and gap["groups"] == [FAVOURED, OTHER]
    )
    return gap


@pytest.mark.soak
def test_a_biased_teacher_stops_the_loop_where_that_is_asked_for(project):
    project.configure(
        "parameters.yml",
        {
            "loop": {"max_iterations": 4},
            "data_synthesis": {"pairs_per_iteration": 240},
            "fairness": {"on_excess": "stop"},
        },
    )
    with FakeOpenAI(rewrite=biased(STRENGTH)) as server:
        endpoint = {"base_url": server.base_url, "model": "fake"}
        project.configure("catalog.yml", {"service_llm": endpoint, "judge": endpoint})
        output = project.kedro("run", "--env=test", code=2)

    verdict = project.json("08_reporting/verdict.json", f"{project.loops()[0]}-i002")
    assert verdict["reason"] == "unfair"
    assert any("label gap of priority = high" in alarm for alarm in verdict["alarms"])
    assert "stopped without reaching the target: unfair" in output


@pytest.mark.soak
def test_a_bias_is_found_in_data_and_student_and_is_less_after_balancing(project):
    tickets = train_on_signed_tickets(project)

    versions = {mode: run_loop(project, mode) for mode in ("warn", "balance")}

    audits = {
        mode: project.json("08_reporting/fairness_audit.json", version)
        for mode, version in versions.items()
    }
    flips = {}
    for mode, version in versions.items():
        urgent = are_urgent(project, version)
        flips[mode] = [urgent[FAVOURED][each] != urgent[OTHER][each] for each in urgent[OTHER]]
        print(mode, audits[mode]["alarms"], label_gap(audits[mode]["pairs"]["gaps"]))
        print(label_gap(audits[mode]["student"]["gaps"]), audits[mode]["pairs"]["left_out"])
    less = compare_pairs("flip_rate", "priority", tuple(versions), *flips.values())
    print(less.values, less.interval)

    found = {each: label_gap(audits["warn"][each]["gaps"]) for each in ("pairs", "student")}
    # The rule makes urgent for a woman whatever the student does not call urgent for a man.
    planted = {"pairs": planted_gap(tickets), "student": 100 - found["student"]["values"][1]}
    print(planted)
    for each, gap in found.items():
        low, high = gap["interval"]
        assert low <= planted[each] <= high
        assert gap["alarm"]
    assert less.interval[0] > 0
    assert not any("priority = high" in alarm for alarm in audits["balance"]["pairs"]["alarms"])
