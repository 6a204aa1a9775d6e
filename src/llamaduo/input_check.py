"""What is checked before a run: every input, every entry of the catalog, every endpoint."""

import logging
import re
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from itertools import combinations
from typing import Any

import pandas as pd
from kedro.framework.context import KedroContext
from kedro.framework.hooks import hook_impl
from kedro.framework.project import pipelines
from kedro.io import DataCatalog, DatasetError
from kedro.pipeline import Pipeline
from kedro.validation.exceptions import CheckFailure, DataValidationError
from kedro.validation.type_extractor import TypeExtractor
from pydantic import BaseModel, ValidationError

from llamaduo.attachment import loop_of
from llamaduo.errors import InputError
from llamaduo.iterations import AT, is_whole_loop
from llamaduo.local_llm.chat import to_messages
from llamaduo.local_llm.engines import InferenceEngine
from llamaduo.mistakes import did_you_mean, sentences
from llamaduo.near_duplicates import Reserved, Tokenizer, plain
from llamaduo.parameters import EvaluationParameters, FineTuningParameters, LoopParameters
from llamaduo.service_llm.budget import Account
from llamaduo.service_llm.client import ServiceLLM
from llamaduo.service_llm.jury import Judge, are_one_model
from llamaduo.service_llm.privacy import PrivacySettings, quote
from llamaduo.tuning import warn_of_no_room

NEAR = 0.7
"""ROUGE-L F1."""
SAME_MODEL = (
    "%s is both teacher and judge; a model favours what it taught (arXiv 2502.01534). Let another "
    "model judge, or add one to the jury"
)
UNKNOWN_KEY = re.compile(r"unexpected keyword argument '(\w+)'")
"""Of Python, for an argument that a dataset does not take."""

logger = logging.getLogger(__name__)


class ParameterCheck:
    """Names each parameter and entry that cannot be used; Kedro would quote pydantic."""

    @hook_impl
    def after_context_created(self, context: KedroContext) -> None:
        """Check all groups and entries, those that this run does not read too.

        Raises:
            InputError: With one sentence for each.
        """
        problems = wrong_parameters(context.config_loader["parameters"])
        problems += unknown_entries(context.config_loader["catalog"])
        if problems:
            raise InputError("\n".join(problems))


def wrong_parameters(given: dict[str, Any]) -> list[str]:
    """A sentence for each group and each key that does not exist, and for each unusable value."""
    inputs = {name for pipeline in pipelines.values() for name in pipeline.inputs()}
    known = {name.split(":")[1].split(".")[0] for name in inputs if name.startswith("params:")}
    problems = [
        f"parameters: there is no group {group!r}; {did_you_mean(group, known)}"
        for group in sorted(given.keys() - known - {AT})
    ]
    models: dict[str, type[BaseModel]] = TypeExtractor(
        dict(pipelines)
    ).extract_types_from_pipelines()
    for group in sorted(given.keys() & models.keys()):
        try:
            models[group].model_validate(given[group])
        except ValidationError as error:
            problems += sentences(models[group], error, group)
    return problems


def unknown_entries(catalog: dict[str, Any]) -> list[str]:
    """A sentence for each entry without a type: what it changes does not exist."""
    typed = {name for name, entry in catalog.items() if isinstance(entry, dict) and "type" in entry}
    untyped = {name for name in catalog.keys() - typed if not name.startswith("_")}
    return [
        f"catalog: there is no entry {name} to change, and it has no type of its own; "
        + (question if question.endswith("?") else "docs/data.md has the names")
        for name, question in ((name, did_you_mean(name, typed)) for name in sorted(untyped))
    ]


class InputCheck:
    """Loads what a run reads, so that a mistake shows before anything is generated or paid for."""

    @hook_impl(trylast=True)
    def before_pipeline_run(
        self, run_params: dict[str, Any], pipeline: Pipeline, catalog: DataCatalog
    ) -> None:
        """Check every free input; each endpoint is asked one cheap question.

        Raises:
            InputError: With one sentence per input that cannot be used.
            UnknownLoopError: There is no loop to go on with.
        """
        settings = LoopParameters.model_validate(catalog.load("params:loop"))
        if is_whole_loop(pipeline, settings):
            warn_of_no_room(
                FineTuningParameters.model_validate(catalog.load("params:fine_tuning")),
                EvaluationParameters.model_validate(catalog.load("params:evaluation")),
                settings,
            )
        for warning in stray_entries(catalog, settings):
            logger.warning(warning)
        account = Account(name=loop_of(run_params, catalog))
        loaded, found = load_inputs(pipeline, catalog, settings)
        problems = [problem for each in found.values() for problem in each]
        problems += shared_prompts(loaded)
        if not problems:
            problems = _unusable_endpoints(loaded, settings, account)
        if problems:
            raise InputError("\n".join(problems))


def stray_entries(catalog: DataCatalog, settings: LoopParameters) -> list[str]:
    """Entries that nothing uses, with a name so near to one in use that it may be meant."""
    used = {name for pipeline in pipelines.values() for name in pipeline.datasets()}
    used |= {settings.ledger}
    names = {name for name in catalog if not name.startswith("param")}
    asked = {name: did_you_mean(name, used) for name in sorted(names - used)}
    return [
        f"catalog: nothing reads or writes {name}; {question}"
        for name, question in asked.items()
        if question.endswith("?")
    ]


def load_inputs(
    pipeline: Pipeline, catalog: DataCatalog, settings: LoopParameters
) -> tuple[dict[str, Any], dict[str, list[str]]]:
    """Make every entry of a pipeline, and load what it reads.

    Returns:
        What was loaded, by name; and by name the problems of each entry that cannot be used.
    """
    loaded: dict[str, Any] = {}
    problems: dict[str, list[str]] = {}
    inputs = pipeline.inputs() - set(settings.carry)
    for name in sorted(name for name in pipeline.datasets() if not name.startswith("params:")):
        try:
            catalog.get(name)
            if name in inputs:
                loaded[name] = catalog.load(name)
        except DataValidationError as error:
            where = f"{name} ({catalog[name]._describe().get('filepath', '')})"
            problems[name] = [f"{where}: {each}" for each in _sentences(error)]
        except DatasetError as error:
            problems[name] = _entry_problems(name, error, catalog)
    return loaded, problems


def _entry_problems(name: str, error: DatasetError, catalog: DataCatalog) -> list[str]:
    """What Kedro says, but for mistakes in the entry's own keys."""
    cause = error.__cause__
    if isinstance(cause, InputError):
        return [f"{name}.{sentence}" for sentence in str(cause).splitlines()]
    if isinstance(cause, TypeError) and (found := UNKNOWN_KEY.search(str(cause))):
        key = found.group(1)
        known = {key for entry in catalog.config_resolver.config.values() for key in entry} - {key}
        return [f"{name}.{key}: an entry of this type has no such key; {did_you_mean(key, known)}"]
    return [str(error).strip()]


def _unusable_endpoints(
    loaded: dict[str, Any], settings: LoopParameters, account: Account
) -> list[str]:
    """What a wrong key, model or base_url would else show after minutes of training."""
    models = service_llms(loaded)
    for warning in same_models(models):
        logger.warning(warning)
    for name, model in models.items():
        _say_privacy(name, model.gate.settings)
    problems = unpriced(models, settings) or [
        f"{', '.join(names)}: {problem}"
        for names, problem in ask_each(models, account, loaded)
        if problem
    ]
    inference: InferenceEngine | None = loaded.get("inference")
    if inference and (problem := inference.check()):
        problems.append(f"inference: {problem}")
    return problems


def service_llms(loaded: dict[str, Any]) -> dict[str, ServiceLLM]:
    """Teacher and judges, by the names that a user knows them by."""
    judge: Judge = loaded.get("judge", Judge(()))
    models = {
        f"judge {member.model}" if n else "judge": member for n, member in enumerate(judge.jury)
    }
    teachers = {name: each for name, each in loaded.items() if isinstance(each, ServiceLLM)}
    if len(loaded.get("ready_pairs", ())):
        teachers.pop("service_llm", None)  # ready pairs stand in for it
    return {**models, **teachers}


def same_models(models: dict[str, ServiceLLM]) -> list[str]:
    """A warning for each judge that is the teacher too."""
    teacher = models.get("service_llm")
    return [
        SAME_MODEL % model.model
        for name, model in models.items()
        if teacher and name.startswith("judge") and are_one_model(teacher.model, model.model)
    ]


def unpriced(models: dict[str, ServiceLLM], settings: LoopParameters) -> list[str]:
    """Models whose price is unknown where there is a cap in money."""
    problems = {name: model.unknown_price(settings.budget) for name, model in models.items()}
    return [f"{name}: {problem}" for name, problem in problems.items() if problem]


def ask_each(
    models: dict[str, ServiceLLM], account: Account, loaded: dict[str, Any]
) -> Iterable[tuple[list[str], str | None]]:
    """Ask each endpoint one cheap question; those that are one and the same are asked once.

    Returns:
        Their names, and None or what is wrong.
    """
    names: dict[tuple[Any, ...], list[str]] = {}
    for name, model in models.items():
        same = (model.base_url, model.model, model.api_key, model.accepts, model.gate)
        names.setdefault(same, []).append(name)
    task = _first_prompt(loaded)
    with ThreadPoolExecutor() as pool:  # together they take no longer than one
        found = [*pool.map(lambda each: models[each[0]].check(account, task), names.values())]
    return zip(names.values(), found, strict=True)


def _say_privacy(name: str, settings: PrivacySettings) -> None:
    if settings.detect == "off":
        logger.warning("privacy is off: %s is sent your pairs as they are", name)
    else:
        logger.info("privacy: personal details are replaced (%s) for %s", settings.detect, name)


def _first_prompt(loaded: dict[str, Any]) -> list[dict[str, str]] | None:
    """Of the pairs that a service LLM is shown anyway; of no copy of a reserved one."""
    names = ["coverage_train", "coverage_test", "coverage_holdout"]
    if not loaded.keys() >= set(names):
        return None
    train, *reserved = splits = [loaded[name] for name in names]
    tokenizer = Tokenizer.of_task(pd.concat(splits))
    kept_apart = Reserved(
        NEAR, [tokenizer.tokens(text) for split in reserved for text in split["prompt"]]
    )
    for row in train.to_dict("records"):
        if not kept_apart.has_copy(tokenizer.tokens(row["prompt"])):
            return to_messages(row["system"], row["prompt"])
    return None


def shared_prompts(loaded: dict[str, Any]) -> list[str]:
    """A pair that is trained on, or shown to the service LLM, cannot test."""
    splits = {name: table for name, table in loaded.items() if name.startswith("coverage_")}
    ids = {
        name: dict(zip(table["prompt"].map(plain), table["id"], strict=True))
        for name, table in splits.items()
    }
    return [
        f"{one} and {other} share {len(shared)} prompt(s), such as that of {ids[one][shared[0]]} "
        f"in {one} and {ids[other][shared[0]]} in {other}; keep each pair in one of them"
        for one, other in combinations(ids, 2)
        if (shared := [prompt for prompt in ids[one] if prompt in ids[other]])
    ]


def _sentences(error: DataValidationError) -> list[str]:
    """What failed checks mean to the owner of a file."""
    if not error.failures:
        return [error.message]
    return [_sentence(failure) for failure in error.failures]


def _sentence(failure: CheckFailure) -> str:
    examples = ", ".join(quote(example, 80) for example in failure.failure_examples[:5])
    if failure.check == "column_in_dataframe":
        return f"expected a column {examples}, there is none; mend the file, or rename it"
    if failure.check == "has_rows":
        return "expected pairs, the file is empty"
    return (
        f"column {failure.column} fails {failure.check} in {failure.failure_count} row(s), "
        f"such as {examples}"
    )
