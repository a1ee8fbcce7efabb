"""`penstock projects`: parts of an organisation, and what each is limited to."""

from __future__ import annotations

import asyncpg
import click
import msgspec
from rich.console import Console
from rich.table import Table

from penstock.access import keys, limits, projects
from penstock.access.limits import NONE, RateLimits
from penstock.access.projects import Project
from penstock.changes import Change
from penstock.cli import database, rate_options
from penstock.settings import Settings

ORGANISATION = click.option("--organisation", default="default", show_default=True, help="Whose projects.")
JSON = click.option("--json", "as_json", is_flag=True, help="Print the project as JSON.")


@click.group()
def command() -> None:
    """Make, list, rename and limit projects. A project is made with its first key too."""


@command.command()
@click.argument("name")
@ORGANISATION
@JSON
def create(name: str, organisation: str, as_json: bool) -> None:
    """Make a project called NAME."""

    async def work(_: Settings, connection: asyncpg.Connection) -> Project:
        return await projects.create(connection, await keys.find_organisation(connection, organisation), name)

    made = database.run(work)
    click.echo(msgspec.json.encode(made) if as_json else f"{made.name} is there, without keys.")


@command.command()
@click.argument("name")
@click.argument("wanted")
@ORGANISATION
@JSON
def rename(name: str, wanted: str, organisation: str, as_json: bool) -> None:
    """Call the project NAME another name, WANTED; its keys, endpoints and bills go with it."""

    async def work(_: Settings, connection: asyncpg.Connection) -> Project:
        return await projects.rename(
            connection, await keys.find_organisation(connection, organisation), name, wanted
        )

    made = database.run(work)
    click.echo(msgspec.json.encode(made) if as_json else f"{name} is called {made.name} now.")


@command.command("list")
@ORGANISATION
@click.option("--json", "as_json", is_flag=True, help="Print a JSON list instead of a table.")
def show(organisation: str, as_json: bool) -> None:
    """List an organisation's projects."""

    async def work(_: Settings, connection: asyncpg.Connection) -> list[Project]:
        return await projects.listed(connection, await keys.find_organisation(connection, organisation))

    found = database.run(work)
    if as_json:
        click.echo(msgspec.json.encode(found))
        return
    table = Table(title=f"Projects of {organisation}")
    table.add_column("Project", overflow="fold")
    table.add_column("Keys", justify="right", no_wrap=True)
    table.add_column("Limits", overflow="fold")
    table.add_column("Made", no_wrap=True)
    for project in found:
        made = f"{project.created_at:%Y-%m-%d %H:%M}"
        table.add_row(project.name, f"{project.keys:,}", str(project.limits), made)
    Console().print(table)


@command.command()
@click.argument("name")
@ORGANISATION
@rate_options.options
@rate_options.NO_LIMIT
@click.option("--json", "as_json", is_flag=True, help="Print the limits as JSON.")
def limit(name: str, organisation: str, none: bool, as_json: bool, **given: int | str | None) -> None:
    """Limit project NAME, all its keys and endpoints together; without options, show its limits."""
    rate_options.check(given, none=none)

    async def work(told: Settings, connection: asyncpg.Connection) -> RateLimits:
        organisation_id = await keys.find_organisation(connection, organisation)
        now = await limits.of_project(connection, organisation_id, name)
        if not none and not rate_options.asked(given):
            return now
        wanted = NONE if none else rate_options.changed(now, given)
        await limits.limit_project(connection, organisation_id, name, wanted)
        await database.announce(told, Change.KEYS)
        return wanted

    rate_options.say(f"project {name}", database.run(work), as_json=as_json)
