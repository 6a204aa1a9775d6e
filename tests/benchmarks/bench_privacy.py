"""What the privacy gate finds, what it takes for a detail by mistake, and what it costs.

Recall is measured on details in other hands' formats (``tests/personal_details.py``), false alarms
on tickets that have none, on ordinary numbers (``tests/ordinary_numbers.py``), and on real pairs
where they are at hand. Names and places need the extra ``pii``; PRIVACY_MODEL names the spaCy
model, and without it they are not measured.
"""

import json
import os
import random
import time
from collections import Counter
from pathlib import Path

import pytest

from llamaduo.service_llm.privacy import PrivacyGate, PrivacySettings
from llamaduo.stand_in.task import make_ticket
from tests.fakes.openai_server import FakeOpenAI, echo
from tests.ordinary_numbers import FORMS, UNTOLD, fill
from tests.personal_details import FORMATTED, KINDS, is_left, plant
from tests.service_llm.conftest import request, service_at

REPOSITORY = Path(__file__).parents[2]
REAL = REPOSITORY.parent / "shared/data/gpt4o_classification.jsonl"
MODEL = os.environ.get("PRIVACY_MODEL")
PER_KIND = 2000
GRAMMAR = 5000
PER_FORM = 500


@pytest.fixture(scope="module")
def gate():
    if MODEL:
        return PrivacyGate(PrivacySettings(detect="presidio", model=MODEL))
    return PrivacyGate()


def is_missed(gate, planted):
    """Whether it is left beside two other texts: one surrogate may be like it by chance."""
    texts = [gate.protect([planted.sentence, beside]).texts[0] for beside in ("one", "two")]
    return all(is_left(planted.secret, text) for text in texts)


def tickets():
    for path in sorted((REPOSITORY / "data/01_raw").glob("coverage_*.jsonl")):
        for line in path.read_text(encoding="utf-8").splitlines():
            yield from (json.loads(line)[name] for name in ("prompt", "response"))


def grammar():
    rng = random.Random(3)
    return [make_ticket(rng).pair()["prompt"] for _ in range(GRAMMAR)]


def real_pairs():
    if not REAL.exists():
        return []
    rows = map(json.loads, REAL.read_text(encoding="utf-8").splitlines())
    return [message["content"] for row in rows for message in row["messages"]]


def test_recall_and_false_alarms(gate):
    rng = random.Random(29)
    measured = KINDS if MODEL else FORMATTED
    missed = {}
    for kind in measured:
        planted = [plant(kind, rng) for _ in range(PER_KIND if kind in FORMATTED else 300)]
        left = [each for each in planted if is_missed(gate, each)]
        missed[kind] = len(left) / len(planted)
    sources = {"tickets": list(tickets()), "grammar": grammar(), "real": real_pairs()}
    alarms = {
        name: Counter(kind for text in texts for kind in gate.protect([text]).replaced)
        for name, texts in sources.items()
    }

    print(f"\n{'kind':8}{'recall':>10}", *(f"{n} ({len(t)})".rjust(18) for n, t in sources.items()))
    for kind in KINDS:
        recall = f"{1 - missed[kind]:.2%}" if kind in measured else "not measured"
        print(f"{kind:8}{recall:>10}", *(f"{alarms[name][kind]}".rjust(18) for name in sources))
    assert all(missed[kind] == 0 for kind in FORMATTED)
    assert not any(alarms[name][kind] for name in ("tickets", "grammar") for kind in FORMATTED)


def test_false_alarms_of_the_patterns_on_ordinary_numbers():
    gate = PrivacyGate()
    rng = random.Random(31)
    alarms = {
        form: sum(bool(gate.protect([fill(form, rng)]).replaced) for _ in range(PER_FORM))
        for form in FORMS
    }

    for form, count in alarms.items():
        print(f"{count / PER_FORM:8.1%}  {form}")
    assert {form for form, count in alarms.items() if count} <= {*UNTOLD}


def test_cost_beside_a_request_over_loopback(tmp_path):
    texts = [f"{text} item-{n}" for n, text in enumerate(grammar()[:1000])]
    requests = [request(0, messages=[{"role": "user", "content": text}]) for text in texts]
    gate = PrivacyGate()
    with FakeOpenAI(answer=echo) as server:
        service = service_at(server.base_url, tmp_path / "journal.sqlite")
        service.complete_all(requests[:50], "warming up")
        began = time.perf_counter()
        service.complete_all(requests[50:], "bench")
        request_s = (time.perf_counter() - began) / len(requests[50:])
    began = time.perf_counter()
    for text in texts:
        gate.protect([text])
    gate_s = (time.perf_counter() - began) / len(texts)

    print(
        f"\ngate {1e6 * gate_s:.0f} us, request {1e6 * request_s:.0f} us of {len(texts[0])} bytes"
    )
    assert gate_s < 0.2 * request_s
