"""`penstock pools`: the shared engines of each model."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import asyncpg
import click
import msgspec
from rich.console import Console
from rich.table import Table

from penstock.changes import Change, Changes
from penstock.cli import database
from penstock.settings import Settings
from penstock_billing.price_changes import near
from penstock_catalog.cards import EndpointKind, ModelCard
from penstock_catalog.errors import CardError
from penstock_catalog.shelf import BUILTIN, Shelf
from penstock_engines import pool_changes, pools
from penstock_engines.pool_settings import PoolSettings
from penstock_engines.pools import Load, Pool, PoolError, Running


def options(command: Callable[..., None]) -> Callable[..., None]:
    """The options that say how a pool should be."""
    for option in (
        click.option(
            "--set",
            "more",
            multiple=True,
            metavar="NAME=VALUE",
            help=f"Any of: {', '.join(pool_changes.NAMES)}.",
        ),
        click.option("--policy", help="least_load, power_of_two, prefix_affinity or session_affinity."),
        click.option("--max", "most", type=int, help="Never more engines than this."),
        click.option(
            "--min", "least", type=int, help="Never fewer engines than this; 0 lets the model sleep."
        ),
    ):
        command = option(command)
    return command


@click.group()
def command() -> None:
    """Look at and change the shared engines of each model."""


@command.command("list")
@click.option("--json", "as_json", is_flag=True, help="Print a JSON list instead of a table.")
def show_all(as_json: bool) -> None:
    """List every pool with its engines and its load."""

    async def work(
        _: Settings, connection: asyncpg.Connection
    ) -> tuple[list[Pool], list[Running], dict[str, Load]]:
        return (
            await pools.listed(connection),
            await pools.running(connection),
            await pools.loads(connection),
        )

    found, engines, loads = database.run(work)
    if as_json:
        click.echo(
            msgspec.json.encode(
                [{"pool": pool, "engines": [e for e in engines if e.model == pool.model]} for pool in found]
            )
        )
        return
    if not found:
        click.echo("There is no pool yet: make one with `penstock pools create MODEL`.")
        return
    table = Table(title="Pools")
    table.add_column("Model", overflow="fold")
    for heading in ("Size", "Version", "Running", "Waiting"):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("Engines", overflow="fold")
    for pool in found:
        scale, load = pool.settings.scale, loads.get(pool.model, Load())
        table.add_row(
            pool.model,
            f"{scale.replicas_min} to {scale.replicas_max}",
            str(pool.version),
            str(load.running),
            str(load.waiting_requests),
            "\n".join(_engine(one, pool) for one in engines if one.model == pool.model) or "asleep",
        )
    Console().print(table)


def _engine(engine: Running, pool: Pool) -> str:
    version = "" if engine.version == pool.version else f", version {engine.version}"
    reason = f": {engine.reason}" if engine.reason else ""
    return f"{engine.state} for {_duration(engine.since_s)}{version}{reason}"


@command.command()
@click.argument("model")
def show(model: str) -> None:
    """Show one pool: how it should be, the versions it had, what was decided lately and why."""

    async def work(_: Settings, connection: asyncpg.Connection) -> tuple[Any, ...]:
        pool = await pools.find(connection, model)
        if pool is None:
            raise PoolError(f"{model} has no pool: `penstock pools list` shows those there are")
        return pool, await pools.versions(connection, model), await pools.scalings(connection, model, 20)

    pool, versions, decisions = database.run(work)
    console = Console()
    settings = Table("Setting", "Value", title=f"Pool of {model}")
    for name in pool_changes.SCALE:
        settings.add_row(name, str(getattr(pool.settings.scale, name)))
    for name in pool_changes.OTHERS:
        settings.add_row(name, str(getattr(pool.settings, name)))
    console.print(settings)
    kept = Table("", "Version", "Made", "Note", title="Versions")
    for each in versions:
        mark = "runs" if each.version == pool.version else ""
        kept.add_row(mark, str(each.version), f"{each.created_at:%Y-%m-%d %H:%M}", each.note)
    console.print(kept)
    decided = Table("When", "Engines", "Why", title="Decisions, newest first")
    for each in decisions:
        decided.add_row(f"{each.at:%Y-%m-%d %H:%M:%S}", f"{each.before} → {each.after}", each.reason)
    console.print(decided)


@command.command()
@click.argument("model")
@options
def create(
    model: str, least: int | None, most: int | None, policy: str | None, more: tuple[str, ...]
) -> None:
    """Serve MODEL, a model of the catalog, by a pool of its own; without --min it sleeps until asked for."""

    async def work(told: Settings, connection: asyncpg.Connection) -> Pool:
        card = find_card(told, model)
        if EndpointKind.SERVERLESS not in card.endpoints:
            kinds = ", ".join(card.endpoints)
            raise PoolError(f"{model} is not offered serverless; its card offers: {kinds}")
        settings = changed(PoolSettings(), least, most, policy, more)
        made = await pools.create(connection, card, settings)
        await _announce(told)
        return made

    pool = database.run(work)
    least_now = pool.settings.scale.replicas_min
    click.echo(
        f"{model} has a pool: "
        + (f"{least_now} engines start now." if least_now else "it sleeps until asked for.")
    )


@command.command("set")
@click.argument("model")
@options
def change(
    model: str, least: int | None, most: int | None, policy: str | None, more: tuple[str, ...]
) -> None:
    """Change how MODEL's pool is sized and routed; what is not named stays."""

    async def work(told: Settings, connection: asyncpg.Connection) -> Pool:
        card = find_card(told, model)
        pool = await pools.find(connection, model)
        if pool is None:
            raise PoolError(f"{model} has no pool: `penstock pools create {model}` makes one")
        settings = changed(pool.settings, least, most, policy, more)
        pool = await pools.change(connection, card, settings)
        await _announce(told)
        return pool

    scale = database.run(work).settings.scale
    click.echo(
        f"{model}: {scale.replicas_min} to {scale.replicas_max} engines; `penstock pools list` follows it."
    )


@command.command()
@click.argument("model")
@click.option("--note", default="", help="Why, for those who read the versions later.")
def roll(model: str, note: str) -> None:
    """Replace MODEL's engines by what its card says now, without failing a request."""

    async def work(told: Settings, connection: asyncpg.Connection) -> Pool:
        pool = await pools.roll(connection, find_card(told, model), note)
        await _announce(told)
        return pool

    click.echo(
        f"{model} rolls to version {database.run(work).version}; `penstock pools rollback {model}` undoes it."
    )


@command.command()
@click.argument("model")
@click.option("--to", "version", type=int, help="Which version; the one before by default.")
def rollback(model: str, version: int | None) -> None:
    """Run what MODEL's engines ran before."""

    async def work(told: Settings, connection: asyncpg.Connection) -> Pool:
        pool = await pools.roll_back(connection, model, version)
        await _announce(told)
        return pool

    click.echo(f"{model} rolls back to version {database.run(work).version}.")


@command.command()
@click.argument("model")
def remove(model: str) -> None:
    """Stop serving MODEL by a pool: its engines finish what they have and stop."""

    async def work(told: Settings, connection: asyncpg.Connection) -> None:
        await pools.remove(connection, model)
        await _announce(told)

    database.run(work)
    click.echo(f"{model} has no pool any more.")


def changed(
    settings: PoolSettings, least: int | None, most: int | None, policy: str | None, more: tuple[str, ...]
) -> PoolSettings:
    """Apply what was said to settings; raises PoolError naming the setting and what would be accepted."""
    if least is not None and most is None:
        # Whoever wants at least two wants at most two, rather than an error.
        most = max(least, settings.scale.replicas_max)
    named: dict[str, object] = {"replicas_min": least, "replicas_max": most, "policy": policy}
    said = {name: value for name, value in named.items() if value is not None}
    for each in more:
        name, equals, value = each.partition("=")
        if not equals:
            raise PoolError(f"--set {each} is not understood: it must be NAME=VALUE")
        said[name] = value
    return pool_changes.changed(settings, said)


def cards(told: Settings) -> Shelf:
    """The catalog; raises PoolError for cards that are wrong."""
    try:
        return Shelf.open([BUILTIN, *told.cards])
    except CardError as error:
        raise PoolError(str(error)) from error


def find_card(told: Settings, model: str) -> ModelCard:
    """The card of a model; raises PoolError with what is near."""
    shelf = cards(told)
    card = shelf.get(model)
    if card is None:
        known = [each.id for each in shelf.cards]
        raise PoolError(f"no card for {model!r}{near(model, known)}; see `penstock models list`")
    return card


async def _announce(told: Settings) -> None:
    changes = Changes(told.redis_url)
    await changes.tell(Change.POOLS)
    await changes.close()


def _duration(seconds: float) -> str:
    for size, unit in ((86400, "d"), (3600, "h"), (60, "min")):
        if seconds >= size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.0f} s"
