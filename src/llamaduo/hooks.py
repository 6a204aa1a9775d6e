"""What is looked at, or run in part, is pinned to what is committed."""

from typing import Any

from kedro.framework.hooks import hook_impl
from kedro.framework.project import pipelines
from kedro.io import AbstractVersionedDataset, DataCatalog
from kedro.io.core import VersionNotFoundError
from kedro.pipeline import Pipeline

from llamaduo.attachment import pin_attached
from llamaduo.errors import InputError
from llamaduo.iterations import (
    AT,
    OF_THE_BEST,
    chosen_iteration,
    is_whole_loop,
    pin,
    pinned_versions,
)
from llamaduo.ledger import Ledger, version
from llamaduo.parameters import IterationParameters, LoopParameters
from llamaduo.service_llm.budget import Account

NO_VERSION = version("none", 0)
"""Never made: a load of it finds nothing."""


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
        if f"params:{AT}" not in parameters:
            return
        settings = LoopParameters.model_validate(catalog.load("params:loop"))
        ledger: Ledger = catalog.load(settings.ledger)
        chosen = chosen_iteration(catalog.load(f"params:{AT}"), ledger)
        pins = pinned_versions(ledger.committed(*chosen), settings, *chosen)
        for name in pins.keys() - (load_versions or {}).keys():
            pin(catalog.get(name), pins[name])

    @hook_impl(tryfirst=True)
    def before_pipeline_run(
        self, run_params: dict[str, Any], pipeline: Pipeline, catalog: DataCatalog
    ) -> None:
        """Pin the free inputs of a part of the loop; versions that the user names stay."""
        if pin_attached(run_params, pipeline, catalog):
            return
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
        if f"params:{AT}" in catalog:
            complete = chosen_iteration(catalog.load(f"params:{AT}"), ledger)
        elif any(OF_THE_BEST in node.tags for node in pipeline.nodes):
            complete = chosen_iteration("best", ledger)
        _refuse_part(pipeline)
        pins = dict.fromkeys(settings.carry, NO_VERSION)
        if complete:
            pins = pinned_versions(ledger.committed(*complete), settings, *complete)
        # A slice pays for itself, up to the caps of a loop.
        account = Account(name=run_params["run_id"], caps=settings.budget)
        loop, index = complete or ("", 1)
        iteration = IterationParameters(index=index, loop=loop, account=account)
        catalog.save("params:iteration", iteration)
        for name in pipeline.inputs() - named:
            dataset = catalog.get(name)
            if isinstance(dataset, AbstractVersionedDataset) and dataset._version:
                pin(dataset, pins.get(name) or _latest_whole(name, dataset, ledger))
        for name in pipeline.all_outputs() - named:
            pin(catalog.get(name), None)  # what a node has just made is what the next one reads


def _refuse_to_begin_inside(pipeline: Pipeline, catalog: DataCatalog, named: set[str]) -> None:
    if made := named & pipeline.all_outputs():
        raise InputError(
            f"--load-versions names {', '.join(sorted(made))}, which the loop makes anew in each "
            "iteration; run a part of it, such as --pipelines=evaluation"
        )
    if f"params:{AT}" in catalog:
        raise InputError(
            "at is for looking and for a part of the loop, such as --pipelines=evaluation "
            "--params=at=2; a whole loop begins with its first iteration"
        )


def _refuse_part(pipeline: Pipeline) -> None:
    """What is not of the loop has no ledger to tell which versions belong together."""
    tagged = {node.name for node in pipeline.nodes if OF_THE_BEST in node.tags}
    for name, whole in pipelines.items():
        every = {node.name for node in whole.nodes if OF_THE_BEST in node.tags}
        if tagged & every and every - tagged:
            raise InputError(
                f"{name} runs as a whole, so that nothing is mixed of two iterations: "
                f"kedro run --pipelines={name}. What the judge has answered is not asked again"
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
