"""One batch from a journal file into Postgres: events, roll-up, ledger and cursor in one transaction."""

from __future__ import annotations

import asyncio
import itertools
from datetime import datetime, timedelta
from pathlib import Path

import asyncpg
import msgspec
from asyncpg.pgproto import pgproto

from penstock_base import queries
from penstock_billing import frames, record
from penstock_billing.errors import UsageRefused

SQL = queries.load("penstock_billing", "shipping.sql")
LEDGER_SQL = queries.load("penstock_billing", "ledger.sql")

FUTURE_MAX = timedelta(days=1)
"""A request that ends later than this from now comes from a clock that is wrong beyond belief."""


class Shipment(msgspec.Struct, frozen=True):
    """What one transaction took over."""

    position: int
    """Behind the last frame that is in the database now, in bytes."""
    frames: int
    """Frames taken over: new records, conflicts and rejected ones."""
    conflicts: int
    """Records that were there already. The cursor prevents that, so it means a fault: two files of one
    name, a cursor that was changed, or ids that are not unique."""
    rejected: int
    """Frames that are no usage record and were set aside."""
    idle: timedelta
    """How long ago, by the database's clock, the journal's cursor had moved before this."""


class Batch(msgspec.Struct):
    """Frames as they will be copied, read and checked in a thread."""

    rows: list[tuple[object, ...]]
    rejected: list[tuple[int, bytes, str]]
    """Position, body and what is wrong with it."""
    end: int


async def prepare(connection: asyncpg.Connection) -> None:
    """Make a connection fit for `ship`: the table that batches are copied to lives as long as it does."""
    await connection.execute(SQL["create_stage"])


async def ship(
    connection: asyncpg.Connection, journal: str, path: Path, *, until: int | None = None, limit: int = 1000
) -> Shipment:
    """Take over the next `limit` frames of a journal file, or nothing, whatever happens meanwhile.

    Where the file goes on is only ever asked of the database, under a row lock: an earlier try may have
    been committed without our hearing of it, and another shipper may be at work. `until` is how far a
    living writer's file is known to be whole. Raises what asyncpg raises; then nothing was taken over, or
    (the commit's answer was lost) all of it.
    """
    async with connection.transaction():
        cursor = await connection.fetchrow(SQL["lock_cursor"], journal)
        if cursor is None:
            await connection.execute(SQL["add_cursor"], journal)
            cursor = await connection.fetchrow(SQL["lock_cursor"], journal)
            assert cursor is not None
        now: datetime = cursor["now"]
        batch = await asyncio.to_thread(read_batch, path, cursor["shipped_bytes"], until, limit, now)
        added = 0
        if batch.rows:
            await connection.copy_records_to_table("usage_stage", records=batch.rows)
            groups = await connection.fetch(SQL["take_over"], cursor["transaction_id"])
            added = sum(group["records"] for group in groups)
            boot_id, _, _ = journal.rpartition("-")
            ref = f"ship:{journal}:{batch.end}"
            await book(connection, cursor["transaction_id"], ref, boot_id, groups)
        if batch.rejected:
            positions, bodies, problems = zip(*batch.rejected, strict=True)
            await connection.execute(SQL["reject"], journal, positions, bodies, problems)
        total = len(batch.rows) + len(batch.rejected)
        if total:
            await connection.execute(SQL["move_cursor"], journal, batch.end, total)
    return Shipment(
        position=batch.end,
        frames=total,
        conflicts=len(batch.rows) - added,
        rejected=len(batch.rejected),
        idle=now - cursor["shipped_at"],
    )


async def book(
    connection: asyncpg.Connection, transaction_id: int, ref: str, boot_id: str, groups: list[asyncpg.Record]
) -> None:
    """Charge each wallet for its part of a batch; a batch that costs nothing moves no money."""
    charged = [group for group in groups if group["cost_nano_usd"]]
    if not charged:
        return
    await connection.execute(
        LEDGER_SQL["book_usage"],
        transaction_id,
        ref,
        min(group["earliest"] for group in charged),
        max(group["latest"] for group in charged),
        [group["organisation_id"] for group in charged],
        [group["funding"] for group in charged],
        [group["wallet_project_id"] for group in charged],
        [group["cost_nano_usd"] for group in charged],
        boot_id,
    )


def read_batch(path: Path, offset: int, until: int | None, limit: int, now: datetime) -> Batch:
    """Read at most `limit` whole frames from `offset` on and check what is in them."""
    batch = Batch(rows=[], rejected=[], end=offset)
    latest_ms = int((now + FUTURE_MAX).timestamp() * 1000)
    for frame in itertools.islice(frames.frames(path, offset, until), limit):
        batch.end = frame.end
        try:
            batch.rows.append(row(record.decode(frame.body), latest_ms))
        except (msgspec.DecodeError, UnicodeDecodeError, UsageRefused) as error:
            batch.rejected.append((frame.position, frame.body, str(error)))
    return batch


def row(usage: record.UsageRecord, latest_ms: int) -> tuple[object, ...]:
    """Lay a record out as the stage table's columns; raises UsageRefused for what Postgres cannot hold."""
    if usage.ended_ms > latest_ms:
        raise UsageRefused(f"ended_ms {usage.ended_ms} is more than a day ahead of the database's clock")
    columns = msgspec.structs.astuple(usage)
    for name, value in zip(usage.__struct_fields__, columns, strict=True):
        if isinstance(value, str) and "\0" in value:
            raise UsageRefused(f"{name} holds a NUL character, which Postgres text cannot")
    return (pgproto.UUID(usage.event_id), *columns[1:])
