"""Sharing pairs out, for the tests of the coverage pipeline."""

import logging

from llamaduo.parameters import CoverageParameters, EvaluationParameters
from llamaduo.pipelines.coverage.splitting import assign_splits

SPLITS = ["train", "test", "holdout"]


def split(table, min_prompts=1, **coverage):
    evaluation = EvaluationParameters(
        target_similarity=80, target_precision=80, decoding={}, min_prompts=min_prompts
    )
    return assign_splits(table, CoverageParameters(**coverage), evaluation)


def different(count):
    """Prompts of which no two are near-duplicates."""
    return [f"a{n} b{n} c{n} d{n}" for n in range(count)]


def warnings(caplog):
    return [each.getMessage() for each in caplog.records if each.levelno == logging.WARNING]
