"""Engines on GPUs sleep instead of being stopped. The engines here are simulated, and so are the GPUs."""

from __future__ import annotations

import asyncio
import datetime
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import asyncpg
import httpx
import pytest

from penstock_engines import machine, pools
from penstock_engines.autoscale import ScaleRules
from penstock_engines.machine import GpuFacts
from penstock_engines.pool_settings import PoolSettings
from penstock_engines.pools import Told
from penstock_engines.simulated.launcher import SimulatedLauncher
from penstock_engines.spec import Device

CHAT = "penstock/demo-chat"
SLEEPY = PoolSettings(scale=ScaleRules(replicas_min=0, replicas_max=1, idle_after_s=1))


@pytest.fixture
async def house(start_controller: Callable[..., Awaitable[Any]], monkeypatch: pytest.MonkeyPatch) -> Any:
    """A controller of a machine with one GPU."""
    monkeypatch.setattr(SimulatedLauncher, "device", Device.CUDA)
    monkeypatch.setattr(machine, "gpus", lambda: [GpuFacts(0, "simulated", 81_920)])
    return await start_controller()


async def tell(database: asyncpg.Pool, waiting: int) -> None:
    """What gateways have to do."""
    told = Told(
        model=CHAT,
        running=0,
        waiting_requests=waiting,
        waiting_tokens=10.0 * waiting,
        first_token_ms=0,
        asked_at=datetime.datetime.now(datetime.UTC),
    )
    await pools.tell_load(database, "gateway", [told])


async def awake(house: Any) -> Any:
    await tell(house.database, 1)
    (engine,) = await house.until_engines({("ready", 1): 1})
    return engine


async def asleep(house: Any) -> Any:
    """Have it woken, and nobody ask for it any more."""
    await awake(house)
    await tell(house.database, 0)
    (engine,) = await house.until_engines({("asleep", 1): 1})
    return engine


async def create(house: Any, settings: PoolSettings = SLEEPY) -> None:
    async with house.database.acquire() as connection:
        await pools.create(connection, house.card(), settings)


def client_of(socket: Path) -> httpx.AsyncClient:
    return httpx.AsyncClient(
        transport=httpx.AsyncHTTPTransport(uds=str(socket)), base_url="http://engine", timeout=30
    )


async def intervals(house: Any, engine_id: str, open_: int) -> list[asyncpg.Record]:
    """The engine's minutes, as soon as so many intervals run."""
    query = "select * from billing.running_interval where subject = $1 order by id"
    async with asyncio.timeout(30):
        while True:
            rows: list[asyncpg.Record] = await house.database.fetch(query, engine_id)
            if sum(row["stopped_at"] is None for row in rows) == open_:
                return rows
            await asyncio.sleep(0.02)


async def test_an_engine_that_nobody_asks_for_sleeps_and_wakes_when_somebody_does(house: Any) -> None:
    await create(house)
    engine = await asleep(house)
    replica = house.fleet.replicas()[engine.id]
    pid = replica.pid
    assert engine.reason == "its weights rest in memory: it wakes when asked for"
    # What does not run costs nothing.
    assert [row["stopped_at"] is None for row in await intervals(house, engine.id, 0)] == [False]
    async with client_of(engine.socket) as client:
        assert (await client.get("/is_sleeping")).json() == {"is_sleeping": True}
        body = {"model": CHAT, "prompt": "a", "max_tokens": 1}
        assert (await client.post("/v1/completions", json=body)).status_code == 503
        again = await awake(house)
        assert (await client.post("/v1/completions", json=body)).status_code == 200
    assert (again.id, replica.pid) == (engine.id, pid)
    assert len(house.launcher.launches) == 1
    assert len(await intervals(house, engine.id, 1)) == 2
    starts = await pools.starts(house.database, CHAT, 10)
    assert len(starts) == 2
    assert starts[0].timings.process_s == 0 < starts[0].timings.answer_s


async def test_one_that_cannot_sleep_is_stopped(house: Any) -> None:
    await create(house)
    engine = await awake(house)
    async with client_of(engine.socket) as client:
        await client.post("/penstock/faults", json={"sleepless": True})
    await tell(house.database, 0)
    await house.until_engines({})
    again = await awake(house)
    assert again.id != engine.id
    assert len(house.launcher.launches) == 2


async def test_one_that_cannot_wake_up_is_started_anew(house: Any) -> None:
    await create(house)
    engine = await asleep(house)
    async with client_of(engine.socket) as client:
        await client.post("/penstock/faults", json={"sleepless": True})
    again = await awake(house)
    assert again.id == engine.id
    assert house.fleet.replicas()[engine.id].restarts == 1
    assert len(house.launcher.launches) == 2


async def test_the_place_of_one_that_sleeps_is_free_for_others(house: Any) -> None:
    await create(house)
    engine = await asleep(house)
    (keeper,) = house.fleet.of(CHAT)
    assert keeper.id == engine.id
    assert not keeper.in_place
    await awake(house)
    assert keeper.in_place


@pytest.mark.parametrize("how", ["rolled", "removed", "told not to sleep", "off"])
async def test_one_that_sleeps_and_is_of_no_use_any_more_is_stopped(house: Any, how: str) -> None:
    await create(house)
    await asleep(house)
    async with house.database.acquire() as connection:
        if how == "rolled":
            await pools.roll(connection, house.card(kv_cache_mib=512), "")
        elif how == "removed":
            await pools.remove(connection, CHAT)
        elif how == "off":
            await pools.change(connection, house.card(), PoolSettings(scale=ScaleRules(replicas_max=0)))
        else:
            await pools.change(connection, house.card(), PoolSettings(scale=SLEEPY.scale, sleep=False))
    await house.until_engines({})


async def test_a_pool_that_is_told_not_to_sleep_stops_its_engines(house: Any) -> None:
    await create(house, PoolSettings(scale=SLEEPY.scale, sleep=False))
    await awake(house)
    assert not house.launcher.launches[0].sleeps
    await tell(house.database, 0)
    await house.until_engines({})
