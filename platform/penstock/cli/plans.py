"""`penstock plans`: what share of a busy model organisations get, and what they are limited to."""

from __future__ import annotations

from typing import Any

import asyncpg
import click
import msgspec
from rich.console import Console
from rich.table import Table

from penstock.access import plans
from penstock.access.limits import NONE
from penstock.access.plans import Plan
from penstock.changes import Change
from penstock.cli import database, rate_options
from penstock.settings import Settings

WEIGHT = "Share of a busy model: 2 is served twice as much as 1."
KNOWN = "gateways know within a second"
JSON = click.option("--json", "as_json", is_flag=True, help="Print JSON instead of words.")


@click.group()
def command() -> None:
    """Say what organisations get when there is not enough for all, and what they are limited to.

    Every organisation has a plan, at first `standard`. Its weight is the organisation's share of a model that
    is asked for more than it can do; its limits hold for all keys of the organisation together.
    """


@command.command("list")
@JSON
def show_all(as_json: bool) -> None:
    """List every plan."""

    async def work(_: Settings, connection: asyncpg.Connection) -> list[Plan]:
        return await plans.listed(connection)

    found = database.run(work)
    if as_json:
        click.echo(msgspec.json.encode(found))
        return
    table = Table(title="Plans")
    table.add_column("Plan", overflow="fold")
    table.add_column("Weight", justify="right", no_wrap=True)
    table.add_column("Limits", overflow="fold")
    table.add_column("Organisations", justify="right", no_wrap=True)
    for plan in found:
        table.add_row(plan.name, f"{plan.weight:g}", str(plan.limits), f"{plan.organisations:,}")
    Console().print(table)


@command.command()
@click.argument("name")
@JSON
def show(name: str, as_json: bool) -> None:
    """Show one plan and who has it."""

    async def work(_: Settings, connection: asyncpg.Connection) -> tuple[Plan, list[str]]:
        return await plans.find(connection, name), await plans.members(connection, name)

    plan, members = database.run(work)
    if as_json:
        fields: dict[str, Any] = msgspec.to_builtins(plan) | {"organisations": members}
        click.echo(msgspec.json.encode(fields))
        return
    click.echo(f"{plan.name}: weight {plan.weight:g}, limits: {plan.limits}")
    click.echo(f"Organisations ({len(members):,}): {', '.join(members) or 'none'}")


@command.command()
@click.argument("name")
@click.option("--weight", type=float, default=1.0, show_default=True, help=WEIGHT)
@rate_options.options
@JSON
def create(name: str, weight: float, as_json: bool, **given: int | str | None) -> None:
    """Make a plan; nobody has it until it is assigned."""

    async def work(_: Settings, connection: asyncpg.Connection) -> Plan:
        await plans.create(connection, name, weight, rate_options.changed(NONE, given))
        return await plans.find(connection, name)

    plan = database.run(work)
    _say(plan, as_json, f"Give it to an organisation: `penstock plans assign ORGANISATION {name}`.")


@command.command("set")
@click.argument("name")
@click.option("--weight", type=float, help=WEIGHT)
@rate_options.options
@JSON
def change(name: str, weight: float | None, as_json: bool, **given: int | str | None) -> None:
    """Change a plan, for everybody who has it; what is not named stays."""
    if weight is None and not rate_options.asked(given):
        raise click.UsageError("name what is to be another: --weight, or one of the limits")

    async def work(told: Settings, connection: asyncpg.Connection) -> Plan:
        now = await plans.find(connection, name)
        limits = rate_options.changed(now.limits, given)
        await plans.change(connection, name, now.weight if weight is None else weight, limits)
        await database.announce(told, Change.KEYS)
        return await plans.find(connection, name)

    plan = database.run(work)
    _say(plan, as_json, f"It holds for {plan.organisations:,} organisations; {KNOWN}.")


@command.command()
@click.argument("organisation")
@click.argument("name")
@JSON
def assign(organisation: str, name: str, as_json: bool) -> None:
    """Give ORGANISATION the plan NAME."""

    async def work(told: Settings, connection: asyncpg.Connection) -> Plan:
        await plans.assign(connection, organisation, name)
        await database.announce(told, Change.KEYS)
        return await plans.find(connection, name)

    plan = database.run(work)
    _say(plan, as_json, f"{organisation} has it; {KNOWN}.")


@command.command()
@click.argument("name")
@JSON
def remove(name: str, as_json: bool) -> None:
    """End a plan that no organisation has."""

    async def work(_: Settings, connection: asyncpg.Connection) -> None:
        await plans.remove(connection, name)

    database.run(work)
    click.echo(msgspec.json.encode({"removed": name}) if as_json else f"{name} is gone.")


def _say(plan: Plan, as_json: bool, then: str) -> None:
    if as_json:
        click.echo(msgspec.json.encode(plan))
    else:
        click.echo(f"{plan.name}: weight {plan.weight:g}, limits: {plan.limits}. {then}")
