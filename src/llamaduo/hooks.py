"""What happens before a part of the loop runs: it is pinned to what is committed."""

import logging
from typing import Any

from kedro.framework.hooks import hook_impl
from kedro.io import AbstractVersionedDataset, DataCatalog, Version
from kedro.io.core import VersionNotFoundError
from kedro.pipeline import Pipeline

from llamaduo.attachment import pin_attached
from llamaduo.errors import InputError
from llamaduo.iterations import is_whole_loop, pinned_versions
from llamaduo.ledger import Ledger, version
from llamaduo.parameters import (
    IterationParameters,
    LoopParameters,
)
from llamaduo.service_llm.budget import Account

NO_VERSION = version("none", 0)
"""Never made: a load of it finds nothing."""
NEAR = 0.7
"""ROUGE-L F1."""
SAME_MODEL = (
    "%s is both teacher and judge; a model favours what it taught (arXiv 2502.01534). Let another "
    "model judge, or add one to the jury"
)

logger = logging.getLogger(__name__)


class SlicePins:
    """Lets a part of the loop read what is committed, whatever lies in newer folders."""

    @hook_impl(tryfirst=True)
    def before_pipeline_run(
        self, run_params: dict[str, Any], pipeline: Pipeline, catalog: DataCatalog
    ) -> None:
        """Pin the free inputs of a slice; versions that the user names stay."""
        if pin_attached(run_params, pipeline, catalog):
            return
        settings = LoopParameters.model_validate(catalog.load("params:loop"))
        named = set(run_params["load_versions"] or {})
        if is_whole_loop(pipeline, settings) and "LoopRunner" in run_params["runner"]:
            if made := named & pipeline.all_outputs():
                raise InputError(
                    f"--load-versions names {', '.join(sorted(made))}, which the loop makes anew "
                    "in each iteration; run a part of it, such as --pipelines=evaluation"
                )
            return
        ledger: Ledger = catalog.load(settings.ledger)
        complete = ledger.last_complete()
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
                pin = pins.get(name) or _latest_whole(name, dataset, ledger)
                # In place: a replaced entry would lose its validator.
                dataset._version = Version(pin, dataset._version.save)


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
