"""`penstock keys`: make, list, limit and revoke API keys."""

from __future__ import annotations

import asyncpg
import click
import msgspec
from rich.console import Console
from rich.table import Table

from penstock.access import keys, limits, names
from penstock.access.limits import NONE, RateLimits
from penstock.access.roles import Role
from penstock.changes import Change
from penstock.cli import database, rate_options
from penstock.settings import Settings

WIDE = 100
"""Columns of a screen that has room for more than must be said."""
ORGANISATION = click.option(
    "--organisation", default="default", show_default=True, help="Whose keys; `create` makes a new one."
)


@click.group()
def command() -> None:
    """Make, list, limit and revoke API keys."""


@command.command()
@click.argument("name")
@ORGANISATION
@click.option("--project", default="default", show_default=True)
@click.option(
    "--role",
    type=click.Choice([role.value for role in Role]),
    default=Role.DEVELOPER.value,
    show_default=True,
    help="What it may do beside calling models: viewer looks, developer changes, owner decides who belongs.",
)
@click.option("--json", "as_json", is_flag=True, help='Print {"api_key": …} instead.')
def create(name: str, organisation: str, project: str, role: str, as_json: bool) -> None:
    """Make a key called NAME and show it, this once."""

    async def work(told: Settings, connection: asyncpg.Connection) -> str:
        key = await keys.create(
            connection,
            told.pepper,
            name=names.checked(name),
            organisation=organisation,
            project=project,
            role=Role(role),
        )
        await database.announce(told, Change.KEYS)
        return key

    key = database.run(work)
    if as_json:
        click.echo(msgspec.json.encode({"api_key": key}))
        return
    click.echo(key)
    click.echo("Keep it: it is not stored and cannot be shown again.", err=True)


@command.command("list")
@ORGANISATION
@click.option("--json", "as_json", is_flag=True, help="Print a JSON list instead of a table.")
def show(organisation: str, as_json: bool) -> None:
    """List every key, newest first; secrets are not stored."""

    async def work(
        _: Settings, connection: asyncpg.Connection
    ) -> tuple[list[keys.ListedKey], dict[str, RateLimits]]:
        organisation_id = await keys.find_organisation(connection, organisation)
        limited = await limits.limited_keys(connection, organisation_id)
        return await keys.listed(connection, organisation_id), {each.id: each.limits for each in limited}

    found, limited = database.run(work)
    if as_json:
        shown = [msgspec.to_builtins(key) | {"limits": limited.get(key.id, NONE)} for key in found]
        click.echo(msgspec.json.encode(shown))
        return
    console = Console()
    wide = console.width >= WIDE
    table = Table(title=f"API keys of {organisation}")
    table.add_column("Id", no_wrap=True)
    table.add_column("Name", overflow="fold")
    table.add_column("Project", overflow="fold")
    table.add_column("Role", no_wrap=True)
    if wide:
        table.add_column("Ends in", no_wrap=True)
        table.add_column("Made", no_wrap=True)
    table.add_column("Limits", overflow="fold")
    table.add_column("Revoked", overflow="fold")
    for key in found:
        made, revoked = (f"{t:%Y-%m-%d %H:%M}" if t else "" for t in (key.created_at, key.revoked_at))
        more = [f"…{key.last_four}", made] if wide else []
        limit = limited.get(key.id, NONE)
        table.add_row(
            key.id, key.name, key.project, key.role.value, *more, "" if limit == NONE else str(limit), revoked
        )
    console.print(table)


@command.command()
@click.argument("key_id")
@ORGANISATION
def revoke(key_id: str, organisation: str) -> None:
    """End the key with this id (see `penstock keys list`); every gateway refuses it within seconds."""

    async def work(told: Settings, connection: asyncpg.Connection) -> None:
        await keys.revoke(connection, await keys.find_organisation(connection, organisation), key_id)
        await database.announce(told, Change.KEYS)

    database.run(work)
    click.echo(f"{key_id} is revoked.")


@command.command()
@click.argument("key_id")
@ORGANISATION
@rate_options.options
@rate_options.NO_LIMIT
@click.option("--json", "as_json", is_flag=True, help="Print the limits as JSON.")
def limit(key_id: str, organisation: str, none: bool, as_json: bool, **given: int | str | None) -> None:
    """Limit the key with this id (see `penstock keys list`); without options, show its limits."""
    rate_options.check(given, none=none)

    async def work(told: Settings, connection: asyncpg.Connection) -> RateLimits:
        organisation_id = await keys.find_organisation(connection, organisation)
        now = await limits.of_key(connection, organisation_id, key_id)
        if not none and not rate_options.asked(given):
            return now
        wanted = NONE if none else rate_options.changed(now, given)
        await limits.limit_key(connection, organisation_id, key_id, wanted)
        await database.announce(told, Change.KEYS)
        return wanted

    rate_options.say(f"key {key_id}", database.run(work), as_json=as_json)
