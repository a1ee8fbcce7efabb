"""`penstock billing`: what keeps the books growing in order, and proves that they agree."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta

import asyncpg
import click
import msgspec
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from penstock.cli import billing_gateways, billing_reconcile, database
from penstock.settings import Settings
from penstock_base import money
from penstock_billing import archive, invariants, roll_ups
from penstock_billing.archive import File
from penstock_billing.invariants import Check, Difference

DAY = click.DateTime(["%Y-%m-%d"])
AS_JSON = click.option("--json", "as_json", is_flag=True, help="Print JSON instead of a table.")


@click.group()
def command() -> None:
    """Sum up usage, check that every number agrees, and keep old events in files.

    The controller does all of it by itself; these commands are for looking, and for not waiting.
    """


command.add_command(billing_reconcile.command)
command.add_command(billing_gateways.show_all)
command.add_command(billing_gateways.settle)


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


@command.command()
@click.argument("day", type=DAY, required=False)
@AS_JSON
def export(day: datetime | None, as_json: bool) -> None:
    """Move the events of DAY (UTC) to a Parquet file; without DAY, of all days beyond the retention.

    The file is read back and compared before anything is taken out of the database. Roll-ups and ledger stay.
    """

    async def work(told: Settings, connection: asyncpg.Connection) -> list[File]:
        if day is not None:
            days = [day.date()]
        elif told.events_retention_days:
            days = await archive.due(connection, told.events_retention_days, datetime.now(UTC).date())
        else:
            days = []
        made = []
        for each in days:
            with _progress(f"{each}") as bar:
                made.append(await archive.file_day(connection, told.archive_folder, each, bar))
        return [each for each in made if each is not None]

    _show_files(
        database.run(work), as_json, "Nothing to move: no day with events is older than the retention."
    )


@command.command()
@click.argument("day", type=DAY)
@click.option(
    "--keep",
    type=click.IntRange(1, 3650),
    default=30,
    show_default=True,
    help="Days until it may be moved again.",
)
@AS_JSON
def restore(day: datetime, keep: int, as_json: bool) -> None:
    """Bring the events of DAY (UTC) back from their files into the database."""

    async def work(told: Settings, connection: asyncpg.Connection) -> list[File]:
        with _progress(f"{day:%Y-%m-%d}") as bar:
            kept = timedelta(days=keep)
            return await archive.restore(connection, told.archive_folder, day.date(), kept, bar)

    _show_files(database.run(work), as_json, "")


@command.command()
@AS_JSON
def archives(as_json: bool) -> None:
    """List the files that hold events."""

    async def work(_: Settings, connection: asyncpg.Connection) -> list[File]:
        return await archive.listed(connection)

    _show_files(database.run(work), as_json, "No events are in files yet.")


@contextlib.contextmanager
def _progress(text: str) -> Iterator[archive.Told]:
    """Show on standard error how far it is, where somebody looks."""
    with Progress(console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(text, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


def _show_files(files: list[File], as_json: bool, nothing: str) -> None:
    if as_json:
        rows = [msgspec.to_builtins(each) | {"sha256": each.sha256.hex()} for each in files]
        click.echo(msgspec.json.encode(rows))
    elif files:
        Console().print(_files(files))
    else:
        click.echo(nothing)


def _files(files: list[File]) -> Table:
    table = Table("Day", "File", "Events", "Cost, USD", "MB", "Events are in")
    for column in (2, 3, 4):
        table.columns[column].justify = "right"
    for one in files:
        if one.alone:
            place = "the file"
        elif one.restored_at is None:
            place = "the database (a try was broken off)"
        else:
            place = "the database again"
            if one.kept_until is not None:
                place += f", until {one.kept_until:%Y-%m-%d} at least"
        cost = money.nano_to_usd(one.cost_nano_usd)
        table.add_row(f"{one.day}", one.file, f"{one.events:,}", cost, f"{one.size_bytes / 1e6:,.2f}", place)
    return table


def _differences(found: list[Difference]) -> Table:
    table = Table("Check", "What", "Found", "Expected", title=f"{len(found)} differences")
    for one in found:
        table.add_row(one.check.name.lower().replace("_", " "), one.what, one.found, one.expected)
    table.caption = "Nothing was changed. `penstock ledger` shows what was booked."
    return table


def _minute(moment: datetime) -> str:
    return f"{moment.astimezone(UTC):%Y-%m-%d %H:%M} UTC"
