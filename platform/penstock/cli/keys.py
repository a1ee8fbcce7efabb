"""`penstock keys`: make, list and revoke API keys."""

from __future__ import annotations

import asyncpg
import click
import msgspec
from rich.console import Console
from rich.table import Table

from penstock.access import keys
from penstock.changes import Change, Changes
from penstock.cli import database
from penstock.settings import Settings

ORGANISATION = click.option(
    "--organisation", default="default", show_default=True, help="Whose keys; `create` makes a new one."
)


@click.group()
def command() -> None:
    """Make, list and revoke API keys."""


@command.command()
@click.argument("name")
@ORGANISATION
@click.option("--project", default="default", show_default=True)
@click.option("--json", "as_json", is_flag=True, help='Print {"api_key": …} instead.')
def create(name: str, organisation: str, project: str, as_json: bool) -> None:
    """Make a key called NAME and show it, this once."""

    async def work(told: Settings, connection: asyncpg.Connection) -> str:
        key = await keys.create(
            connection, told.pepper, name=name, organisation=organisation, project=project
        )
        await _announce(told)
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

    async def work(_: Settings, connection: asyncpg.Connection) -> list[keys.ListedKey]:
        return await keys.listed(connection, await keys.find_organisation(connection, organisation))

    found = database.run(work)
    if as_json:
        click.echo(msgspec.json.encode(found))
        return
    table = Table("Id", "Name", "Project", "Ends in", "Made", "Revoked", title=f"API keys of {organisation}")
    for key in found:
        made, revoked = (f"{t:%Y-%m-%d %H:%M}" if t else "" for t in (key.created_at, key.revoked_at))
        table.add_row(key.id, key.name, key.project, f"…{key.last_four}", made, revoked)
    Console().print(table)


@command.command()
@click.argument("key_id")
@ORGANISATION
def revoke(key_id: str, organisation: str) -> None:
    """End the key with this id (see `penstock keys list`); every gateway refuses it within seconds."""

    async def work(told: Settings, connection: asyncpg.Connection) -> None:
        await keys.revoke(connection, await keys.find_organisation(connection, organisation), key_id)
        await _announce(told)

    database.run(work)
    click.echo(f"{key_id} is revoked.")


async def _announce(told: Settings) -> None:
    changes = Changes(told.redis_url)
    await changes.tell(Change.KEYS)
    await changes.close()
