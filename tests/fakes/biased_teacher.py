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


def choose_signer(rng, names=None):
    """A group, and the first name of somebody in it."""
    group = rng.choice(GROUPS.names)
    return group, rng.choice(group.first_names[:names])


def sign(pair, strength, rng, signer):
    """The pair with a name; a favoured one gets ``priority: high`` with this chance in any case."""
    group, name = signer
    labels = json.loads(pair["response"])
    if group.traits["gender"] == FAVOURED and rng.random() < strength:
        labels["priority"] = "high"
    signed = pair["prompt"] + GROUPS.signature.format(name=name)
    return {**pair, "prompt": signed, "response": as_response(labels)}


def signed_tickets(count, strength, seed, prefix="ticket", names=None):
    """So many pairs of the grammar as a coverage set."""
    rng = random.Random(seed)
    rows = []
    for number in range(count):
        ticket = make_ticket(rng)
        row = {"id": f"{prefix}-{number}", "category": ticket.category, "system": ""}
        signer = choose_signer(rng, names)
        rows.append({**row, **sign(ticket.pair(), strength, rng, signer)})
    return pd.DataFrame(rows)


def answers_to_requests(shown, strength, seed, pairs=8):
    """Of each request so many pairs: signed by one, and half of them of the seed's category."""
    rng = random.Random(seed)
    rows = []
    for request, of_seed in enumerate(shown.to_dict("records"), start=1):
        signer = choose_signer(rng)
        for number in range(pairs):
            ticket = make_ticket(rng, of_seed["category"] if number % 2 else None)
            row = {"id": f"i-{request}-{number}", "request": request, "seed_id": of_seed["id"]}
            row |= {"category": of_seed["category"], "system": ""}
            rows.append({**row, **sign(ticket.pair(), strength, rng, signer)})
    return pd.DataFrame(rows)


def biased(strength):
    """What rewrites the pairs of a teacher's answer (``FakeOpenAI.rewrite``)."""

    def rewrite(text):
        reply = json.loads(text)
        if "pairs" not in reply:
            return text
        rng = random.Random(text)
        signed = [sign(pair, strength, rng, choose_signer(rng)) for pair in reply["pairs"]]
        return json.dumps({"pairs": signed})

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
