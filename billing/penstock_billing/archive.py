"""Old events leave Postgres for files, a day at a time, and come back when they are asked for.

A day is written to a file, the file is forced to the disk and read back, its sums and the ids of its events
are noted, and only then the day is taken away, in one transaction that first counts its events again. Broken
off anywhere, it begins anew and nothing is lost. What comes late for a filed day gets a partition and later a
file of its own; what comes again is known by its id (`sql/shipping.sql`).
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from datetime import UTC, date, datetime, time, timedelta
from pathlib import Path

import asyncpg
import msgspec
from asyncpg.pgproto import pgproto

from penstock_base import queries
from penstock_billing import parquet
from penstock_billing.errors import ArchiveDamaged, ArchiveRefused

SQL = queries.load("penstock_billing", "archive.sql")

YOUNGEST_DAYS = 3
"""Younger days are not filed: gateways still add to them. The database refuses it too."""
RESTORED_FOR = timedelta(days=30)
TRIES = 3
"""At filing a day to which events are added meanwhile."""

Told = Callable[[int, int], None]
"""Events that are done, and how many there are."""


class File(msgspec.Struct, frozen=True, kw_only=True):
    """A file of a day's events, and what became of it."""

    day: date
    part: int
    file: str
    """Its name in the archive folder."""
    size_bytes: int
    sha256: bytes
    events: int
    cost_nano_usd: int
    exported_at: datetime
    detached_at: datetime | None
    """Since when it alone has its events; None while a try was broken off before."""
    restored_at: datetime | None
    """Since when Postgres has them again."""
    kept_until: datetime | None
    """Of restored events: when they may be filed again."""

    @property
    def alone(self) -> bool:
        """Whether its events are nowhere else."""
        return self.detached_at is not None and self.restored_at is None


def quiet(_done: int, _total: int) -> None:
    """Tell nobody."""


async def listed(connection: asyncpg.Connection | asyncpg.Pool, day: date | None = None) -> list[File]:
    """List the files, of one day or of all, the oldest day first."""
    return [File(**row) for row in await connection.fetch(SQL["listed"], day)]


async def due(connection: asyncpg.Connection, keep_days: int, today: date) -> list[date]:
    """Name the days older than `keep_days` that are still in Postgres, the oldest first."""
    before = today - timedelta(days=max(keep_days, YOUNGEST_DAYS))
    return [row["day"] for row in await connection.fetch(SQL["held_days"], before)]


async def file_day(
    connection: asyncpg.Connection, folder: Path, day: date, told: Told = quiet
) -> File | None:
    """Move a day's events to a file in `folder`; None when there were none, and only its partition is gone.

    Raises ArchiveRefused for a day that is too young, has no partition, or does not come to rest;
    ArchiveUnavailable, ArchiveDamaged; ArchiveError when the disk does not take it; what asyncpg raises, such
    as LockNotAvailableError when a long reader is in the way. Then the day is in Postgres as before, and the
    next try begins anew.
    """
    if day > datetime.now(UTC).date() - timedelta(days=YOUNGEST_DAYS):
        raise ArchiveRefused(f"the events of {day} stay in the database for {YOUNGEST_DAYS} days")
    async with _turn(connection):
        for _ in range(TRIES):
            if not await connection.fetchval(SQL["is_held"], day):
                raise ArchiveRefused(
                    f"no events of {day} are in the database; `penstock billing archives` lists the files"
                )
            count: int = await connection.fetchval(SQL["count_day"], *_bounds(day))
            if not count:
                async with connection.transaction():
                    await connection.execute(SQL["limit_waiting"])
                    if await connection.fetchval(SQL["drop_empty_day"], day):
                        return None
                continue
            part: int = await connection.fetchval(SQL["next_part"], day)
            await _write(connection, folder, day, part, count, told)
            async with connection.transaction():
                await connection.execute(SQL["limit_waiting"])
                if await connection.fetchval(SQL["detach_day"], day, part):
                    return (await listed(connection, day))[-1]
    raise ArchiveRefused(f"events of {day} keep coming: try again when its gateways are done")


async def _write(
    connection: asyncpg.Connection, folder: Path, day: date, part: int, count: int, told: Told
) -> None:
    """Write a day to its file and note what that has."""
    name = f"usage-{day}.{part}.parquet"
    notes = {"penstock": "usage events", "day": f"{day}", "part": f"{part}"}
    done = 0
    with await asyncio.to_thread(parquet.Writer, folder / name, notes) as writer:
        async with connection.transaction(isolation="repeatable_read", readonly=True):
            cursor = await connection.cursor(SQL["events_of_day"], *_bounds(day))
            while rows := await cursor.fetch(parquet.ROWS_A_GROUP):
                await asyncio.to_thread(writer.add, rows)
                done += len(rows)
                told(done, max(count, done))
        content = await asyncio.to_thread(writer.close)
    if content.sums[0] != done:
        raise ArchiveDamaged(
            f"{folder / name} has {content.sums[0]} events and not {done}: look after the disk"
        )
    await connection.execute(
        SQL["file_day"], day, part, name, content.size_bytes, content.sha256, content.sums
    )


async def restore(
    connection: asyncpg.Connection,
    folder: Path,
    day: date,
    keep: timedelta = RESTORED_FOR,
    told: Told = quiet,
) -> list[File]:
    """Bring back all of a day's events, for at least `keep`; the files stay where they are.

    Raises ArchiveRefused when none of them is in a file only, ArchiveDamaged when a file is missing or is not
    what was written, and as `file_day`. What was brought back before an error stays.
    """
    async with _turn(connection):
        files = [each for each in await listed(connection, day) if each.alone]
        if not files:
            raise ArchiveRefused(
                f"no events of {day} are in a file only; `penstock billing archives` lists the files"
            )
        for each in files:
            await _check(folder, each)
            await _bring_back(connection, folder, each, datetime.now(UTC) + keep, told)
        return await listed(connection, day)


async def _check(folder: Path, one: File) -> None:
    path = folder / one.file
    content = await asyncio.to_thread(parquet.read_back, path)
    if content.sha256 != one.sha256:
        raise ArchiveDamaged(f"{path} is not the file that was written: bring back a copy of it")


async def _bring_back(
    connection: asyncpg.Connection, folder: Path, one: File, keep_until: datetime, told: Told
) -> None:
    done = 0
    table: str = await connection.fetchval(SQL["begin_restoring"], one.day, one.part)
    chunks = parquet.rows(folder / one.file)
    while (chunk := await asyncio.to_thread(next, chunks, None)) is not None:
        names, rows = chunk
        place = names.index("event_id")
        records = [(*row[:place], pgproto.UUID(row[place]), *row[place + 1 :]) for row in rows]
        await connection.copy_records_to_table(table, schema_name="billing", columns=names, records=records)
        done += len(records)
        told(done, one.events)
    async with connection.transaction():
        await connection.execute(SQL["limit_waiting"])
        if not await connection.fetchval(SQL["finish_restoring"], one.day, one.part, keep_until):
            raise ArchiveDamaged(f"{one.file} does not have what was filed: bring back a copy of it")


@contextlib.asynccontextmanager
async def _turn(connection: asyncpg.Connection) -> AsyncIterator[None]:
    """Keep others from filing and restoring meanwhile."""
    if not await connection.fetchval(SQL["take_turn"]):
        raise ArchiveRefused(
            "another process is filing events or bringing them back: try again when it is done"
        )
    try:
        yield
    finally:
        if not connection.is_closed():
            await connection.execute(SQL["end_turn"])


def _bounds(day: date) -> tuple[datetime, datetime]:
    begin = datetime.combine(day, time(), UTC)
    return begin, begin + timedelta(days=1)
