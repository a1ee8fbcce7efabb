"""One controller leads: whatever becomes of its session at Postgres."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import asyncpg
import pytest

from penstock.control import leadership
from penstock.control.leadership import Leadership, LeadershipLostError

CHAT = "penstock/demo-chat"
Start = Callable[..., Awaitable[object]]
LEADERS = "application_name = 'penstock leader' and datname = current_database()"


async def end_sessions(database: asyncpg.Pool) -> None:
    await database.execute(f"select pg_terminate_backend(pid) from pg_stat_activity where {LEADERS}")


async def test_a_leader_that_loses_its_session_leads_on_with_the_same_engines(
    start_controller: Start, database: asyncpg.Pool
) -> None:
    house = await start_controller(models=(CHAT,))
    (before,) = await house.until_engines({("ready", 1): 1})
    await database.execute("delete from engines.replica")  # as a database from an older backup has it
    await end_sessions(database)
    (after,) = await house.until_engines({("ready", 1): 1})
    assert after.id == before.id
    assert len(house.launcher.launches) == 1


async def test_who_was_followed_lets_its_engines_finish_and_says_so(
    start_controller: Start, database: asyncpg.Pool, database_url: str
) -> None:
    house = await start_controller(models=(CHAT,))
    await house.until_engines({("ready", 1): 1})
    await end_sessions(database)
    connection = await asyncpg.connect(database_url)
    try:
        # The one that led is not always the first to come back.
        taking = "select pg_advisory_lock($1)"
        async with asyncio.timeout(30):
            while not house.task.done():
                await connection.execute(taking, leadership.LEADER_LOCK)
                await end_sessions(database)
        with pytest.raises(LeadershipLostError):
            await house.task
        assert await house.engines() == []
    finally:
        await connection.close()


async def test_a_silent_leader_is_followed_and_one_that_lives_is_not(
    database: asyncpg.Pool, database_url: str
) -> None:
    stop = asyncio.Event()
    first, second = Leadership(database_url), Leadership(database_url)
    assert await first.gain(stop)
    beating = asyncio.create_task(first.keep(lambda: None))
    following = asyncio.create_task(second.gain(stop))
    await asyncio.sleep(leadership.SILENT_S + 2 * leadership.BEAT_S)
    assert not following.done()
    beating.cancel()
    await asyncio.gather(beating, return_exceptions=True)
    async with asyncio.timeout(20):
        assert await following
        # Who was silent finds out as soon as it speaks.
        await first.keep(lambda: None)
    await asyncio.gather(first.leave(), second.leave())


async def test_standing_by_ends_when_told_to(database_url: str) -> None:
    stop = asyncio.Event()
    first, second = Leadership(database_url), Leadership(database_url)
    assert await first.gain(stop)
    following = asyncio.create_task(second.gain(stop))
    stop.set()
    assert not await following
    await first.leave()
