"""`penstock budgets`: what organisations, projects and keys may spend."""

from __future__ import annotations

from datetime import UTC, datetime

import asyncpg
import click
import msgspec
from rich.console import Console
from rich.table import Table

from penstock.access import keys
from penstock.changes import Change, Changes
from penstock.cli import amounts, database
from penstock.cli.amounts import Usd
from penstock.settings import Settings
from penstock_billing import budgets
from penstock_billing.budgets import Budget, Period, Plan, Scope

WIDE = 100
"""Columns of a screen that has room for more than must be said."""
ORGANISATION = click.option("--organisation", default="default", show_default=True)


class Named(msgspec.Struct):
    """A budget in words."""

    id: int
    organisation: str
    whose: str
    period: Period
    limit_nano_usd: int
    spent_nano_usd: int
    hard: bool
    alert_percents: tuple[int, ...]
    resets_at: datetime | None


@click.group()
def command() -> None:
    """Say what may be spent in a month, or ever, and at which part of it to be told."""


@command.command("list")
@click.option("--organisation", help="Only this organisation's; by default everybody's.")
@click.option("--json", "as_json", is_flag=True, help="Print a JSON list instead of a table.")
def show(organisation: str | None, as_json: bool) -> None:
    """List the budgets in force, and what is spent of them."""

    async def work(_: Settings, connection: asyncpg.Connection) -> list[Named]:
        owner = None if organisation is None else await keys.find_organisation(connection, organisation)
        return await _named(connection, await budgets.live(connection, owner))

    found = database.run(work)
    if as_json:
        click.echo(msgspec.json.encode(found))
        return
    table = Table(title=f"Budgets of {organisation or 'all organisations'}")
    table.add_column("Id", justify="right", no_wrap=True)
    table.add_column("Of", overflow="fold")
    amounts.add_money(table, "Limit, USD")
    amounts.add_money(table, "Spent, USD")
    table.add_column("%", justify="right", no_wrap=True)
    table.add_column("Kind", overflow="fold")
    console = Console()
    wide = console.width >= WIDE
    if wide:
        table.add_column("Told at, %", overflow="fold")
        table.add_column("Begins anew", no_wrap=True)
    for each in found:
        whose = each.whose if organisation else f"{each.organisation} · {each.whose}"
        percent = f"{100 * each.spent_nano_usd // each.limit_nano_usd}" if each.limit_nano_usd else ""
        kind = f"{'monthly' if each.period is Period.MONTH else 'total'}, {'hard' if each.hard else 'soft'}"
        limit, spent = amounts.usd(each.limit_nano_usd), amounts.usd(each.spent_nano_usd)
        told = ", ".join(f"{at}" for at in each.alert_percents)
        anew = f"{each.resets_at:%Y-%m-%d}" if each.resets_at else "never"
        table.add_row(f"{each.id}", whose, limit, spent, percent, kind, *([told, anew] if wide else []))
    if not found:
        table.caption = "No budget is in force: set one by `penstock budgets set`."
    console.print(table)


@command.command("set")
@ORGANISATION
@click.option("--project", help="Of this project only.")
@click.option("--key", "key_id", help="Of this key only (see `penstock keys list`).")
@click.option("--limit", type=Usd(zero=True), required=True, help="US dollars.")
@click.option(
    "--period", type=click.Choice([each.value for each in Period]), default="month", show_default=True
)
@click.option(
    "--alert", type=int, multiple=True, help="Percent of the limit, any number; by default 50, 80, 100."
)
@click.option("--soft", is_flag=True, help="Only tell; refuse nothing.")
def put(
    organisation: str,
    project: str | None,
    key_id: str | None,
    limit: int,
    period: str,
    alert: tuple[int, ...],
    soft: bool,
) -> None:
    """Set a budget, in place of the one of the same scope and period."""
    plan = Plan(limit_nano_usd=limit, alert_percents=alert or budgets.ALERTS_DEFAULT, enforced=not soft)

    async def work(told: Settings, connection: asyncpg.Connection) -> int:
        owner = await keys.find_organisation(connection, organisation)
        project_id = None if project is None else await keys.find_project(connection, owner, project)
        if key_id is not None and all(key.id != key_id for key in await keys.listed(connection, owner)):
            raise keys.UnknownKey(f"{organisation} has no key {key_id!r}: see `penstock keys list`")
        made = await budgets.put(connection, Scope(owner, project_id, key_id), Period(period), plan)
        await _announce(told)
        return made

    made = database.run(work)
    manner = "Requests beyond it are only told of" if soft else "Requests beyond it are refused with 402"
    click.echo(f"Budget {made} is in force. {manner}; gateways know within a second.")


@command.command()
@click.argument("budget_id", type=int)
@ORGANISATION
def remove(budget_id: int, organisation: str) -> None:
    """End the budget with this number; what it told stays on record."""

    async def work(told: Settings, connection: asyncpg.Connection) -> None:
        await budgets.remove(connection, await keys.find_organisation(connection, organisation), budget_id)
        await _announce(told)

    database.run(work)
    click.echo(f"Budget {budget_id} is no longer in force.")


async def _named(connection: asyncpg.Connection, found: list[Budget]) -> list[Named]:
    now = datetime.now(UTC)
    organisations, projects = await keys.names(
        connection,
        {each.scope.organisation_id for each in found},
        {each.scope.project_id for each in found if each.scope.project_id is not None},
    )
    return [
        Named(
            each.id,
            organisations.get(each.scope.organisation_id, f"#{each.scope.organisation_id}"),
            _whose(each.scope, projects),
            each.period,
            each.plan.limit_nano_usd,
            each.spent_nano_usd,
            each.plan.enforced,
            each.plan.alert_percents,
            each.resets_at(now),
        )
        for each in found
    ]


def _whose(scope: Scope, projects: dict[int, str]) -> str:
    if scope.key_id is not None:
        return f"key {scope.key_id}"
    if scope.project_id is not None:
        return f"project {projects.get(scope.project_id, scope.project_id)}"
    return "all of it"


async def _announce(told: Settings) -> None:
    changes = Changes(told.redis_url)
    await changes.tell(Change.BUDGETS)
    await changes.close()
