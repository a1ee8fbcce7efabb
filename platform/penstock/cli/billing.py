"""`penstock billing`: what keeps the books growing in order, and proves that they agree."""

from __future__ import annotations

import sys
from datetime import UTC, date, datetime, timedelta

import asyncpg
import click
import msgspec
from rich.console import Console
from rich.table import Table

from penstock.cli import billing_reconcile, database
from penstock.settings import Settings
from penstock_billing import invariants, roll_ups
from penstock_billing.invariants import Check, Difference

DAY = click.DateTime(["%Y-%m-%d"])
AS_JSON = click.option("--json", "as_json", is_flag=True, help="Print JSON instead of a table.")


@click.group()
def command() -> None:
    """Sum up usage, check that every number agrees, and keep old events in files.

    The controller does all of it by itself; these commands are for looking, and for not waiting.
    """


command.add_command(billing_reconcile.command)


@command.command("roll-up")
def roll_up() -> None:
    """Close the hours and days that have ended, as the controller does every minute."""

    async def work(_: Settings, connection: asyncpg.Connection) -> roll_ups.Progress:
        hours = days = 0
        while True:
            made = await roll_ups.step(connection)
            hours, days = hours + made.hours, days + made.days
            if made.finished:
                return roll_ups.Progress(made.marks, hours, days, finished=True)
            click.echo(f"hours until {_minute(made.marks.hours_until)}", err=True)

    done = database.run(work)
    click.echo(
        f"Closed: hours until {_minute(done.marks.hours_until)}, days until {_minute(done.marks.days_until)} "
        f"({done.hours:,} rows of hours and {done.days:,} of days are new)."
    )


@command.command()
@click.option("--since", type=DAY, help="First day (UTC); by default the first there is.")
@click.option("--until", type=DAY, help="Last day (UTC), included; by default today.")
@AS_JSON
def check(since: datetime | None, until: datetime | None, as_json: bool) -> None:
    """Add everything up again and print what does not agree; status 1 when there is anything.

    With days, it looks at their events, roll-ups and costs; without, at the whole ledger too. It reads whole
    tables: not for busy hours.
    """
    first = since.replace(tzinfo=UTC) if since else None
    end = until.replace(tzinfo=UTC) + timedelta(days=1) if until and until.date() < date.max else None
    if first and end and first >= end:
        click.echo(f"penstock billing check: --since {first:%Y-%m-%d} is after --until", err=True)
        sys.exit(2)
    checks = invariants.WINDOWED if first or end else frozenset(Check)

    async def work(_: Settings, connection: asyncpg.Connection) -> list[Difference]:
        return await invariants.check(connection, checks, since=first, until=end)

    found = database.run(work)
    if as_json:
        click.echo(msgspec.json.encode(found))
    elif found:
        Console().print(_differences(found))
    else:
        click.echo(f"Everything agrees ({len(checks)} checks).")
    if found:
        sys.exit(1)


def _differences(found: list[Difference]) -> Table:
    table = Table("Check", "What", "Found", "Expected", title=f"{len(found)} differences")
    for one in found:
        table.add_row(one.check.name.lower().replace("_", " "), one.what, one.found, one.expected)
    table.caption = "Nothing was changed. `penstock ledger` shows what was booked."
    return table


def _minute(moment: datetime) -> str:
    return f"{moment.astimezone(UTC):%Y-%m-%d %H:%M} UTC"
