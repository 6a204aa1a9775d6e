"""Tables as the nodes of data_synthesis take them."""

import pandas as pd
from pydantic import SecretStr

from llamaduo.parameters import FineTuningParameters, SynthesisParameters
from llamaduo.pipelines.data_synthesis.seeding import choose_seeds
from llamaduo.schemas import ReadyPairs
from llamaduo.service_llm.client import ServiceLLM

FINE_TUNING = FineTuningParameters(start="previous", learning_rate=1e-3, epochs=1)
SERVICE_LLM = ServiceLLM("endpoint", "url", "teacher", SecretStr("key"), None)
"""Nothing is asked of it."""
NO_READY_PAIRS = ReadyPairs.empty()
BY_PREFERENCE = {"next_tuning": "preference"}
"""The verdict before an iteration that tunes by preference."""
TEMPLATE = 'Write {{ pairs }} examples like {{ seed }} (set {{ request }}) as {"pairs": []}.'
PROMPTS = {"self_instruct": TEMPLATE, "harder": f"Harder. {TEMPLATE}"}


def coverage(count, categories=("a", "b", "c")):
    return pd.DataFrame(
        {
            "id": [f"train-{n}" for n in range(count)],
            "category": [categories[n % len(categories)] for n in range(count)],
            "system": "",
            "licence": "",
            "source": "",
            "prompt": [f"prompt number {n}" for n in range(count)],
            "response": [f"response {n}" for n in range(count)],
            "dropped": "",
            "filter_version": "1-aabbccdd",
            "replaced": [[] for _ in range(count)],
        }
    )


def parameters(**changes):
    few = {"pairs_per_iteration": 20, "pairs_per_request": 8, "aimed_share": 0.5}
    return SynthesisParameters(**{**few, **changes})


def so_far(iteration, pairs=20, per_request=8):
    """The report of the iteration before, in a loop that asks for the same number each time."""
    asking = max(0, iteration - 2)
    requests = asking * -(-pairs // per_request)
    return {
        "iteration": iteration - 1,
        "asked_so_far": asking * pairs,
        "requests_so_far": requests,
        "walked_so_far": requests,
    }


def seeds(iteration, count=12, weak_spots=None, yields=None, report=None, verdict=None, **changes):
    return choose_seeds(
        coverage(count),
        NO_READY_PAIRS,
        PROMPTS,
        report or so_far(iteration),
        None,
        weak_spots,
        yields,
        verdict,
        parameters(**changes),
    )


def parsed(*prompts, **columns):
    rows = pd.DataFrame({"prompt": list(prompts)}).assign(
        id=[f"i002-{n}" for n in range(len(prompts))],
        origin="synthetic",
        request=1,
        seed_id="train-0",
        teacher="gpt-4o",
        model="gpt-4o-2024-08-06",
        prompt_version="self_instruct-1a2b3c4d",
        category="a",
        system="",
        licence="",
        source="",
        seed_prompt="the seed is something else",
        response="r",
        unreadable="",
    )
    return rows.assign(**columns)
