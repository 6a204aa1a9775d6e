"""``kedro doctor``."""

from typing import Any

import click
from kedro.framework.project import pipelines

from llamaduo.commands.start import PARAMS, project_context, run_option


@click.command(params=[run_option("env"), PARAMS])
@click.pass_context
def doctor(context: click.Context, /, env: str | None, params: dict[str, Any]) -> None:
    """Check in seconds what a run would meet: versions, GPU, disk, model, data, endpoints.

    Each endpoint is asked one cheap question, as before a run; nothing is generated or trained. The
    last lines estimate what a whole loop takes and costs.

    Exit code: 0 nothing to mend (there may be warnings), 1 otherwise.
    """
    from llamaduo.doctor import examine
    from llamaduo.doctor_display import show

    with project_context(env, params) as project:
        if show(examine(project, pipelines["__default__"])):
            context.exit(1)
