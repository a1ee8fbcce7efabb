"""The controller records what runs, also what happened while Postgres was away."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import asyncpg
import pytest

from penstock.control import running
from penstock.control.running import Running
from penstock_base import database as databases
from penstock_billing import intervals
from penstock_billing.intervals import IntervalKind, Subject
from penstock_billing.shipper import DATABASE_AWAY


def instance(name: str = "i-1", organisation_id: int | None = None) -> Subject:
    return Subject(
        kind=IntervalKind.INSTANCE, id=name, priced_as="pooled", organisation_id=organisation_id, model="m"
    )


async def rows(database: asyncpg.Pool) -> list[asyncpg.Record]:
    return await database.fetch("select * from billing.running_interval order by id")


@pytest.fixture
async def loop_of(database: asyncpg.Pool) -> AsyncIterator[Any]:
    """Run what `penstock controller` would of it."""
    tasks = []

    def start(one: Running) -> Running:
        tasks.append(asyncio.create_task(one.see()))
        return one

    yield start
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def until(condition: Any) -> None:
    async with asyncio.timeout(30):
        while not await condition():  # noqa: ASYNC110 - the condition is in the database
            await asyncio.sleep(0.02)


async def test_an_instance_that_becomes_ready_and_stops_has_one_interval(
    database: asyncpg.Pool, loop_of: Any
) -> None:
    one = loop_of(Running(database, "one"))
    began = datetime.now(UTC)
    one.changed(instance(), ready=True)
    one.changed(instance(), ready=True)

    async def is_open() -> bool:
        return [row["stopped_at"] for row in await rows(database)] == [None]

    async def is_stopped() -> bool:
        return all(row["stopped_at"] is not None for row in await rows(database))

    await until(is_open)
    one.changed(instance(), ready=False)
    one.changed(instance(), ready=False)
    await until(is_stopped)
    (row,) = await rows(database)
    assert began <= row["started_at"] <= row["stopped_at"] <= datetime.now(UTC)
    assert (row["subject"], row["model"], row["organisation_id"]) == ("i-1", "m", None)


async def test_a_restart_makes_a_second_interval_and_the_time_between_is_in_neither(
    database: asyncpg.Pool,
) -> None:
    one = Running(database, "one")
    for ready in (True, False, True):
        one.changed(instance(), ready=ready)
        await asyncio.sleep(0.01)
    await one.write()
    first, second = await rows(database)
    assert first["started_at"] < first["stopped_at"] < second["started_at"]
    assert second["stopped_at"] is None


async def test_what_happened_while_postgres_did_not_answer_is_written_as_it_happened(
    database: asyncpg.Pool, database_url: str
) -> None:
    async with await databases.pool(database_url, "test", size_max=1, command_timeout_s=0.5) as pool:
        one = Running(pool, "one")
        async with database.acquire() as connection, connection.transaction():
            await connection.execute("lock table billing.running_interval")
            one.changed(instance(), ready=True)
            happened = datetime.now(UTC)
            with pytest.raises(DATABASE_AWAY):
                await one.write()
            await one.finish()
        await one.write()
    (row,) = await rows(database)
    assert row["started_at"] <= happened
    assert row["seen_at"] > happened


async def test_what_is_ready_is_vouched_for_and_a_killed_controllers_instances_end_there(
    database: asyncpg.Pool,
) -> None:
    one = Running(database, "one")
    one.changed(instance("i-1"), ready=True)
    one.changed(instance("i-2"), ready=True)
    await one.write()
    seen = {row["subject"]: row["seen_at"] for row in await rows(database)}
    one.changed(instance("i-2"), ready=False)
    await one.write()
    # It is killed here; the next one finds what it left.
    two = Running(database, "two")
    await two.begin()
    stopped = {row["subject"]: row for row in await rows(database)}
    assert stopped["i-1"]["stopped_at"] == stopped["i-1"]["seen_at"] > seen["i-1"]
    assert stopped["i-2"]["stopped_at"] >= seen["i-2"]
    # The first one was only asleep: it charges nothing from here on, and says nothing twice.
    await one.write()
    one.changed(instance("i-1"), ready=False)
    await one.write()
    assert {row["subject"]: row["stopped_at"] for row in await rows(database)} == {
        name: row["stopped_at"] for name, row in stopped.items()
    }


async def test_charging_stops_a_minute_ago_by_the_databases_clock(database: asyncpg.Pool) -> None:
    now = await database.fetchval("select clock_timestamp()")
    async with database.acquire() as connection, connection.transaction():
        await connection.execute("set local session_replication_role = replica")
        await connection.execute(
            "insert into billing.minute_price_version "
            "(kind, subject, nano_usd_per_minute, valid_from, added_at) "
            "values ('endpoint', 'online', 7, $1, $1)",
            now - timedelta(days=1),
        )
    endpoint = Subject(kind=IntervalKind.ENDPOINT, id="e", priced_as="online", organisation_id=5)
    async with database.acquire() as connection:
        await intervals.open_interval(connection, endpoint, now - timedelta(minutes=10), holder=None)
    done = await Running(database, "one").charge_once()
    assert 8 <= done.minutes <= 10
    accrued = (await rows(database))[0]["accrued_until"]
    assert (
        now - running.CHARGE_UNTIL
        <= accrued
        <= datetime.now(UTC) - running.CHARGE_UNTIL + timedelta(seconds=1)
    )
    assert (await Running(database, "two").charge_once()).minutes <= 1
