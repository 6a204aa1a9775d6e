"""What must not be trained on, by checks that cost nothing."""

import hashlib
import json
import logging
from collections.abc import Callable, Iterable
from os.path import commonprefix

import pandas as pd
from jsonschema.validators import validator_for
from referencing import Registry
from referencing.exceptions import Unresolvable

from llamaduo.errors import InputError
from llamaduo.languages import language_of, languages_of
from llamaduo.local_llm.base_model import BaseModelSpec
from llamaduo.local_llm.lengths import refuse_long_pairs
from llamaduo.near_duplicates import NearDuplicates, Reserved, Tokenizer, Tokens, similarity
from llamaduo.parameters import FineTuningParameters, SynthesisParameters, TaskCheck
from llamaduo.schemas import PAIR
from llamaduo.service_llm.client import ServiceLLM
from llamaduo.service_llm.privacy import quote
from llamaduo.service_llm.text import declines, is_blank

logger = logging.getLogger(__name__)

VERSION = 2
"""Of the checks; a change of what they drop raises it."""

MOST_REFUSALS = 0.05
"""Share of the task's own responses that may decline without being meant to."""

SHOWN = 5
"""Pairs that a warning names; all of them stand in ``screened_coverage``."""
PROTECTED = [*PAIR, "licence", "source"]
"""The data card quotes the last two."""


def screen_coverage(
    coverage_train: pd.DataFrame,
    coverage_test: pd.DataFrame,
    coverage_holdout: pd.DataFrame,
    base_model: BaseModelSpec,
    service_llm: ServiceLLM,
    synthesis: SynthesisParameters,
    fine_tuning: FineTuningParameters,
) -> pd.DataFrame:
    """Find the coverage-train pairs that may be trained on and shown to the service LLM.

    Returns:
        ``ScreenedCoverage``: every row as the service LLM may be sent it, with the reason for which
        it is left out: ``too_long`` for the model, or ``near_copy_of_test``, of a test or holdout
        prompt.

    Raises:
        InputError: None is left, or a response of the task fails the task's own check.
    """
    protected = service_llm.gate.protect_rows(coverage_train, PROTECTED)
    failing = protected["id"][fail_check(protected, synthesis.check)]
    if len(failing):
        raise InputError(
            f"{len(failing)} of {len(coverage_train)} responses of coverage_train fail "
            f"data_synthesis.check, first of all {failing.iloc[0]}: is it the check of this task?"
        )
    tokenizer, reserved = reserve(coverage_train, coverage_test, coverage_holdout, synthesis)
    copies = [reserved.has_copy(tokenizer.tokens(text)) for text in coverage_train["prompt"]]
    long = refuse_long_pairs(base_model, _texts(protected), fine_tuning.max_length)
    dropped = [
        "near_copy_of_test" if is_copy else "too_long" if problem else ""
        for is_copy, problem in zip(copies, long, strict=True)
    ]
    screened = protected.assign(
        dropped=dropped, filter_version=filter_version(synthesis, fine_tuning)
    )
    left_out = [
        f"{pair_id} ({problem or reason})"
        for pair_id, reason, problem in zip(coverage_train["id"], dropped, long, strict=True)
        if reason
    ]
    if left_out:
        logger.warning(
            "%d of %d pairs of coverage_train are left out: %s%s",
            len(left_out),
            len(screened),
            ", ".join(left_out[:SHOWN]),
            " …" if len(left_out) > SHOWN else "",
        )
    if all(dropped):
        raise InputError(
            f"none of the {len(screened)} pairs of coverage_train can be used: each is a near-copy "
            "of a test or holdout prompt (data_synthesis.max_test_similarity), or too long for the "
            "model (fine_tuning.max_length)"
        )
    return screened


def screen_pairs(
    parsed_pairs: pd.DataFrame,
    screened_coverage: pd.DataFrame,
    previous_training_set: pd.DataFrame | None,
    coverage_test: pd.DataFrame,
    coverage_holdout: pd.DataFrame,
    base_model: BaseModelSpec,
    service_llm: ServiceLLM,
    synthesis: SynthesisParameters,
    fine_tuning: FineTuningParameters,
) -> pd.DataFrame:
    """Drop what must not be trained on.

    Returns:
        ``ScreenedPairs``: every row as the service LLM may be sent it, with the reason for which it
        was dropped. A row that fails several checks carries the first, in the order of ``checks``
        below. All look at what would be trained on, but for ``near_copy_of_test``: test prompts are
        there as they are.
    """
    protected = service_llm.gate.protect_rows(parsed_pairs, PROTECTED)
    raw_prompts = parsed_pairs["prompt"]
    tokenizer, reserved = reserve(screened_coverage, coverage_test, coverage_holdout, synthesis)
    tokens = {text: tokenizer.tokens(text) for text in {*protected["prompt"], *raw_prompts}}
    usable = screened_coverage[screened_coverage["dropped"] == ""]
    known = usable if previous_training_set is None else previous_training_set
    kept = NearDuplicates(synthesis.max_similarity, map(tokenizer.tokens, known["prompt"]))

    def are_copies_of_seeds(rows: pd.DataFrame) -> list[bool]:
        pairs = zip(rows["prompt"], rows["seed_prompt"], strict=True)
        return [
            similarity(tokens[prompt], tokenizer.tokens(seed)) >= synthesis.max_similarity
            for prompt, seed in pairs
        ]

    checks: dict[str, Callable[[pd.DataFrame], Iterable[bool]]] = {
        "schema": lambda rows: rows["unreadable"] != "",
        "empty": lambda rows: [
            is_blank(prompt) or is_blank(response) for _, prompt, response in _texts(rows)
        ],
        "refusal": lambda rows: are_refusals(rows["response"], usable["response"]),
        "fails_check": lambda rows: fail_check(rows, synthesis.check),
        "too_long": lambda rows: map(
            bool, refuse_long_pairs(base_model, _texts(rows), fine_tuning.max_length)
        ),
        "wrong_language": lambda rows: are_foreign(rows, usable, synthesis.languages),
        "copy_of_seed": are_copies_of_seeds,
        "near_copy_of_test": lambda rows: [
            reserved.has_copy(tokens[text]) for text in raw_prompts[rows.index]
        ],
        "near_duplicate": lambda rows: [
            _is_repeated(tokens[text], kept) for text in rows["prompt"]
        ],
    }
    dropped = pd.Series("", index=protected.index)
    for reason, fails in checks.items():
        rows = protected[dropped == ""]
        if len(rows):
            dropped[rows.index[list(fails(rows))]] = reason
    return protected.drop(columns=["unreadable", "seed_prompt"]).assign(
        dropped=dropped, filter_version=filter_version(synthesis, fine_tuning)
    )


def reserve(
    coverage: pd.DataFrame,
    coverage_test: pd.DataFrame,
    coverage_holdout: pd.DataFrame,
    synthesis: SynthesisParameters,
) -> tuple[Tokenizer, Reserved]:
    """The words of the task, and the prompts of which no copy may be shown or trained on."""
    tokenizer = Tokenizer.of_task(pd.concat([coverage, coverage_test, coverage_holdout]))
    prompts = [*coverage_test["prompt"], *coverage_holdout["prompt"]]
    return tokenizer, Reserved(synthesis.max_test_similarity, map(tokenizer.tokens, prompts))


def filter_version(synthesis: SynthesisParameters, fine_tuning: FineTuningParameters) -> str:
    """The version of the checks and a digest of the parameters that they depend on."""
    names = {"max_similarity", "max_test_similarity", "check", "languages", "judging"}
    settings = [synthesis.model_dump(mode="json", include=names), fine_tuning.max_length]
    digest = hashlib.sha256(json.dumps(settings, sort_keys=True).encode())
    return f"{VERSION}-{digest.hexdigest()[:8]}"


def are_refusals(responses: pd.Series, of_task: pd.Series) -> list[bool]:
    """Whether each response declines; none does where declining is a part of the task."""
    declining = sum(map(declines, of_task))
    if declining > MOST_REFUSALS * len(of_task):
        logger.info(
            "%d of %d coverage responses decline: no new one is dropped as a refusal",
            declining,
            len(of_task),
        )
        return [False] * len(responses)
    return [declines(response) for response in responses]


def fail_check(rows: pd.DataFrame, check: TaskCheck | None) -> list[bool]:
    """Whether each response fails the task's own check.

    Raises:
        InputError: The check is a schema that refers to another one.
    """
    if check is None:
        return [False] * len(rows)
    if check.callable is not None:
        return _fail_function(rows, check.callable)
    # An empty registry: a schema that names another one is never looked up on the net.
    validator = validator_for(check.json_schema)(check.json_schema, registry=Registry())

    def fails(response: str) -> bool:
        try:
            return not validator.is_valid(json.loads(response))
        except (ValueError, RecursionError):
            return True
        except Unresolvable as error:
            raise InputError(
                f"data_synthesis.check.json_schema refers to {error.ref!r}, which is not in it"
            ) from error

    return [fails(response) for response in rows["response"]]


def _fail_function(rows: pd.DataFrame, function: Callable[[str, str], bool]) -> list[bool]:
    errors: list[str] = []

    def fails(pair_id: str, prompt: str, response: str) -> bool:
        try:
            return not function(prompt, response)
        except Exception as error:  # it is the user's, and json.loads in it is no bug
            errors.append(f"{pair_id}, {quote(error, 200)}")
            return True

    columns = rows[["id", "prompt", "response"]].itertuples(index=False, name=None)
    failing = [fails(*each) for each in columns]
    if errors:
        logger.warning("data_synthesis.check raised for %d pairs: %s", len(errors), errors[0])
    return failing


def are_foreign(
    rows: pd.DataFrame, coverage: pd.DataFrame, languages: list[str] | None
) -> list[bool]:
    """Whether prompt or response is surely in a language that the task does not use.

    Args:
        languages: ISO 639 codes; None for those of the coverage set.
    """
    foreign = [False] * len(rows)
    prompts = list(coverage["prompt"])
    instruction = commonprefix(prompts) if len(prompts) > 1 else ""  # noqa: RUF071 (of characters)
    for column, shared in (("prompt", instruction), ("response", "")):
        own = [text.removeprefix(shared) for text in coverage[column]]
        allowed = set(languages) if languages else languages_of(own)
        if allowed:
            found = [language_of(text.removeprefix(shared)) for text in rows[column]]
            is_other = [language is not None and language not in allowed for language in found]
            foreign = [one or other for one, other in zip(foreign, is_other, strict=True)]
    return foreign


def _texts(rows: pd.DataFrame) -> list[tuple[str, str, str]]:
    return list(rows[PAIR].itertuples(index=False, name=None))


def _is_repeated(text: Tokens, kept: NearDuplicates) -> bool:
    """Whether a text was there before; one that was not is added."""
    if kept.has(text):
        return True
    kept.add(text)
    return False
