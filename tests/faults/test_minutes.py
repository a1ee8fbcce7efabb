"""Several processes charge minutes at once and die while they do (row 30)."""

from __future__ import annotations

import asyncio
import os
import random
import sys
from asyncio.subprocess import Process
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import asyncpg
import pytest
from rig.proxy import Cut, Proxy
from rig.room import Room
from rig.server import until

from penstock_billing import intervals, minutes
from penstock_billing.intervals import IntervalKind, Subject

BEGIN = datetime(2051, 3, 1, 22, 0, tzinfo=UTC)
"""In the future, for no price begins in the past; the charging processes are told what time it is."""
END = BEGIN + timedelta(hours=5)
STANDARD = 1
"""The list that everybody pays by who has none of their own."""
PRICE_NANO_USD = 7_777
WAITING = (
    "select count(*) from pg_stat_activity where wait_event_type = 'Lock' and query like '%minute_charge%'"
)
CHARGING = Path(__file__).parent / "rig" / "charging.py"


@pytest.fixture
async def start_charging(room: Room) -> AsyncIterator[Callable[[], Awaitable[Process]]]:
    """Start processes that charge minutes, over the database's socket in the folder `charging`."""
    started: list[Process] = []

    async def start() -> Process:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-P", str(CHARGING), room.server.url(room.name, at=room.folder / "charging")),
            *(BEGIN.isoformat(), END.isoformat()),
            env=os.environ | room.environment,
        )
        started.append(process)
        return process

    yield start
    for process in started:
        if process.returncode is None:
            process.kill()
        await process.wait()


async def test_processes_that_charge_minutes_at_once_and_die_charge_each_once(
    room: Room, start_charging: Callable[[], Awaitable[Process]]
) -> None:
    """Row 30: two are killed in a transaction, one gets no answer to a commit, PostgreSQL stops."""
    await room.start_engine()
    await room.start_gateway()
    async with room.connect() as connection:
        wanted = await leave_intervals(connection)
    way = Proxy(lambda: room.server.socket)
    (room.folder / "charging").mkdir()
    await way.listen_at(room.folder / "charging" / ".s.PGSQL.5432")
    for cut in Cut:
        way.cut_at(b"COMMIT", cut)
    async with room.load(clients=3) as load:
        await load.more(5)
        async with room.connect() as holder, holder.transaction():
            await holder.execute("lock table billing.minute_charge in access exclusive mode")
            running = [await start_charging() for _ in range(3)]
            await until(lambda: room.fetchval(WAITING), "one waits in its transaction")
            for process in running[:2]:
                process.kill()
                await process.wait()
        running[:2] = [await start_charging(), await start_charging()]

        async def tripped() -> bool:
            return way.tripped > 0

        await until(tripped, "a commit got no answer")
        await room.server.stop_immediately()
        await load.more(5)
        await room.server.start()
        async with asyncio.timeout(60):
            assert [await process.wait() for process in running] == [0, 0, 0]
        await load.more(5)
    await way.close()
    async with room.connect() as connection:
        # Whoever comes last finds nothing left.
        assert await minutes.accrue(connection, END) == minutes.Accrual()
        query = "select interval_id, sum(minutes)::bigint from billing.minute_charge group by 1"
        assert dict(await connection.fetch(query)) == {name: count for name, count in wanted.items() if count}
        cost = await connection.fetchval("select sum(cost_nano_usd) from billing.minute_charge")
    assert cost == sum(wanted.values()) * PRICE_NANO_USD
    await room.check()


async def leave_intervals(connection: asyncpg.Connection) -> dict[int, int]:
    """Say of many instances and endpoints when they ran; how many minutes of each are to be charged."""
    chance = random.Random(30)
    for kind in IntervalKind:
        await connection.execute(
            "insert into billing.minute_price_version"
            " (price_list_id, kind, subject, nano_usd_per_minute, valid_from) values ($1, $2, 'c1', $3, $4)",
            *(STANDARD, kind.value, PRICE_NANO_USD, BEGIN - timedelta(days=1)),
        )
    organisation = await connection.fetchval("select id from access.organisation limit 1")
    wanted = {}
    for number in range(30):
        kind = list(IntervalKind)[number % 2]
        subject = Subject(kind=kind, id=f"s{number}", priced_as="c1", organisation_id=organisation)
        ready = BEGIN + timedelta(seconds=chance.uniform(0, 3 * 3600))
        stopped = ready + timedelta(seconds=chance.choice((20, 3600, 7000)) * chance.random())
        holder = "room" if kind is IntervalKind.INSTANCE else None
        opened = await intervals.open_interval(connection, subject, ready, holder=holder)
        if holder:
            await intervals.see(connection, kind, [subject.id], stopped, holder=holder)
        await intervals.close_interval(connection, kind, subject.id, stopped, holder=holder)
        wanted[opened.id] = minutes.minutes_between(ready, stopped)
    return wanted
