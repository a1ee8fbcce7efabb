"""What journals on this host hold against what is in Postgres, record by record."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path

import asyncpg
import msgspec
from asyncpg.pgproto import pgproto

from penstock_base import queries
from penstock_billing import frames, record
from penstock_billing.boots import QUARANTINE_SUFFIX, locked
from penstock_billing.errors import JournalUnreadable, UsageRefused
from penstock_billing.journal import SUFFIX
from penstock_billing.reconcile.report import Compared, Difference, difference

SQL = queries.load("penstock_billing", "reconcile.sql")


class KilledBoot(msgspec.Struct, frozen=True):
    """A gateway process that ended without closing its journal."""

    boot_id: str
    started_ms: int
    last_ms: int
    """When it last wrote."""


class Reading(msgspec.Struct):
    """What the journal files of one folder hold."""

    rows: list[tuple[object, ...]] = []
    """As the stage table's columns."""
    killed: list[KilledBoot] = []
    set_aside: list[tuple[str, int]] = []
    """Damaged files, and how many bytes of each can be read."""
    in_flight: int = 0


def read(folder: Path, cursors: dict[str, int], since: datetime) -> Reading:
    """Read every record of a folder's journals that ended since, and those not shipped yet. For a thread.

    Files that shippers delete or set aside meanwhile are left out: their records are in Postgres, or will be
    seen the next time.
    """
    reading = Reading()
    since_ms = int(since.timestamp() * 1000)
    for path in sorted(folder.glob("*" + SUFFIX)):
        try:
            name = frames.read_name(path)
            if name is not None:
                _read_file(reading, path, name, cursors.get(name, 0), since_ms)
        except (JournalUnreadable, FileNotFoundError):
            continue
    for path in sorted(folder.glob("*" + QUARANTINE_SUFFIX)):
        end = max((frame.end for frame in frames.frames(path)), default=0)
        reading.set_aside.append((path.name, end))
    return reading


def _read_file(reading: Reading, path: Path, name: str, shipped_bytes: int, since_ms: int) -> None:
    status = path.stat()
    if status.st_mtime * 1000 < since_ms and shipped_bytes >= status.st_size:
        return
    end = frames.HEADER_BYTES
    for frame in frames.frames(path):
        end = frame.end
        shipped = frame.end <= shipped_bytes
        try:
            usage = record.decode(frame.body)
        except (msgspec.DecodeError, UnicodeDecodeError, UsageRefused):
            continue  # set aside when it is shipped, and told from there
        reading.in_flight += not shipped
        if not shipped or usage.ended_ms >= since_ms:
            reading.rows.append(_row(usage, name, frame, shipped))
    boot_id = name.partition("-")[0]
    with locked(path) as dead:
        # A process that ends by itself gives its reserved room back.
        if dead and path.stat().st_size > end:
            started_ms = int(boot_id[:12], 16)
            reading.killed.append(KilledBoot(boot_id, started_ms, int(status.st_mtime * 1000)))


def _row(usage: record.UsageRecord, name: str, frame: frames.Frame, shipped: bool) -> tuple[object, ...]:
    return (
        name,
        frame.position,
        frame.end,
        shipped,
        pgproto.UUID(usage.event_id),
        # Exact: a float has room for the microseconds of this century's moments.
        datetime.fromtimestamp(usage.ended_ms / 1000, UTC),
        usage.organisation_id,
        usage.project_id,
        usage.key_id,
        usage.request_id,
        usage.model,
        usage.price_version,
        usage.outcome.value,
        usage.endpoint,
        usage.replica,
        usage.input_tokens,
        usage.cached_tokens,
        usage.output_tokens,
        usage.duration_us,
        usage.cost_nano_usd,
        usage.hedged,
    )


async def stage(connection: asyncpg.Connection, reading: Reading) -> None:
    """Bring the records to where they can be joined."""
    await connection.execute(SQL["stage_record"])
    if reading.rows:
        await connection.copy_records_to_table("reconcile_record", records=reading.rows)


async def compare(
    connection: asyncpg.Connection, reading: Reading, since: datetime, until: datetime
) -> list[Difference]:
    """Compare staged records that ended in [since, until) with the events, and tell what was set aside."""
    return [
        *(
            difference(
                Compared.JOURNALS_ARE_WHOLE,
                f"journal file {name}",
                f"damaged behind byte {end}",
                "whole; what stands behind the damage is not charged",
            )
            for name, end in reading.set_aside
        ),
        *[found async for found in _rejected(connection, since, until)],
        *(
            difference(
                Compared.SHIPPED_IS_THERE,
                f"request {row['request_id']} in journal {row['journal']}, byte {row['begins']}",
                "no event",
                f"an event of {row['cost_nano_usd']} nano-dollars",
                [row["request_id"]],
            )
            for row in await connection.fetch(SQL["shipped_without_event"], since, until)
        ),
        *(
            difference(
                Compared.EVENTS_ARE_RECORDS,
                f"request {row['request_id']} of organisation {row['organisation_id']}",
                row["found"],
                row["expected"],
                [row["request_id"]],
            )
            for row in await connection.fetch(SQL["events_unlike_records"], since, until)
        ),
    ]


async def _rejected(
    connection: asyncpg.Connection, since: datetime, until: datetime
) -> AsyncIterator[Difference]:
    for row in await connection.fetch(SQL["rejected"], since, until):
        try:
            requests = [record.decode(row["body"]).request_id]
        except (msgspec.DecodeError, UnicodeDecodeError, UsageRefused):
            requests = []
        yield difference(
            Compared.JOURNALS_ARE_WHOLE,
            f"frame at byte {row['position']} of journal {row['journal']}",
            f"set aside: {row['problem']}",
            "a usage record",
            requests,
        )
