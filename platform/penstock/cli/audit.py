"""`penstock audit`: who changed what, when."""

from __future__ import annotations

import csv
import sys
from datetime import datetime

import asyncpg
import click
import msgspec
from rich.console import Console
from rich.table import Table

from penstock.access import keys
from penstock.access.audit import entries, words
from penstock.access.audit.entries import ACTIONS, THINGS, Asked, Entry
from penstock.cli import database, moments
from penstock.cli.moments import Moment
from penstock.settings import Settings


@click.command()
@click.option("--organisation", help="Whose log; without it, of all organisations and the installation.")
@click.option("--who", default="", help="Part of the name of whoever did it, or a whole id.")
@click.option("--what", type=click.Choice(THINGS), help="The kind of thing.")
@click.option("--action", type=click.Choice(ACTIONS), help="What was done to it.")
@click.option("--name", default="", help="Part of the thing's name, or its whole id.")
@click.option("--since", type=Moment(), default=None, help="From this moment on.")
@click.option("--until", type=Moment(), default=None, help="Before this moment.")
@click.option(
    "--after", default="", help="Behind this place: the last column of --csv, or `place` of --json."
)
@click.option("--limit", type=click.IntRange(1, 10_000), default=50, show_default=True)
@click.option("--csv", "as_csv", is_flag=True, help="Print CSV.")
@click.option("--json", "as_json", is_flag=True, help="Print a JSON list.")
def command(
    organisation: str | None,
    who: str,
    what: str | None,
    action: str | None,
    name: str,
    since: datetime | None,
    until: datetime | None,
    after: str,
    limit: int,
    as_csv: bool,
    as_json: bool,
) -> None:
    """Show who changed what, the newest first.

    Every change of keys, projects, members, people, endpoints, adapters, budgets, credit, prices, plans,
    limits and pools is here, also one that somebody made by SQL.
    """
    try:
        place = entries.read_place(after)
    except entries.UnreadablePlace as error:
        raise click.UsageError(f"--after: {error}") from None

    async def work(_: Settings, connection: asyncpg.Connection) -> tuple[list[Entry], dict[int, str]]:
        owner = None if organisation is None else await keys.find_organisation(connection, organisation)
        asked = Asked(
            organisation_id=owner,
            since=since or entries.BEGINNING,
            until=until or entries.END,
            who=who,
            thing=what or "",
            action=action or "",
            name=name,
        )
        found = await entries.page(connection, asked, place, limit)
        return found, await entries.organisations(connection, found)

    found, names = database.run(work)
    if as_json:
        shown = [msgspec.to_builtins(each) | {"place": str(each.place)} for each in found]
        click.echo(msgspec.json.encode(shown))
    elif as_csv:
        writer = csv.writer(sys.stdout)
        writer.writerow(words.COLUMNS)
        writer.writerows(words.row(each, names) for each in found)
    else:
        _print(found, names, organisation)


def _print(found: list[Entry], names: dict[int, str], organisation: str | None) -> None:
    table = Table(title=f"Audit log of {organisation or 'the installation'}")
    table.add_column("When (UTC)", no_wrap=True)
    if organisation is None:
        table.add_column("Organisation", overflow="fold")
    table.add_column("Who", overflow="fold")
    table.add_column("What", overflow="fold")
    table.add_column("Changes", overflow="fold")
    for each in found:
        where = [] if organisation is not None else [names.get(each.organisation_id or 0, "")]
        changes = "\n".join(f"{line.field}: {line.before} → {line.after}" for line in words.changes(each))
        table.add_row(moments.shown(each.at), *where, words.who(each), words.deed(each), changes)
    Console().print(table)
