"""`penstock adapters`: LoRA fine-tunes of models, served on the base's engines."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import asyncpg
import click
import msgspec
from rich.console import Console
from rich.table import Table

from penstock.access import keys
from penstock.adapters import intake, register, settings, shapes, store, tensors
from penstock.adapters.errors import AdapterRefused, AdapterTooLarge
from penstock.adapters.register import Adapter, Kept, Wanted
from penstock.adapters.store import Incoming, Store
from penstock.changes import Change
from penstock.cli import database
from penstock.cli.pools import find_card
from penstock.settings import Settings

ORGANISATION = click.option("--organisation", default="default", show_default=True, help="Whose adapters.")
CHUNK_BYTES = 2**20


@click.group()
def command() -> None:
    """Serve LoRA fine-tunes of a model of the catalog, by the name MODEL:ADAPTER."""


@command.command()
@click.argument("folder", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--model", required=True, help="The model that it was trained on.")
@click.option("--name", required=True, help="Of the adapter: small letters, digits and hyphens.")
@click.option("--project", default="default", show_default=True)
@click.option("--description", help="What it is for; by default as it was.")
@click.option(
    "--activate/--no-activate",
    default=True,
    help="Whether requests that name no version get this one from now on.",
)
@ORGANISATION
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead.")
def upload(
    folder: Path,
    model: str,
    name: str,
    project: str,
    description: str | None,
    activate: bool,
    organisation: str,
    as_json: bool,
) -> None:
    """Upload the adapter in FOLDER: adapter_config.json and adapter_model.safetensors, as PEFT saves them."""

    async def work(told: Settings, connection: asyncpg.Connection) -> Kept:
        register.check_name(name)
        organisation_id = await keys.find_organisation(connection, organisation)
        wanted = Wanted(
            organisation_id=organisation_id,
            project_id=await keys.find_project(connection, organisation_id, project),
            name=name,
            description=description,
            activate=activate,
            organisation_bytes_max=told.adapters_bytes_max,
        )
        base = shapes.base_of(find_card(told, model), told.models_folder)
        files = Store(told.adapters_folder)
        with files.receive() as incoming:
            config = _copy(folder, incoming, told.adapter_bytes_max)
            examined = intake.examine(incoming, config, base)
            kept = await register.keep(connection, files, incoming, examined, wanted)
        await database.announce(told, Change.ADAPTERS)
        return kept

    kept = database.run(work)
    if as_json:
        click.echo(msgspec.json.encode(_shown(kept.adapter) | {"version": kept.number}))
        return
    again = "" if kept.new else " (the same content was there already)"
    click.echo(f"{kept.adapter.model} is version {kept.number}{again}; gateways know within a second.")
    if kept.adapter.active_version != kept.number:
        active = kept.adapter.active_version
        click.echo(f"Version {active} stays active; call this one as {kept.adapter.model}@{kept.number}.")


@command.command("list")
@ORGANISATION
@click.option("--json", "as_json", is_flag=True, help="Print a JSON list instead of a table.")
def show_all(organisation: str, as_json: bool) -> None:
    """List an organisation's adapters."""

    async def work(_: Settings, connection: asyncpg.Connection) -> list[Adapter]:
        return await register.listed(connection, await keys.find_organisation(connection, organisation))

    found = database.run(work)
    if as_json:
        click.echo(msgspec.json.encode([_shown(each) for each in found]))
        return
    table = Table(title=f"Adapters of {organisation}")
    table.add_column("Called", no_wrap=True)
    for heading in ("Project", "Active", "Versions", "MB", "Made"):
        table.add_column(heading)
    for each in found:
        size = sum(version.size_bytes for version in each.versions) / 1e6
        counts = (str(each.active_version), str(len(each.versions)), f"{size:.1f}")
        table.add_row(each.model, each.project, *counts, f"{each.created_at:%Y-%m-%d}")
    Console().print(table)


@command.command()
@click.argument("name")
@ORGANISATION
def show(name: str, organisation: str) -> None:
    """Show one adapter and its versions."""

    async def work(_: Settings, connection: asyncpg.Connection) -> Adapter:
        organisation_id = await keys.find_organisation(connection, organisation)
        return await register.find(connection, organisation_id, name)

    found = database.run(work)
    table = Table("Version", "", "Rank", "Modules", "Bytes", "Content", "Made", title=found.model)
    for version in found.versions:
        active = "active" if version.number == found.active_version else ""
        made = f"{version.created_at:%Y-%m-%d %H:%M}"
        what = (str(version.rank), ", ".join(version.target_modules), f"{version.size_bytes:,}")
        table.add_row(str(version.number), active, *what, version.digest[:12], made)
    Console().print(table)
    if found.description:
        click.echo(found.description)


@command.command()
@click.argument("name")
@click.option("--version", "number", type=int, required=True, help="The version to answer from now on.")
@ORGANISATION
def activate(name: str, number: int, organisation: str) -> None:
    """Choose the version that answers requests which name none: forward, or back."""

    async def work(told: Settings, connection: asyncpg.Connection) -> Adapter:
        organisation_id = await keys.find_organisation(connection, organisation)
        changed = await register.change(connection, organisation_id, name, active_version=number)
        await database.announce(told, Change.ADAPTERS)
        return changed

    click.echo(f"{database.run(work).model} is version {number} now; gateways know within a second.")


@command.command()
@click.argument("name")
@ORGANISATION
def delete(name: str, organisation: str) -> None:
    """End an adapter and all its versions; what was billed under it stays readable."""

    async def work(told: Settings, connection: asyncpg.Connection) -> None:
        await register.delete(connection, await keys.find_organisation(connection, organisation), name)
        await database.announce(told, Change.ADAPTERS)

    database.run(work)
    click.echo(f"{name} is gone.")


def _copy(folder: Path, incoming: Incoming, bytes_max: int) -> bytes:
    """Copy the weights to where uploads are; the config. Raises AdapterRefused."""
    config, weights = folder / store.CONFIG, folder / store.WEIGHTS
    if not weights.is_file():
        for each in sorted(folder.iterdir()):
            try:
                tensors.check_name(each.name)
            except tensors.TensorsRefused as error:
                raise AdapterRefused(str(error), "weights") from None
    for file in (config, weights):
        if not file.is_file():
            raise AdapterRefused(
                f"{folder} has no {file.name}: name the folder that PEFT's save_pretrained wrote", "weights"
            )
    if (size := weights.stat().st_size) > bytes_max:
        raise AdapterTooLarge(
            f"{weights.name} has {size} bytes, at most {bytes_max} are taken (PENSTOCK_ADAPTER_BYTES_MAX)",
            "weights",
        )
    with weights.open("rb") as opened:
        while data := opened.read(CHUNK_BYTES):
            incoming.write(data)
    incoming.close()
    with config.open("rb") as opened:
        # One more than is accepted, so that a file that is too long is seen to be.
        return opened.read(settings.BYTES_MAX + 1)


def _shown(adapter: Adapter) -> dict[str, Any]:
    fields: dict[str, Any] = msgspec.to_builtins(adapter)
    del fields["id"]
    return {"model": adapter.model, **fields}
