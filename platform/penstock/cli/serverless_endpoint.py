"""`penstock serverless-endpoint`: models under names, URLs and keys of their own."""

from __future__ import annotations

from pathlib import Path

import asyncpg
import click
import msgspec
from rich.console import Console

from penstock.access import keys
from penstock.access.limits import NONE
from penstock.changes import Change
from penstock.cli import database, rate_options
from penstock.cli import serverless_endpoint_pages as pages
from penstock.cli.pools import cards, find_card
from penstock.cli.serverless_endpoint_pages import Seen
from penstock.endpoints import files, serverless
from penstock.endpoints.serverless import Endpoint, EndpointError, Slot, Wish
from penstock.endpoints.standing import standing
from penstock.routing.directory import Directory
from penstock.settings import Settings
from penstock_base import database as floor
from penstock_catalog.cards import EndpointKind

SUSPENDED = "suspended by whoever runs the platform"
KEEP = "Keep it: it is not stored and cannot be shown again."
ORGANISATION = click.option("--organisation", default="default", show_default=True, help="Whose endpoints.")
JSON = click.option("--json", "as_json", is_flag=True, help="Print JSON instead of words and tables.")
TAGS = click.option(
    "--tag", "tags", multiple=True, metavar="NAME=VALUE", help="All tags; those not named are gone."
)
FILE = click.option(
    "--file",
    "-f",
    "file",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="YAML that says all of it, instead of options.",
)


@click.group()
def command() -> None:
    """Serve a model of the catalog under a name, a URL and keys of its own."""


@command.command()
@click.option("--name", help="Of the endpoint; it becomes a part of its URL.")
@click.option("--model", help="A model that the catalog offers serverless.")
@click.option("--project", default="default", show_default=True)
@click.option("--description", help="What it is for.")
@TAGS
@rate_options.options
@FILE
@ORGANISATION
@JSON
def create(
    name: str | None,
    model: str | None,
    project: str,
    description: str | None,
    tags: tuple[str, ...],
    file: Path | None,
    organisation: str,
    as_json: bool,
    **given: int | str | None,
) -> None:
    """Make an endpoint and show its two keys, this once."""
    if file is None and (name is None or model is None):
        raise click.UsageError("name the endpoint and its model: --name and --model, or --file")
    if file is not None:
        _only_file((name, model, description, *tags, *given.values()))

    async def work(told: Settings, connection: asyncpg.Connection) -> tuple[Seen, dict[Slot, str]]:
        organisation_id = await keys.find_organisation(connection, organisation)
        project_id = await keys.find_project(connection, organisation_id, project)
        limits = rate_options.changed(NONE, given)
        wish = Wish(description=description or "", tags=_tags(tags), limits=limits)
        named, wanted = name or "", model or ""
        if file is not None:
            read = files.read(file)
            named, wanted, wish = read.name, read.model(_offered(told)), read.wish
        card = find_card(told, wanted)
        made = await serverless.create(
            connection, told.pepper, organisation_id, project_id, named, card, wish
        )
        await database.announce(told, Change.ENDPOINTS)
        endpoint = await serverless.find(connection, organisation_id, named)
        return (await _seen(told, [endpoint]))[0], made

    seen, made = database.run(work)
    secrets = {f"{slot.value}_key": text for slot, text in made.items()}
    if as_json:
        click.echo(msgspec.json.encode(pages.fields(seen) | secrets))
        return
    click.echo(f"{seen.endpoint.name} serves {seen.endpoint.model} at {seen.url}")
    for slot, text in made.items():
        click.echo(f"{slot.value} key: {text}")
    click.echo("Keep the keys: they are not stored and cannot be shown again.", err=True)


@command.command("list")
@ORGANISATION
@JSON
def show_all(organisation: str, as_json: bool) -> None:
    """List an organisation's endpoints."""

    async def work(told: Settings, connection: asyncpg.Connection) -> list[Seen]:
        organisation_id = await keys.find_organisation(connection, organisation)
        return await _seen(told, await serverless.listed(connection, organisation_id))

    found = database.run(work)
    if as_json:
        click.echo(msgspec.json.encode([pages.fields(seen) for seen in found]))
    else:
        pages.listed(Console(), found, organisation)


@command.command()
@click.argument("name")
@ORGANISATION
@JSON
def show(name: str, organisation: str, as_json: bool) -> None:
    """Show one endpoint."""

    async def work(told: Settings, connection: asyncpg.Connection) -> Seen:
        organisation_id = await keys.find_organisation(connection, organisation)
        endpoint = await serverless.find(connection, organisation_id, name)
        return (await _seen(told, [endpoint]))[0]

    seen = database.run(work)
    if as_json:
        click.echo(msgspec.json.encode(pages.fields(seen)))
    else:
        pages.one(Console(), seen)


@command.command()
@click.argument("name")
@click.option("--description", help="What it is for.")
@TAGS
@click.option("--no-tags", is_flag=True, help="No tags at all.")
@click.option("--suspend/--resume", "suspend", default=None, help="Take no requests, or take them again.")
@rate_options.options
@FILE
@ORGANISATION
@JSON
def update(
    name: str,
    description: str | None,
    tags: tuple[str, ...],
    no_tags: bool,
    suspend: bool | None,
    file: Path | None,
    organisation: str,
    as_json: bool,
    **given: int | str | None,
) -> None:
    """Change an endpoint; what is not named stays. A --file says all but whether it is suspended."""
    if file is not None:
        _only_file((description, *tags, no_tags or None, suspend, *given.values()))

    async def work(told: Settings, connection: asyncpg.Connection) -> Seen:
        organisation_id = await keys.find_organisation(connection, organisation)
        now = await serverless.find(connection, organisation_id, name)
        suspended = now.suspended if suspend is None else SUSPENDED if suspend else None
        if file is not None:
            wish = msgspec.structs.replace(_read_for(now, file, told), suspended=now.suspended)
        else:
            wish = Wish(
                description=now.description if description is None else description,
                tags=_tags(tags) if tags or no_tags else now.tags,
                limits=rate_options.changed(now.limits, given),
                suspended=suspended,
            )
        changed = await serverless.change(connection, organisation_id, name, wish)
        await database.announce(told, Change.ENDPOINTS)
        return (await _seen(told, [changed]))[0]

    seen = database.run(work)
    if as_json:
        click.echo(msgspec.json.encode(pages.fields(seen)))
    else:
        click.echo(f"{name} is changed; gateways know within a second.")


@command.command()
@click.argument("name")
@ORGANISATION
@JSON
def delete(name: str, organisation: str, as_json: bool) -> None:
    """End an endpoint and its keys; what runs under it ends as it would, and what was billed stays."""

    async def work(told: Settings, connection: asyncpg.Connection) -> None:
        await serverless.delete(connection, await keys.find_organisation(connection, organisation), name)
        await database.announce(told, Change.ENDPOINTS, Change.KEYS)

    database.run(work)
    click.echo(msgspec.json.encode({"deleted": name}) if as_json else f"{name} is gone.")


@command.command("get-credentials")
@click.argument("name")
@ORGANISATION
@JSON
def get_credentials(name: str, organisation: str, as_json: bool) -> None:
    """Show which keys an endpoint has; secrets are not stored."""

    async def work(_: Settings, connection: asyncpg.Connection) -> list[serverless.KeyShown]:
        organisation_id = await keys.find_organisation(connection, organisation)
        endpoint = await serverless.find(connection, organisation_id, name)
        return await serverless.credentials(connection, endpoint.id)

    found = database.run(work)
    if as_json:
        click.echo(msgspec.json.encode(found))
        return
    pages.credentials(Console(), found, name)
    click.echo(
        f"A lost key is replaced: `penstock serverless-endpoint regenerate-keys {name} --key-type primary`."
    )


@command.command("regenerate-keys")
@click.argument("name")
@click.option("--key-type", type=click.Choice([slot.value for slot in Slot]), required=True)
@ORGANISATION
@JSON
def regenerate_keys(name: str, key_type: str, organisation: str, as_json: bool) -> None:
    """Replace one of an endpoint's two keys and show it, this once; the other works on."""

    async def work(told: Settings, connection: asyncpg.Connection) -> str:
        organisation_id = await keys.find_organisation(connection, organisation)
        text = await serverless.regenerate_key(connection, told.pepper, organisation_id, name, Slot(key_type))
        await database.announce(told, Change.KEYS)
        return text

    text = database.run(work)
    if as_json:
        click.echo(msgspec.json.encode({f"{key_type}_key": text}))
        return
    click.echo(text)
    click.echo(KEEP, err=True)


def _read_for(now: Endpoint, file: Path, told: Settings) -> Wish:
    """What a file wants of an endpoint that is there; raises FileRefused, EndpointError."""
    read = files.read(file)
    if read.name != now.name:
        raise EndpointError(f"{file.name} is of the endpoint {read.name!r}, not of {now.name!r}", "name")
    wanted = read.model(_offered(told))
    if wanted != now.model:
        raise EndpointError(
            f"{now.name} serves {now.model}, which cannot be changed to {wanted}: make another endpoint",
            "model_id",
        )
    return read.wish


def _offered(told: Settings) -> list[str]:
    return [card.id for card in cards(told).search(endpoint=EndpointKind.SERVERLESS)]


def _only_file(others: tuple[object, ...]) -> None:
    if any(other is not None for other in others):
        raise click.UsageError("--file says all of it: put the other options into the file")


def _tags(given: tuple[str, ...]) -> dict[str, str]:
    pairs = [each.partition("=") for each in given]
    if wrong := [each for each, (_, equals, _) in zip(given, pairs, strict=True) if not equals]:
        raise click.BadParameter(f"{wrong[0]!r} is not NAME=VALUE", param_hint="--tag")
    return {name: value for name, _, value in pairs}


async def _seen(told: Settings, endpoints: list[Endpoint]) -> list[Seen]:
    pool = await floor.pool(told.database_url, "command", size_max=1, command_timeout_s=10)
    directory = Directory()
    try:
        await directory.refresh(pool)
    finally:
        directory.close()
        await pool.close()
    return [
        Seen(
            each, standing(each, directory.standing(each.model)), f"{told.public_url}/serverless/{each.name}"
        )
        for each in endpoints
    ]
