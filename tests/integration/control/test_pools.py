"""The controller brings pools to what they should be, and keeps them there."""

from __future__ import annotations

import asyncio
import datetime
import os
import signal
import time
from collections.abc import Awaitable, Callable

import asyncpg
import msgspec
import pytest

from penstock_engines import pools
from penstock_engines.autoscale import ScaleRules
from penstock_engines.pool_settings import PoolSettings
from penstock_engines.pools import Told

CHAT, EMBED = "penstock/demo-chat", "penstock/demo-embed"
Start = Callable[..., Awaitable[object]]


def size(least: int, most: int, **rules: float) -> PoolSettings:
    return PoolSettings(scale=ScaleRules(replicas_min=least, replicas_max=most, **rules))


async def test_named_models_get_an_engine_and_others_none(start_controller: Start) -> None:
    house = await start_controller(models=(CHAT, EMBED))
    await house.until_engines({("ready", 1): 1})
    await house.until_engines({("ready", 1): 1}, EMBED)


async def test_a_pool_grows_and_shrinks_as_it_is_told(
    start_controller: Start, database: asyncpg.Pool
) -> None:
    house = await start_controller()
    async with database.acquire() as connection:
        await pools.create(connection, house.card(), size(3, 3))
        await house.until_engines({("ready", 1): 3})
        await pools.change(connection, house.card(), size(1, 1))
        await house.until_engines({("ready", 1): 1})
        await pools.remove(connection, CHAT)
        await house.until_engines({})
    decisions = await pools.scalings(database, CHAT, 10)
    assert [(each.before, each.after) for each in decisions] == [(3, 1), (0, 3)]


async def test_folders_of_engines_stay_as_long_as_they_may_be_asked_for(start_controller: Start) -> None:
    house = await start_controller(models=(CHAT,))
    (engine,) = await house.until_engines({("ready", 1): 1})
    folders = house.settings.engines_folder
    long_ago = time.time() - 4 * 86_400
    for name in ("old", "young"):
        (folders / name).mkdir()
        (folders / name / "receipts").touch()
    for path in (folders / "old" / "receipts", folders / "old", folders / engine.id):
        os.utime(path, (long_ago, long_ago))
    await house.fleet.tidy()
    assert {path.name for path in folders.iterdir() if path.is_dir()} == {engine.id, "young"}


async def test_a_sleeping_model_wakes_when_somebody_waits_and_sleeps_again(
    start_controller: Start, database: asyncpg.Pool
) -> None:
    house = await start_controller()
    async with database.acquire() as connection:
        await pools.create(connection, house.card(), size(0, 2, idle_after_s=1))

    async def tell(waiting: int) -> None:
        told = Told(
            model=CHAT,
            running=0,
            waiting_requests=waiting,
            waiting_tokens=10.0 * waiting,
            first_token_ms=0,
            asked_at=datetime.datetime.now(datetime.UTC),
        )
        await pools.tell_load(database, "gateway", [told])

    await asyncio.sleep(1.5)
    assert house.launcher.launches == []
    await tell(7)
    await house.until_engines({("ready", 1): 1})
    assert len(house.launcher.launches) == 1
    await tell(0)
    await house.until_engines({})
    slept, woke = await pools.scalings(database, CHAT, 10)
    assert (woke.before, woke.after, woke.reason) == (0, 1, "waiting for the sleeping model: 7")
    assert (slept.before, slept.after) == (1, 0)
    assert slept.reason.startswith("idle for")


async def test_a_killed_engine_is_replaced(start_controller: Start) -> None:
    house = await start_controller(models=(CHAT,))
    await house.until_engines({("ready", 1): 1})
    os.kill(house.launcher.started[0].pid, signal.SIGKILL)
    await house.until_engines({("starting", 1): 1})
    await house.until_engines({("ready", 1): 1})
    assert len(house.launcher.started) == 2


async def test_a_new_version_is_ready_before_the_old_one_drains(
    start_controller: Start, database: asyncpg.Pool
) -> None:
    house = await start_controller()
    async with database.acquire() as connection:
        await pools.create(connection, house.card(), size(2, 2))
        await house.until_engines({("ready", 1): 2})
        house.launcher.hold.clear()
        await pools.roll(connection, house.card(kv_cache_mib=512), "more cache")
        await house.until_engines({("ready", 1): 2, ("starting", 2): 2})
        house.launcher.hold.set()
        await house.until_engines({("ready", 2): 2})
        assert house.launcher.launches[-1].settings.kv_cache_mib == 512
        await pools.roll_back(connection, CHAT, None)
        await house.until_engines({("ready", 1): 2})


async def test_a_version_that_cannot_be_run_leaves_the_old_one_serving(
    start_controller: Start, database: asyncpg.Pool
) -> None:
    house = await start_controller()
    async with database.acquire() as connection:
        await pools.create(connection, house.card(), size(1, 1))
        await house.until_engines({("ready", 1): 1})
        await pools.roll(connection, house.card(kv_cache_mib=house.launcher.BAD_CACHE_MIB), "")
        found = await house.until_engines({("ready", 1): 1, ("gone", 2): 1})
        assert [one.reason for one in found if one.state == "gone"] == ["this cache is not for us"]
        await asyncio.sleep(1.5)
        assert len(house.launcher.launches) == 2
        await pools.roll_back(connection, CHAT, None)
        await house.until_engines({("ready", 1): 1})


async def test_without_room_for_two_the_new_version_takes_the_place_of_the_old(
    start_controller: Start, database: asyncpg.Pool
) -> None:
    house = await start_controller(cpu_slots=1)
    async with database.acquire() as connection:
        await pools.create(connection, house.card(), size(1, 1))
        await house.until_engines({("ready", 1): 1})
        await pools.roll(connection, house.card(kv_cache_mib=512), "")
        await house.until_engines({("ready", 2): 1})


async def test_an_engine_without_a_place_waits_for_one(
    start_controller: Start, database: asyncpg.Pool, caplog: pytest.LogCaptureFixture
) -> None:
    house = await start_controller(cpu_slots=1)
    async with database.acquire() as connection:
        await pools.create(connection, house.card(), size(1, 1))
        await house.until_engines({("ready", 1): 1})
        await pools.create(connection, house.card(EMBED), size(1, 1))
        await asyncio.sleep(1.5)
        assert await house.engines(EMBED) == []
        assert "all 1 CPU slots are taken" in str([vars(record).get("reason") for record in caplog.records])
        await pools.change(connection, house.card(), msgspec.structs.replace(size(0, 0)))
        await house.until_engines({})
        await house.until_engines({("ready", 1): 1}, EMBED)


async def test_a_second_controller_takes_over_within_seconds(
    start_controller: Start, database: asyncpg.Pool
) -> None:
    first = await start_controller(models=(CHAT,), name="a")
    (before,) = await first.until_engines({("ready", 1): 1})
    second = await start_controller(models=(CHAT,), name="b")
    await asyncio.sleep(1)
    assert second.launcher.launches == []
    first.stop.set()
    await first.task

    async def replaced() -> bool | None:
        found = await second.engines()
        return True if found and found[0].id != before.id and found[0].state == "ready" else None

    await house_until(replaced)


async def house_until(done: Callable[[], Awaitable[bool | None]]) -> None:
    async with asyncio.timeout(30):
        while not await done():  # noqa: ASYNC110 - another process makes it so
            await asyncio.sleep(0.02)
