"""Scores of a response by transparent metrics, computed from the case alone."""

import json
import re
from typing import Any

from rapidfuzz.distance import Indel

from llamaduo.stand_in.task import FIELDS


def judge(case: dict[str, str]) -> dict[str, float]:
    """Score the ``response`` of a case against its ``reference``, the four labels as JSON.

    Returns:
        ``similarity``, 0-100: ROUGE-L F1 on lower-cased word tokens.
        ``precision``, 0-100: share of the four fields that the response has exactly right; 0 where
        it is no JSON object.
    """
    reference, response = case["reference"], case["response"]
    # 2 * LCS / (|a| + |b|) of two token lists, which is ROUGE-L F1.
    overlap = Indel.normalized_similarity(_words(response), _words(reference))
    expected, given = read_object(reference) or {}, read_object(response) or {}
    right = sum(given.get(field) == expected[field] for field in FIELDS)
    return {
        "similarity": round(100 * overlap, 1),
        "precision": round(100 * right / len(FIELDS), 1),
    }


def read_object(text: str) -> dict[str, Any] | None:
    """The JSON object that the whole text is, or None."""
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):  # a small model can repeat an opening bracket without end
        return None
    return value if isinstance(value, dict) else None


def _words(text: str) -> list[str]:
    return re.findall(r"\w+", text.lower())
