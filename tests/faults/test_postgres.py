"""PostgreSQL is stopped, frozen, slow, locked, full, and older than it was (rows 10 to 13, and 36)."""

from __future__ import annotations

import asyncio
import contextlib
import statistics

import asyncpg
from rig.check import outcomes, settled
from rig.client import End, Seen
from rig.room import Room
from rig.server import until

OUTAGE_S = 8
"""Longer than the shipper's longest pause between two tries."""


def unanswered(seen: list[Seen]) -> list[Seen]:
    """Requests that did not end as their clients wanted."""
    return [one for one in seen if one.end not in {End.FINISHED, End.LEFT}]


async def test_answers_go_on_while_postgres_is_stopped_and_the_backlog_drains(room: Room) -> None:
    """Row 10: `pg_ctl stop -m immediate` under load, an outage, and a start."""
    await room.start_engine()
    await asyncio.gather(room.start_gateway(), room.start_gateway())
    async with room.load() as load:
        await load.more(20)
        await room.server.stop_immediately()
        await settled(OUTAGE_S)
        await load.more(20)
        await room.server.start()
        await load.more(20)
    assert unanswered(load.seen) == []
    assert outcomes(await room.check())["done"] > 50


async def test_a_postgres_that_hangs_and_comes_back_costs_no_answer(room: Room) -> None:
    """Row 10: every process of the server is stopped in the middle of its work, then goes on."""
    await room.start_engine()
    await room.start_gateway()
    async with room.load() as load:
        await load.more(20)
        room.server.freeze()
        await settled(3)
        await load.more(20)
        room.server.thaw()
        await load.more(10)
    assert unanswered(load.seen) == []
    await room.check()


async def test_cut_and_half_closed_sessions_are_replaced(room: Room) -> None:
    """Row 10: connections are reset, and half-closed, again and again under load."""
    await room.start_engine()
    await room.start_gateway()
    async with room.load() as load:
        for _ in range(5):
            await load.more(6)
            room.to_postgres.reset()
            await load.more(6)
            room.to_postgres.half_close()
    assert unanswered(load.seen) == []
    await room.check()


async def test_no_answer_waits_for_a_slow_postgres(room: Room) -> None:
    """Row 11: every statement takes two seconds longer; the time to the first byte knows nothing of it."""
    await room.start_engine()
    await room.start_gateway()
    async with room.load(clients=4) as load:
        await load.more(20)
        room.to_postgres.delay_s = 2.0
        slow_from = len(load.seen)
        await load.more(60)
    streams = [seen for seen in load.seen[slow_from + 4 :] if seen.choices and seen.end is End.FINISHED]
    room.to_postgres.delay_s = 0.0
    assert statistics.median(seen.first_byte_s for seen in streams) < 1.0
    assert unanswered(load.seen) == []
    await room.check()


async def test_a_locked_table_piles_up_no_sessions_and_loses_nothing(room: Room) -> None:
    """Row 12: somebody holds an exclusive lock on the events."""
    await room.start_engine()
    await asyncio.gather(room.start_gateway(), room.start_gateway())
    async with room.load() as load:
        await load.more(10)
        async with room.connect() as holder, holder.transaction():
            await holder.execute("lock table billing.usage_event in access exclusive mode")
            waiting = "wait_event_type = 'Lock' and application_name = 'penstock shipper'"

            async def waits() -> bool:
                return await room.sessions(waiting) > 0

            await until(waits, "a shipper waits for the lock")
            await load.more(40)
            assert await room.sessions() <= 2 * (4 + 1 + 3)  # a pool, a shipper, and a few beside, each
        await load.more(10)
    assert unanswered(load.seen) == []
    await room.check()


async def test_a_server_without_a_free_connection_is_waited_for(room: Room) -> None:
    """Row 12: max_connections is reached by others just when every session of ours is cut."""
    await room.start_engine()
    await room.start_gateway()
    async with room.load() as load, contextlib.AsyncExitStack() as others:
        await load.more(10)
        room.to_postgres.refusing = True
        room.to_postgres.reset()
        held = await hold_every_connection(room, others)
        room.to_postgres.refusing = False
        await load.more(30)
        for connection in held:
            await connection.close()
        await load.more(10)
    assert unanswered(load.seen) == []
    await room.check()


async def hold_every_connection(room: Room, stack: contextlib.AsyncExitStack) -> list[asyncpg.Connection]:
    held = []
    while True:
        try:
            connection = await asyncpg.connect(room.server.url("postgres"), timeout=30)
        except asyncpg.TooManyConnectionsError:
            assert len(held) > 20
            return held
        stack.push_async_callback(connection.close)
        held.append(connection)


async def test_events_of_a_day_without_a_partition_are_kept_and_counted(room: Room) -> None:
    """Row 13: today's partition is gone; the default one takes the events until there is one again."""
    await room.start_engine()
    gateway = await room.start_gateway()
    first = await room.ask()
    await room.event(first)
    async with room.connect() as connection:
        days = await connection.fetch(
            "select inhrelid::regclass::text as name from pg_inherits"
            " where inhparent = 'billing.usage_event'::regclass"
        )
        # Midnight may be near, so no day keeps its partition.
        for day in days:
            if not day["name"].endswith("default"):
                await connection.execute(f"alter table billing.usage_event detach partition {day['name']}")
                await connection.execute(f"insert into billing.usage_event select * from {day['name']}")
    async with room.load() as load:
        await load.more(30)
    events = await room.check()
    assert await room.fetchval("select count(*) from billing.usage_event_default") == len(events) > 30
    async with room.connect() as connection:
        for day in days:
            if not day["name"].endswith("default"):
                await connection.execute(f"drop table {day['name']}")
    await gateway.kill()
    await gateway.start()

    async def moved() -> bool:
        return await room.fetchval("select count(*) from billing.usage_event_default") == 0

    await until(moved, "the events are in their day's partition")
    assert len(await room.check()) == len(events)


async def test_a_database_restored_from_an_older_backup_is_healed_from_the_kept_journals(room: Room) -> None:
    """Row 36: with a gateway that died before the backup, one that died after it, and one that lives."""
    await room.start_engine()
    await asyncio.gather(*(room.start_gateway() for _ in range(3)))
    async with room.load() as load:
        await load.more(20)
        await room.gateways[0].kill()
        await room.gateways[0].start()
        await load.more(20)
    await room.check()
    await at_rest(room, f"create database {room.name}_backup template {room.name}")
    async with room.load() as load:
        await load.more(20)
        await room.gateways[1].kill()
        await room.gateways[1].start()
        await load.more(20)
    before = await room.check()
    await at_rest(
        room,
        f"drop database {room.name} with (force)",
        f"alter database {room.name}_backup rename to {room.name}",
    )
    async with room.load() as load:
        await load.more(10)
    after = await room.check()
    assert {event["event_id"] for event in before} < {event["event_id"] for event in after}


async def at_rest(room: Room, *statements: str) -> None:
    """Do something to the database while nobody is in it."""
    room.to_postgres.refusing = True
    room.to_postgres.reset()
    connection = await asyncpg.connect(room.server.url("postgres"))
    try:
        query = "select pg_terminate_backend(pid, 10000) from pg_stat_activity where datname = $1"
        await connection.execute("set application_name = 'at rest'")
        await connection.fetch(query, room.name)
        for statement in statements:
            await connection.execute(statement)
    finally:
        await connection.close()
    room.to_postgres.refusing = False
