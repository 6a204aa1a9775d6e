"""``kedro loops``."""

import json
from contextlib import ExitStack
from dataclasses import asdict
from typing import NamedTuple

import click
from kedro.framework.project import pipelines

from llamaduo.commands.start import project_context

ENV = click.option("--env", "-e", metavar="ENV", help="The environment, as of kedro run.")
JSON = click.option("--json", "as_json", is_flag=True, help="Print JSON, for machines.")


class Given(NamedTuple):
    """Options before the name of a subcommand, which hold for it too."""

    env: str | None
    as_json: bool


@click.group(invoke_without_command=True)
@ENV
@JSON
@click.pass_context
def loops(context: click.Context, env: str | None, as_json: bool) -> None:
    """List loops and their iterations: scores, cost, size, and why they ended.

    Costs are those of each iteration itself, sizes those of its versions on the disk.
    """
    if context.invoked_subcommand:
        context.obj = Given(env, as_json)
        return
    from llamaduo.history import all_loops, history_of
    from llamaduo.history_display import show_loops

    with project_context(env) as project:
        found = all_loops(project.catalog, pipelines["__default__"])
        histories = [history_of(loop) for loop in found]
    if as_json:
        click.echo(json.dumps([asdict(each) for each in histories], indent=1, ensure_ascii=False))
    else:
        show_loops(histories, f"kedro run --env={env}" if env else "kedro run")


@loops.command()
@click.argument("one")
@click.argument("other")
@ENV
@JSON
@click.pass_obj
def compare(given: Given, one: str, other: str, env: str | None, as_json: bool) -> None:
    """Compare two iterations, prompt by prompt, and say what differs between them.

    ONE and OTHER are LOOP/ITERATION, or LOOP, which is its best iteration so far; kedro loops lists
    them. Scores compare only where judge, judge prompt, test set, engine and decoding are the same.
    """
    from llamaduo.history import all_loops
    from llamaduo.history import compare as compare_iterations
    from llamaduo.history_display import show_comparison

    with project_context(env or given.env) as project:
        found = all_loops(project.catalog, pipelines["__default__"])
        compared = compare_iterations(found, one, other)
    if as_json or given.as_json:
        click.echo(json.dumps(asdict(compared), indent=1, ensure_ascii=False))
    else:
        show_comparison(compared)


@loops.command()
@click.option("--dry-run", is_flag=True, help="Show what would be removed, and change nothing.")
@click.option("--yes", "-y", is_flag=True, help="Do not ask before removing.")
@ENV
@click.pass_obj
def prune(given: Given, dry_run: bool, yes: bool, env: str | None) -> None:
    """Remove all versions of iterations that are neither the best nor the last of their loop.

    A loop that has not ended keeps what its resume reads. An iteration that is under way stays.

    Exit code: 0 done, or nothing to prune; 1 refused, or failed.
    """
    if given.as_json:
        raise click.UsageError("prune has no --json; kedro loops --json tells what there is")
    from llamaduo.history import all_loops
    from llamaduo.history_display import show_removals
    from llamaduo.pruning import prunable
    from llamaduo.pruning import prune as prune_iteration

    with project_context(env or given.env) as project, ExitStack() as held:
        found = all_loops(project.catalog, pipelines["__default__"])
        if found and not dry_run:
            held.enter_context(found[0].ledger.held("kedro loops prune"))
        removals = [removal for loop in found for removal in prunable(loop)]
        show_removals(removals)
        if dry_run or not removals:
            click.echo("nothing was changed")
            return
        if not yes:
            click.confirm("Remove them?", abort=True)
        for removal in removals:
            prune_iteration(removal)
        click.echo("done")
