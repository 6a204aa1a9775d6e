"""The project's pipelines."""

from kedro.pipeline import Pipeline

from llamaduo.pipelines import (
    baselines,
    coverage,
    data_synthesis,
    deployment,
    evaluation,
    fine_tuning,
)


def register_pipelines() -> dict[str, Pipeline]:
    """The loop's three pipelines, together ``__default__``, and those run by name."""
    loop = {
        "data_synthesis": data_synthesis.create_pipeline(),
        "fine_tuning": fine_tuning.create_pipeline(),
        "evaluation": evaluation.create_pipeline(),
    }
    return {
        **loop,
        "coverage": coverage.create_pipeline(),
        "baselines": baselines.create_pipeline(),
        "deployment": deployment.create_pipeline(),
        "__default__": sum(loop.values(), Pipeline([])),
    }
