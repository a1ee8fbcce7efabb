"""Redis is emptied, slow, silent and away (rows 15, 16): only speed may hang on it."""

from __future__ import annotations

import asyncio
import statistics

import pytest
import redis.asyncio
from rig.client import End
from rig.proxy import Proxy
from rig.room import Room
from rig.server import until


async def test_a_redis_that_forgets_everything_changes_nothing(room: Room) -> None:
    """Row 15: FLUSHALL again and again under load, and with it whatever the gateways keep there."""
    await room.start_engine()
    await asyncio.gather(room.start_gateway(), room.start_gateway())
    client = redis.asyncio.Redis.from_url(room.environment["PENSTOCK_REDIS_URL"])
    async with room.load() as load:
        for _ in range(5):
            await load.more(8)
            await client.flushall()
            await client.execute_command("CLIENT", "KILL", "TYPE", "pubsub")
    await client.aclose()
    assert {seen.end for seen in load.seen} <= {End.FINISHED, End.LEFT}
    await room.check()


def away(way: Proxy) -> None:
    way.refusing = True
    way.reset()


def slow(way: Proxy) -> None:
    way.delay_s = 5.0


def silent(way: Proxy) -> None:
    way.freeze()


@pytest.mark.parametrize("trouble", [away, slow, silent])
async def test_no_answer_waits_for_redis(room: Room, trouble: object) -> None:
    """Row 16: down, 5 s late, and swallowing everything, from the first request on and later."""
    await room.start_engine()
    gateway = await room.start_gateway()
    async with room.load(clients=4) as load:
        await load.more(10)
        trouble(room.to_redis)  # type: ignore[operator]
        late = len(load.seen) + 4
        await load.more(40)
        # What changes is still noticed, though not at once; and a gateway starts without Redis too.
        room.key = await room.new_key("late")
        assert (await room.ask(gateway)).end is End.FINISHED
        other = await room.start_gateway()
        assert (await room.ask(other)).end is End.FINISHED
        room.to_redis.refusing, room.to_redis.delay_s = False, 0.0
        room.to_redis.thaw()

        async def connected() -> bool:
            return (await gateway.state()).get("redis") == "ok"

        await until(connected, "the gateway is connected to Redis again")
        await load.more(10)
    assert {seen.end for seen in load.seen} <= {End.FINISHED, End.LEFT}
    streams = [seen.first_byte_s for seen in load.seen[late:] if seen.choices]
    assert statistics.median(streams) < 1.0
    await room.check()
