"""`penstock serverless-endpoint`: models under names, URLs and keys of their own."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import asyncpg
import click
import msgspec
from rich.console import Console
from rich.table import Table

from penstock.access import keys
from penstock.access.limits import NONE
from penstock.changes import Change, Changes
from penstock.cli import database
from penstock.cli.pools import find_card
from penstock.endpoints import files, serverless
from penstock.endpoints.serverless import Endpoint, Slot, Wish
from penstock.endpoints.standing import EndpointStanding, standing_of
from penstock.routing.directory import Directory
from penstock.settings import Settings
from penstock_base import database as floor

SUSPENDED = "suspended by whoever runs the platform"
ORGANISATION = click.option("--organisation", default="default", show_default=True, help="Whose endpoints.")


@click.group()
def command() -> None:
    """Serve a model of the catalog under a name, a URL and keys of its own."""


@command.command()
@click.option("--name", help="Of the endpoint; it becomes a part of its URL.")
@click.option("--model", help="A model that the catalog offers serverless.")
@click.option("--project", default="default", show_default=True)
@click.option("--description", default="", help="What it is for.")
@click.option("--tag", "tags", multiple=True, metavar="NAME=VALUE")
@click.option(
    "--file",
    "file",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="YAML instead of the options.",
)
@ORGANISATION
@click.option("--json", "as_json", is_flag=True, help="Print JSON, keys included.")
def create(
    name: str | None,
    model: str | None,
    project: str,
    description: str,
    tags: tuple[str, ...],
    file: Path | None,
    organisation: str,
    as_json: bool,
) -> None:
    """Make an endpoint and show its two keys, this once."""
    if file is None and (name is None or model is None):
        raise click.UsageError("name the endpoint and its model: --name and --model, or --file")
    wish = Wish(description=description, tags=_tags(tags))
    named, wanted = name or "", model or ""
    if file is not None:
        named, wanted, wish = _from_file(file)

    async def work(told: Settings, connection: asyncpg.Connection) -> dict[Slot, str]:
        organisation_id = await keys.find_organisation(connection, organisation)
        project_id = await keys.find_project(connection, organisation_id, project)
        made = await serverless.create(
            connection, told.pepper, organisation_id, project_id, named, find_card(told, wanted), wish
        )
        await _announce(told, Change.ENDPOINTS)
        return made

    made = database.run(work)
    if as_json:
        secrets = {f"{slot.value}_key": text for slot, text in made.items()}
        click.echo(msgspec.json.encode({"name": named, **secrets}))
        return
    click.echo(f"{named} serves {wanted} at <base URL>/serverless/{named}/v1")
    for slot, text in made.items():
        click.echo(f"{slot.value} key: {text}")
    click.echo("Keep the keys: they are not stored and cannot be shown again.", err=True)


@command.command("list")
@ORGANISATION
@click.option("--json", "as_json", is_flag=True, help="Print a JSON list instead of a table.")
def show_all(organisation: str, as_json: bool) -> None:
    """List an organisation's endpoints."""

    async def work(
        told: Settings, connection: asyncpg.Connection
    ) -> tuple[list[Endpoint], list[EndpointStanding]]:
        found = await serverless.listed(connection, await keys.find_organisation(connection, organisation))
        return found, await _standings(told, found)

    found, standings = database.run(work)
    if as_json:
        click.echo(msgspec.json.encode([_shown(*pair) for pair in zip(found, standings, strict=True)]))
        return
    table = Table(
        "Name", "Model", "Project", "State", "Made", title=f"Serverless endpoints of {organisation}"
    )
    for endpoint, standing in zip(found, standings, strict=True):
        reason = f": {standing.reason}" if standing.reason else ""
        made = f"{endpoint.created_at:%Y-%m-%d %H:%M}"
        table.add_row(endpoint.name, endpoint.model, endpoint.project, f"{standing.state}{reason}", made)
    Console().print(table)


@command.command()
@click.argument("name")
@ORGANISATION
def show(name: str, organisation: str) -> None:
    """Show one endpoint."""

    async def work(told: Settings, connection: asyncpg.Connection) -> tuple[Endpoint, EndpointStanding]:
        organisation_id = await keys.find_organisation(connection, organisation)
        endpoint = await serverless.find(connection, organisation_id, name)
        return endpoint, (await _standings(told, [endpoint]))[0]

    table = Table(title=name, show_header=False)
    for field, value in _shown(*database.run(work)).items():
        table.add_row(field, str(value))
    Console().print(table)


@command.command()
@click.argument("name")
@click.option("--description")
@click.option(
    "--tag", "tags", multiple=True, metavar="NAME=VALUE", help="All tags; those not named are gone."
)
@click.option("--suspend/--resume", "suspended", default=None, help="Take no requests, or take them again.")
@click.option("--requests-per-minute", type=int, help="0 for no limit.")
@click.option("--tokens-per-minute", type=int, help="0 for no limit.")
@click.option("--concurrent-requests", type=int, help="0 for no limit.")
@ORGANISATION
def update(
    name: str,
    description: str | None,
    tags: tuple[str, ...],
    suspended: bool | None,
    organisation: str,
    **limits: int | None,
) -> None:
    """Change an endpoint; what is not named stays."""

    async def work(told: Settings, connection: asyncpg.Connection) -> None:
        organisation_id = await keys.find_organisation(connection, organisation)
        now = await serverless.find(connection, organisation_id, name)
        said = {field: value or None for field, value in limits.items() if value is not None}
        wish = Wish(
            description=now.description if description is None else description,
            tags=_tags(tags) if tags else now.tags,
            limits=msgspec.structs.replace(now.limits, **said),
            suspended=now.suspended
            if suspended is None
            else "suspended by an operator"
            if suspended
            else None,
        )
        await serverless.change(connection, organisation_id, name, wish)
        await _announce(told, Change.ENDPOINTS)

    database.run(work)
    click.echo(f"{name} is changed; gateways know within a second.")


@command.command()
@click.argument("name")
@ORGANISATION
def delete(name: str, organisation: str) -> None:
    """End an endpoint and its keys; what was billed under it stays readable."""

    async def work(told: Settings, connection: asyncpg.Connection) -> None:
        await serverless.delete(connection, await keys.find_organisation(connection, organisation), name)
        await _announce(told, Change.ENDPOINTS, Change.KEYS)

    database.run(work)
    click.echo(f"{name} is gone.")


@command.command("get-credentials")
@click.argument("name")
@ORGANISATION
def get_credentials(name: str, organisation: str) -> None:
    """Show which keys an endpoint has; secrets are not stored."""

    async def work(_: Settings, connection: asyncpg.Connection) -> list[serverless.KeyShown]:
        organisation_id = await keys.find_organisation(connection, organisation)
        endpoint = await serverless.find(connection, organisation_id, name)
        return await serverless.credentials(connection, endpoint.id)

    table = Table("Key", "Id", "Ends in", "Made", title=f"Keys of {name}")
    for key in database.run(work):
        table.add_row(key.slot.value, key.id, f"…{key.last_four}", f"{key.created_at:%Y-%m-%d %H:%M}")
    Console().print(table)
    click.echo(
        f"A lost key is replaced: `penstock serverless-endpoint regenerate-keys {name} --key-type primary`."
    )


@command.command("regenerate-keys")
@click.argument("name")
@click.option("--key-type", type=click.Choice([slot.value for slot in Slot]), required=True)
@ORGANISATION
def regenerate_keys(name: str, key_type: str, organisation: str) -> None:
    """Replace one of an endpoint's two keys and show it, this once; the other works on."""

    async def work(told: Settings, connection: asyncpg.Connection) -> str:
        organisation_id = await keys.find_organisation(connection, organisation)
        text = await serverless.regenerate_key(connection, told.pepper, organisation_id, name, Slot(key_type))
        await _announce(told, Change.KEYS)
        return text

    click.echo(database.run(work))
    click.echo("Keep it: it is not stored and cannot be shown again.", err=True)


def _from_file(file: Path) -> tuple[str, str, Wish]:
    """Name, model and the rest of an endpoint in a file."""
    try:
        read = files.read(file)
    except files.FileRefused as error:
        click.echo(str(error), err=True)
        sys.exit(1)
    return read.name, read.model, read.wish


def _shown(endpoint: Endpoint, standing: EndpointStanding) -> dict[str, Any]:
    fields: dict[str, Any] = msgspec.to_builtins(endpoint)
    del fields["id"], fields["suspended"]
    if endpoint.limits == NONE:
        fields["limits"] = "none"
    return fields | {"state": standing.state.value, "state_reason": standing.reason}


def _tags(given: tuple[str, ...]) -> dict[str, str]:
    pairs = [each.partition("=") for each in given]
    if wrong := [each for each, (_, equals, _) in zip(given, pairs, strict=True) if not equals]:
        raise click.BadParameter(f"{wrong[0]!r} is not NAME=VALUE", param_hint="--tag")
    return {name: value for name, _, value in pairs}


async def _standings(told: Settings, endpoints: list[Endpoint]) -> list[EndpointStanding]:
    pool = await floor.pool(told.database_url, "command", size_max=1, command_timeout_s=10)
    directory = Directory()
    try:
        await directory.refresh(pool)
    finally:
        directory.close()
        await pool.close()
    return [standing_of(each.suspended, directory.standing(each.model)) for each in endpoints]


async def _announce(told: Settings, *changed: Change) -> None:
    changes = Changes(told.redis_url)
    for change in changed:
        await changes.tell(change)
    await changes.close()
