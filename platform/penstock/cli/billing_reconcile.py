"""`penstock billing reconcile`: every difference between engines, journals, events and the books."""

from __future__ import annotations

import sys
from collections import Counter
from datetime import datetime, timedelta

import asyncpg
import click
import msgspec
from rich.console import Console
from rich.table import Table

from penstock.cli import database, moments
from penstock.cli.moments import Moment
from penstock.control import reconciling
from penstock.settings import Settings
from penstock_billing.reconcile import run
from penstock_billing.reconcile.report import Difference, Report

DEFAULT = timedelta(days=1)
RUNBOOK = "ops/runbooks/reconcile.md"


@click.command("reconcile")
@click.option("--since", type=Moment(), help="From when on; by default a day before --until.")
@click.option("--until", type=Moment(), help="Until when; by default 10 minutes ago, when all is recorded.")
@click.option("--everything", is_flag=True, help="All there is, instead of --since.")
@click.option("--json", "as_json", is_flag=True, help="Print the report as JSON.")
def command(since: datetime | None, until: datetime | None, everything: bool, as_json: bool) -> None:
    """Compare engines, journals, events, roll-ups, ledger, leases and minutes.

    Prints every difference with the requests that explain it. Engines and journals are those of this machine.
    The exit status is 1 when there is a difference. The controller does the same every hour.
    """
    end = until or run.settled()
    begin = None if everything else since or end - DEFAULT
    if everything and since:
        raise click.UsageError("--everything and --since contradict each other; give one of them")
    if begin is not None and begin >= end:
        raise click.UsageError(
            f"--since {moments.shown(begin)} is not before --until {moments.shown(end)} (UTC)"
        )

    async def work(told: Settings, connection: asyncpg.Connection) -> Report:
        return await reconciling.reconcile(
            connection,
            journal_folder=told.journal_folder,
            engines=reconciling.sockets(told.engines_folder),
            since=begin,
            until=end,
        )

    report = database.run(work)
    if as_json:
        click.echo(msgspec.json.encode(report))
    else:
        _print(report)
    if report.differences:
        sys.exit(1)


def _print(report: Report) -> None:
    console = Console()
    if report.differences:
        console.print(_table(report.differences))
    since = moments.shown(report.since) if report.since else "the beginning"
    seen = report.examined
    console.print(
        f"From {since} to {moments.shown(report.until)} (UTC): {seen.events:,} events, "
        f"{seen.journal_records:,} journal records, {seen.engine_requests:,} requests at "
        f"{seen.engine_boots:,} starts of engines, {seen.charged_intervals:,} charged intervals.",
        highlight=False,
        soft_wrap=True,
    )
    for note in report.notes:
        console.print(f"Note: {note}.", highlight=False, soft_wrap=True)
    flight = report.in_flight
    if flight.journal_records or flight.engine_requests:
        console.print(
            f"In flight, and not compared: {flight.journal_records:,} journal records not shipped yet, "
            f"{flight.engine_requests:,} requests that engines ended after the window.",
            highlight=False,
            soft_wrap=True,
        )
    if report.unbilled_requests:
        console.print(
            f"Unbilled by our own rules, and no difference: {report.unbilled_requests:,} requests, "
            f"{report.unbilled_tokens:,} tokens.",
            highlight=False,
            soft_wrap=True,
        )
        for reason, count in Counter(one.reason for one in report.unbilled).most_common():
            console.print(f"  {count:,} listed: {reason}", highlight=False, soft_wrap=True)
    console.print(
        f"{len(report.differences):,} differences: {RUNBOOK} says what each means."
        if report.differences
        else "No differences.",
        highlight=False,
        soft_wrap=True,
    )


def _table(differences: list[Difference]) -> Table:
    table = Table(title="Differences")
    for heading in ("Check", "What", "Found", "Expected", "Requests"):
        table.add_column(heading, overflow="fold")
    for one in differences:
        more = [f"and {one.requests_more:,} more"] if one.requests_more else []
        table.add_row(one.check, one.what, one.found, one.expected, "\n".join([*one.requests, *more]))
    return table
