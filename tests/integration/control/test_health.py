"""An engine that says it is well and makes no tokens is taken off the list, and another takes its place."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import asyncpg
import httpx
import pytest

from penstock_engines import pools
from penstock_engines.autoscale import ScaleRules
from penstock_engines.pool_settings import PoolSettings

CHAT = "penstock/demo-chat"
Start = Callable[..., Awaitable[Any]]


def client_of(socket: Path) -> httpx.AsyncClient:
    transport = httpx.AsyncHTTPTransport(uds=str(socket))
    return httpx.AsyncClient(transport=transport, base_url="http://engine", timeout=60)


async def ask(client: httpx.AsyncClient) -> None:
    body = {"model": CHAT, "prompt": "a", "max_tokens": 50}
    with pytest.raises(httpx.RemoteProtocolError):
        await client.post("/v1/completions", json=body)


@pytest.mark.parametrize("busy", [True, False], ids=["with requests in hand", "with nothing to do"])
async def test_an_engine_that_hangs_is_off_the_list_with_a_reason_and_replaced(
    start_controller: Start, database: asyncpg.Pool, busy: bool
) -> None:
    house = await start_controller(stall_timeout_s=2)
    async with database.acquire() as connection:
        settings = PoolSettings(scale=ScaleRules(replicas_min=2, replicas_max=2))
        await pools.create(connection, house.card(), settings)
    hanging, well = await house.until_engines({("ready", 1): 2})
    first = house.fleet.replicas()[hanging.id].pid
    async with client_of(hanging.socket) as client:
        await client.post("/penstock/faults", json={"hang_at_token": 1})
        asked = asyncio.create_task(ask(client)) if busy else None
        found = await house.until_engines({("ready", 1): 1, ("starting", 1): 1})
        # It says that it is well until it is killed.
        (told,) = [one for one in found if one.state == "starting"]
        assert told.id == hanging.id
        assert ("no progress for 2 s" if busy else "no answer to a one-token request within 2 s") in str(
            told.reason
        )
        if asked is not None:
            await asked
    again = await house.until_engines({("ready", 1): 2})
    assert {one.id for one in again} == {hanging.id, well.id}
    assert house.fleet.replicas()[hanging.id].pid not in {first, None}
    assert house.fleet.replicas()[well.id].restarts == 0
