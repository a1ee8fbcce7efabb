from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta

import asyncpg
import pytest

from penstock_billing import partitions, shipping
from penstock_billing.journal import Journal
from penstock_billing.record import UsageRecord

Expect = Callable[[list[UsageRecord]], Awaitable[None]]


async def names(database: asyncpg.Pool) -> set[str]:
    rows = await database.fetch(
        "select inhrelid::regclass::text as name from pg_inherits "
        "where inhparent = 'billing.usage_event'::regclass"
    )
    return {row["name"].removeprefix("billing.usage_event_") for row in rows}


async def test_days_are_made_ahead_once(database: asyncpg.Pool) -> None:
    today = datetime.now(UTC).date()
    async with database.acquire() as connection:
        assert await partitions.ensure(connection, 3) == 5
        assert await partitions.ensure(connection, 3) == 0
    wanted = {(today + timedelta(days=n)).strftime("%Y%m%d") for n in range(-1, 4)}
    assert await names(database) == wanted | {"default"}


async def test_processes_that_make_them_at_once_do_not_fail(database: asyncpg.Pool) -> None:
    async def one() -> int:
        async with database.acquire() as connection:
            return await partitions.ensure(connection, 3)

    assert sum(await asyncio.gather(*(one() for _ in range(5)))) == 5


async def test_events_of_a_day_without_a_partition_are_kept_and_move_when_it_has_one(
    database: asyncpg.Pool, journal: Journal, make: Callable[..., UsageRecord], expect: Expect
) -> None:
    long_ago_ms = int((datetime.now(UTC) - timedelta(days=40)).timestamp() * 1000)
    records = [make() for _ in range(10)] + [make(ended_ms=long_ago_ms) for _ in range(3)]
    for each in records:
        journal.append(each)
    async with database.acquire() as connection:
        await shipping.prepare(connection)
        await shipping.ship(connection, journal.name, journal.path)
        assert await partitions.strayed(connection) == 13
        await partitions.ensure(connection, 1)
        assert await partitions.strayed(connection) == 3
        assert await partitions.settle(connection) == 1
        assert await partitions.strayed(connection) == await partitions.settle(connection) == 0
    await expect(records)


async def test_a_long_reader_delays_partitions_and_not_for_ever(database: asyncpg.Pool) -> None:
    async with database.acquire() as reader, database.acquire() as connection:
        async with reader.transaction():
            await reader.fetch("select * from billing.usage_event")
            with pytest.raises(asyncpg.LockNotAvailableError):
                await partitions.ensure(connection, 1)
        assert await partitions.ensure(connection, 1) == 3
