"""``llamaduo forget``."""

from contextlib import ExitStack

import click

from llamaduo.commands.start import configuration_folder, errors_as_sentences


@click.command()
@click.option(
    "--matching",
    metavar="TEXT",
    multiple=True,
    required=True,
    help="A name, an address, a number: 3 characters or more. Repeat it for each spelling.",
)
@click.option("--dry-run", is_flag=True, help="Show what would be removed, and change nothing.")
@click.option("--yes", "-y", is_flag=True, help="Do not ask before removing.")
def forget(matching: tuple[str, ...], dry_run: bool, yes: bool) -> None:
    """Remove a person's rows from all that this project keeps.

    Name every address and every name of the person, each form by itself: behind the privacy gate an
    address is gone, and a name may stay.

    Looks for TEXT, in whole words, in the files that the catalogs of all environments name and in
    all below their data roots, whatever the case, white space and escapes are. Rows of tables are
    removed, with what was made from them, in the journal only the texts, and reports made from
    such rows whole. Adapters that were trained on them are listed, not removed.

    Exit code: 0 done, or nothing found; 1 refused, or failed.
    """
    from llamaduo.forgetting.display import show
    from llamaduo.forgetting.findings import find
    from llamaduo.forgetting.places import places_of
    from llamaduo.forgetting.wanted import Wanted

    with errors_as_sentences(), ExitStack() as held:
        wanted = Wanted(matching)
        places = places_of(configuration_folder().parent)
        for ledger in () if dry_run else places.ledgers:
            held.enter_context(ledger.held("llamaduo forget"))
        found = find(places, wanted)
        show(found, places.remote)
        if dry_run:
            click.echo("nothing was changed")
            return
        if not (found.is_empty or yes):
            click.confirm("Remove them?", abort=True)
        found.remove()
        click.echo("done")
