"""One reconciliation, from the files on this host and one snapshot of the database to a report."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

import asyncpg
import msgspec

from penstock_base import queries
from penstock_billing.reconcile import books, engines, journals
from penstock_billing.reconcile.engines import EngineBoot
from penstock_billing.reconcile.report import UNBILLED_MAX, Examined, InFlight, Report

SQL = queries.load("penstock_billing", "reconcile.sql")

SETTLED_AFTER = timedelta(minutes=10)
"""What ended this long ago is recorded by now: a client that reads slowly keeps its request open after the
engine is done with it."""
ABOUT = timedelta(hours=1)
"""Receipts and records this much before the window are read too: each is looked for among the others."""
FILES_FOR = timedelta(days=2)
"""How far before a window's end journals and receipts are compared: they are not kept for much longer."""
BEGINNING = datetime(2000, 1, 1, tzinfo=UTC)


def settled(now: datetime | None = None) -> datetime:
    """Say until when what happened can be compared whole."""
    return (now or datetime.now(UTC)) - SETTLED_AFTER


def files_since(since: datetime | None, until: datetime) -> datetime:
    """Say from when on journals and receipts of a window are compared."""
    return max(since or BEGINNING, min(until, datetime.now(UTC)) - FILES_FOR)


def read_from(since: datetime | None, until: datetime) -> datetime:
    """Say from when on they are to be read for that."""
    return files_since(since, until) - ABOUT


async def run(
    connection: asyncpg.Connection,
    *,
    since: datetime | None,
    until: datetime,
    journal_folder: Path | None = None,
    boots: Sequence[EngineBoot] = (),
) -> Report:
    """Compare everything that happened in [since, until), and keep the report in billing.reconcile_run.

    Without `since` everything there is. The caller answers for `until`: what ended before it must have been
    recorded (`settled` says so). `journal_folder` and `boots` are this host's, and are compared for the last
    two days of the window; what is not given is not compared, and noted. Raises what asyncpg raises; then
    nothing is kept.
    """
    began_at, began_s = datetime.now(UTC), time.monotonic()
    first = since or BEGINNING
    report = Report(since=since, until=until, began_at=began_at, examined=Examined(), in_flight=InFlight())
    cursors = {row["journal"]: row["shipped_bytes"] for row in await connection.fetch(SQL["cursors"])}
    reading = journals.Reading()
    if journal_folder is None:
        report.notes.append("no journals were compared: none are on this host")
    else:
        reading = await asyncio.to_thread(journals.read, journal_folder, cursors, read_from(since, until))
    if not boots:
        report.notes.append("no engine's count was compared: no receipts are on this host")
    async with connection.transaction(isolation="repeatable_read"):
        await journals.stage(connection, reading)
        await engines.stage(connection, boots)
        await connection.execute(SQL["join_in_bulk"])
        await connection.execute(SQL["analyse"])
        await _compare(connection, report, reading, boots, first)
        report.in_flight.journal_records = reading.in_flight
        report.took_ms = int((time.monotonic() - began_s) * 1000)
        await _keep(connection, report)
    return report


async def _compare(
    connection: asyncpg.Connection,
    report: Report,
    reading: journals.Reading,
    boots: Sequence[EngineBoot],
    first: datetime,
) -> None:
    until, filed = report.until, files_since(report.since, report.until)
    counted, unbilled = await engines.compare(connection, boots, reading.killed, filed, until)
    charged, intervals = await books.compare_minutes(connection, first, until)
    report.differences = [
        *counted,
        *await journals.compare(connection, reading, filed, until),
        *await books.compare(connection, report.since, until),
        *charged,
    ]
    report.unbilled = unbilled[:UNBILLED_MAX]
    report.unbilled_requests = len(unbilled)
    report.unbilled_tokens = sum(one.input_tokens + one.output_tokens for one in unbilled)
    report.in_flight.engine_requests = await connection.fetchval(SQL["in_flight_work"], until)
    report.examined = Examined(
        events=await connection.fetchval(SQL["events_examined"], first, until),
        journal_records=await connection.fetchval(SQL["records_examined"], filed, until),
        engine_requests=await connection.fetchval(SQL["work_examined"], filed, until),
        engine_boots=len(boots),
        charged_intervals=intervals,
    )


async def _keep(connection: asyncpg.Connection, report: Report) -> None:
    await connection.execute(
        SQL["add_run"],
        report.since,
        report.until,
        report.began_at,
        report.took_ms,
        len(report.differences),
        report.unbilled_requests,
        msgspec.json.encode(report).decode(),
    )


class Kept(msgspec.Struct, frozen=True):
    """What is remembered of a run before."""

    began_at: datetime
    until: datetime
    differences: int


async def last(connection: asyncpg.Connection, *, whole: bool = False) -> Kept | None:
    """Tell of the last run, or of the last one over everything; None when there was none."""
    row = await connection.fetchrow(SQL["last_run"], whole)
    return None if row is None else Kept(row["began_at"], row["until"], row["differences"])


class Run(msgspec.Struct, frozen=True, kw_only=True):
    """One comparison in a list."""

    id: int
    since: datetime | None
    """None for everything there was."""
    until: datetime
    began_at: datetime
    took_ms: int
    differences: int
    unbilled_requests: int


async def latest(pool: asyncpg.Pool, most: int) -> list[Run]:
    """The latest comparisons, newest first."""
    return [Run(**row) for row in await pool.fetch(SQL["latest_runs"], most)]


async def report_of(pool: asyncpg.Pool, number: int) -> Report | None:
    """What one comparison found; None where there is none of this number."""
    text = await pool.fetchval(SQL["run_report"], number)
    return None if text is None else msgspec.json.decode(text, type=Report)
