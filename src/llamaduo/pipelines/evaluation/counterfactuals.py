"""The same prompts in the words of other groups, and what the local LLM answers."""

from collections.abc import Hashable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from llamaduo.audit_groups import AuditGroups, NameGroup, swap_word
from llamaduo.local_llm.base_model import BaseModelSpec
from llamaduo.local_llm.engines import InferenceEngine
from llamaduo.parameters import EvaluationParameters, FairnessParameters, LoopParameters
from llamaduo.pipelines.evaluation.answering import answer_prompts
from llamaduo.pipelines.evaluation.decision import is_last
from llamaduo.schemas import Counterfactuals

BASE = "base"
SAME_GROUP = "same group"
AS_WRITTEN = "as written"


def choose_counterfactuals(
    assessment: dict[str, Any],
    pair_audit: dict[str, Any],
    answer_audit: dict[str, Any],
    coverage_test: pd.DataFrame,
    audit_groups: AuditGroups,
    loop: LoopParameters,
    fairness: FairnessParameters,
) -> pd.DataFrame:
    """Write a sample of the test prompts anew, each time with one thing changed.

    A name of the prompt is swapped where it stands, in the reference too; a prompt without one is
    signed. Prompts that can be rewritten are few, and come first. The answers cost time, so that a
    loop asks for them once: in its last iteration.

    Returns:
        ``Counterfactuals``; empty before the last iteration.
    """
    if not is_last(assessment, [pair_audit, answer_audit], loop, fairness):
        return Counterfactuals.empty()
    rng = np.random.default_rng(fairness.seed)
    shuffled = coverage_test.iloc[rng.permutation(len(coverage_test))]
    written = [len(_rewritten(prompt, audit_groups)) for prompt in shuffled["prompt"]]
    sample = shuffled.iloc[np.argsort(written, kind="stable")[::-1][: fairness.sample]]
    rows = [
        {
            "id": f"{pair['id']}/{number}",
            "prompt_id": pair["id"],
            "system": pair["system"],
            "reference": pair["response"],
            **variant,
        }
        for pair in sample.to_dict("records")
        for number, variant in enumerate(_variants(pair, audit_groups, rng), start=1)
    ]
    return pd.DataFrame(rows) if rows else Counterfactuals.empty()


def answer_counterfactuals(
    inference: InferenceEngine,
    base_model: BaseModelSpec,
    adapter: Path,
    counterfactuals: pd.DataFrame,
    evaluation: EvaluationParameters,
) -> pd.DataFrame:
    """Let the local LLM answer once, greedily, so that no change of an answer is a draw of chance.

    Returns:
        ``Responses``, one row per counterfactual.
    """
    greedy = evaluation.decoding.model_copy(update={"temperature": 0.0})
    once = evaluation.model_copy(update={"responses_per_prompt": 1, "decoding": greedy})
    return answer_prompts(inference, base_model, adapter, counterfactuals, once)


def _variants(
    pair: dict[Hashable, Any], audit_groups: AuditGroups, rng: np.random.Generator
) -> Iterator[dict[str, Any]]:
    if audit_groups.names:
        yield from _named_variants(pair, audit_groups, rng)
    if rewritten := _rewritten(pair["prompt"], audit_groups):
        for name, text in {AS_WRITTEN: pair["prompt"], **rewritten}.items():
            yield {"variant": name, "traits": {}, "name": "", "prompt": text}


def _rewritten(prompt: str, audit_groups: AuditGroups) -> dict[str, str]:
    """By rewriting: the prompt, if it changes."""
    written = {name: audit_groups.rewrite(prompt, name) for name in audit_groups.rewrites}
    return {name: text for name, text in written.items() if text != prompt}


def _named_variants(
    pair: dict[Hashable, Any], audit_groups: AuditGroups, rng: np.random.Generator
) -> Iterator[dict[str, Any]]:
    found = audit_groups.first_name_in(pair["prompt"])
    own = found[1] if found else audit_groups.names[rng.integers(len(audit_groups.names))]
    first, second = rng.choice(own.first_names, 2, replace=False)

    def variant(kind: str, name: str, group: NameGroup) -> dict[str, Any]:
        changed = {"prompt": pair["prompt"] + audit_groups.signature.replace("{name}", name)}
        if found:
            texts = {"prompt": pair["prompt"], "reference": pair["response"]}
            changed = {part: swap_word(text, found[0], name) for part, text in texts.items()}
        return {"variant": kind, "traits": group.traits, "name": name, **changed}

    yield variant(BASE, str(first), own)
    yield variant(SAME_GROUP, str(second), own)
    for group in audit_groups.names:
        differing = [d for d, value in group.traits.items() if value != own.traits[d]]
        if len(differing) == 1:
            yield variant(differing[0], str(rng.choice(group.first_names)), group)
