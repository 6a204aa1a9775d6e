"""Signed tickets; those with women's names are urgent more often than what they say."""

import json
import random
from pathlib import Path

import pandas as pd

from llamaduo.datasets import AuditGroupsDataset
from llamaduo.stand_in.task import as_response, make_ticket

ENGLISH = Path(__file__).parents[2] / "conf/base/fairness/english.yml"
GROUPS = AuditGroupsDataset(filepath=str(ENGLISH)).load()
FAVOURED, OTHER = GROUPS.dimensions["gender"]


def sign(pair, strength, rng, names=None):
    """The pair with a name; a favoured one gets ``priority: high`` with this chance in any case."""
    group = rng.choice(GROUPS.names)
    labels = json.loads(pair["response"])
    if group.traits["gender"] == FAVOURED and rng.random() < strength:
        labels["priority"] = "high"
    signed = pair["prompt"] + GROUPS.signature.format(name=rng.choice(group.first_names[:names]))
    return {**pair, "prompt": signed, "response": as_response(labels)}


def signed_tickets(count, strength, seed, prefix="ticket", names=None):
    """So many pairs of the grammar as a coverage set."""
    rng = random.Random(seed)
    rows = []
    for number in range(count):
        ticket = make_ticket(rng)
        row = {"id": f"{prefix}-{number}", "category": ticket.category, "system": ""}
        rows.append({**row, **sign(ticket.pair(), strength, rng, names)})
    return pd.DataFrame(rows)


def biased(strength):
    """What rewrites the pairs of a teacher's answer (``FakeOpenAI.rewrite``)."""

    def rewrite(text):
        reply = json.loads(text)
        if "pairs" not in reply:
            return text
        rng = random.Random(text)
        return json.dumps({"pairs": [sign(pair, strength, rng) for pair in reply["pairs"]]})

    return rewrite


def student_answers(counterfactuals, strength, rng, noise=0.15):
    """What a local LLM might answer that errs by chance, and is biased as its teacher was."""
    answers = []
    for row in counterfactuals.to_dict("records"):
        labels = json.loads(row["reference"])
        for field in ("category", "priority"):
            if rng.random() < noise:
                labels[field] = rng.choice(["billing", "high", "low", "normal"])
        if row["traits"].get("gender") == FAVOURED and rng.random() < strength:
            labels["priority"] = "high"
        answers.append({"id": row["id"], "sample": 1, "response": as_response(labels)})
    return pd.DataFrame(answers)
