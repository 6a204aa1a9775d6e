"""What happens before a run: inputs are checked, versions are pinned."""

import logging
from concurrent.futures import ThreadPoolExecutor
from itertools import combinations
from typing import Any

import pandas as pd
from kedro.framework.hooks import hook_impl
from kedro.framework.project import pipelines
from kedro.io import AbstractVersionedDataset, DataCatalog, DatasetError, Version
from kedro.io.core import VersionNotFoundError
from kedro.pipeline import Pipeline
from kedro.validation.exceptions import CheckFailure, DataValidationError

from llamaduo.errors import InputError
from llamaduo.iterations import chosen_iteration, is_whole_loop, pinned_versions
from llamaduo.ledger import Ledger, version
from llamaduo.local_llm.chat import to_messages
from llamaduo.local_llm.engines import InferenceEngine
from llamaduo.near_duplicates import Reserved, Tokenizer, plain
from llamaduo.parameters import (
    EvaluationParameters,
    FineTuningParameters,
    IterationParameters,
    LoopParameters,
)
from llamaduo.service_llm.budget import Account
from llamaduo.service_llm.client import ServiceLLM
from llamaduo.service_llm.jury import Judge, are_one_model
from llamaduo.service_llm.privacy import PrivacySettings, quote
from llamaduo.tuning import warn_of_no_room

NO_VERSION = version("none", 0)
"""Never made: a load of it finds nothing."""
AT = "params:at"
"""Given by ``--params=at=...``."""
NEAR = 0.7
"""ROUGE-L F1."""
SAME_MODEL = (
    "%s is both teacher and judge; a model favours what it taught (arXiv 2502.01534). Let another "
    "model judge, or add one to the jury"
)

logger = logging.getLogger(__name__)


class Pins:
    """Lets what is looked at, or run in part, be of one iteration that is committed."""

    @hook_impl
    def after_catalog_created(
        self,
        catalog: DataCatalog,
        parameters: dict[str, Any],
        load_versions: dict[str, str] | None,
    ) -> None:
        """With ``--params=at=...``, read all of that iteration: in Kedro-Viz, notebooks and runs.

        Raises:
            InputError: There is no such iteration.
        """
        if AT not in parameters:
            return
        settings = LoopParameters.model_validate(catalog.load("params:loop"))
        ledger: Ledger = catalog.load(settings.ledger)
        chosen = chosen_iteration(catalog.load(AT), ledger)
        pins = pinned_versions(ledger.committed(*chosen), settings, *chosen)
        for name in pins.keys() - (load_versions or {}).keys():
            _pin(catalog.get(name), pins[name])

    @hook_impl(tryfirst=True)
    def before_pipeline_run(
        self, run_params: dict[str, Any], pipeline: Pipeline, catalog: DataCatalog
    ) -> None:
        """Pin the free inputs of a part of the loop; versions that the user names stay."""
        settings = LoopParameters.model_validate(catalog.load("params:loop"))
        named = set(run_params["load_versions"] or {})
        if is_whole_loop(pipeline, settings) and "LoopRunner" in run_params["runner"]:
            _refuse_to_begin_inside(pipeline, catalog, named)
            return
        if not is_whole_loop(pipeline, settings):
            # By this key, which Kedro itself has dropped, Kedro-Viz tells a part from a loop, whose
            # place it would else take in the Workflow view.
            run_params["pipeline_name"] = "a part of the loop"
        ledger: Ledger = catalog.load(settings.ledger)
        complete = ledger.last_complete()
        if AT in catalog:
            complete = chosen_iteration(catalog.load(AT), ledger)
        pins = dict.fromkeys(settings.carry, NO_VERSION)
        if complete:
            pins = pinned_versions(ledger.committed(*complete), settings, *complete)
        # A slice pays for itself, up to the caps of a loop.
        account = Account(name=run_params["run_id"], caps=settings.budget)
        iteration = IterationParameters(index=complete[1] if complete else 1, account=account)
        catalog.save("params:iteration", iteration)
        for name in pipeline.inputs() - named:
            dataset = catalog.get(name)
            if isinstance(dataset, AbstractVersionedDataset) and dataset._version:
                _pin(dataset, pins.get(name) or _latest_whole(name, dataset, ledger))
        for name in pipeline.all_outputs() - named:
            _pin(catalog.get(name), None)  # what a node has just made is what the next one reads


def _pin(dataset: Any, pin: str | None) -> None:
    if isinstance(dataset, AbstractVersionedDataset) and dataset._version:
        # In place: a replaced entry would lose its validator.
        dataset._version = Version(pin, dataset._version.save)


def _refuse_to_begin_inside(pipeline: Pipeline, catalog: DataCatalog, named: set[str]) -> None:
    if made := named & pipeline.all_outputs():
        raise InputError(
            f"--load-versions names {', '.join(sorted(made))}, which the loop makes anew in each "
            "iteration; run a part of it, such as --pipelines=evaluation"
        )
    if AT in catalog:
        raise InputError(
            "at is for looking and for a part of the loop, such as --pipelines=evaluation "
            "--params=at=2; a whole loop begins with its first iteration"
        )


def _latest_whole(name: str, dataset: AbstractVersionedDataset[Any, Any], ledger: Ledger) -> str:
    """The latest version that no interrupted loop has left half made."""
    loops = set(ledger.loops())
    try:
        versions = dataset.list_versions(full_path=False)
    except VersionNotFoundError:
        return NO_VERSION
    for each in versions:
        loop, _, iteration = each.rpartition("-i")
        if loop not in loops or name in ledger.committed(loop, int(iteration)):
            return each
    return NO_VERSION


class InputCheck:
    """Loads what a run reads, so that a mistake shows before anything is generated or paid for."""

    @hook_impl(trylast=True)
    def before_pipeline_run(
        self, run_params: dict[str, Any], pipeline: Pipeline, catalog: DataCatalog
    ) -> None:
        """Check every free input; each endpoint is asked one cheap question.

        Raises:
            InputError: With one sentence per input that cannot be used.
        """
        settings = LoopParameters.model_validate(catalog.load("params:loop"))
        if is_whole_loop(pipeline, settings):
            warn_of_no_room(
                FineTuningParameters.model_validate(catalog.load("params:fine_tuning")),
                EvaluationParameters.model_validate(catalog.load("params:evaluation")),
                settings,
            )
        problems = _unknown_groups(set(catalog.load("parameters")))
        loaded = {}
        for name in sorted(pipeline.inputs() - set(settings.carry)):
            if name.startswith("params:"):
                continue
            try:
                loaded[name] = catalog.load(name)
            except DataValidationError as error:
                where = f"{name} ({catalog[name]._describe().get('filepath', '')})"
                problems += [f"{where}: {each}" for each in _sentences(error)]
            except DatasetError as error:
                problems.append(str(error))
        problems += _shared_prompts({n: t for n, t in loaded.items() if n.startswith("coverage_")})
        if not problems:
            account = Account(name=run_params["run_id"])
            problems = _unusable_service_llms(loaded, settings, account)
            inference: InferenceEngine | None = loaded.get("inference")
            if inference and (problem := inference.check()):
                problems.append(f"inference: {problem}")
        if problems:
            raise InputError("\n".join(problems))


def _unknown_groups(given: set[str]) -> list[str]:
    """Kedro would ignore a group of parameters that no node reads."""
    inputs = {name for pipeline in pipelines.values() for name in pipeline.inputs()}
    known = {name.split(":")[1].split(".")[0] for name in {*inputs, AT} if ":" in name}
    return [
        f"parameters: there is no group {group!r}; known are {', '.join(sorted(known))}"
        for group in sorted(given - known)
    ]


def _unusable_service_llms(
    loaded: dict[str, Any], settings: LoopParameters, account: Account
) -> list[str]:
    """What a wrong key, model or base_url would else show after minutes of training."""
    models = {name: each for name, each in loaded.items() if isinstance(each, ServiceLLM)}
    if len(loaded.get("ready_pairs", ())):
        models.pop("service_llm", None)  # ready pairs stand in for it
    judge: Judge = loaded.get("judge", Judge(()))
    for member in judge.jury:
        if "service_llm" in models and are_one_model(models["service_llm"].model, member.model):
            logger.warning(SAME_MODEL, member.model)
    models = {
        **{
            f"judge {member.model}" if n else "judge": member for n, member in enumerate(judge.jury)
        },
        **models,
    }
    for name, model in models.items():
        _say_privacy(name, model.gate.settings)
    unpriced = [
        f"{name}: {problem}"
        for name, model in models.items()
        if (problem := model.unknown_price(settings.budget))
    ]
    if unpriced:
        return unpriced
    names: dict[tuple[Any, ...], list[str]] = {}
    for name, model in models.items():
        same = (model.base_url, model.model, model.api_key, model.accepts, model.gate)
        names.setdefault(same, []).append(name)
    task = _first_prompt(loaded)
    with ThreadPoolExecutor() as pool:  # together they take no longer than one
        found = pool.map(lambda each: models[each[0]].check(account, task), names.values())
        return [
            f"{', '.join(each)}: {problem}"
            for each, problem in zip(names.values(), found, strict=True)
            if problem
        ]


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


def _shared_prompts(splits: dict[str, pd.DataFrame]) -> list[str]:
    """A pair that is trained on, or shown to the service LLM, cannot test."""
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
