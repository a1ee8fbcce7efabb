"""More is asked for than engines can give, and from one tenant above all (rows 33, 34)."""

from __future__ import annotations

import asyncio
import random
from typing import Any

import pytest
from rig.check import outcomes
from rig.client import End, Seen
from rig.room import Room
from rig.server import until

TOKENS = 10
PER_SECOND = 50


def chat(_: random.Random) -> dict[str, Any]:
    """A request like all others, so that counting them compares what tenants got."""
    return {
        "messages": [{"role": "user", "content": "word"}],
        "max_tokens": TOKENS,
        "stream": True,
        "stream_options": {"include_usage": True},
    }


async def test_ten_times_what_engines_can_do_is_refused_early_and_harms_nothing(room: Room) -> None:
    """Row 33: a client that is refused asks again at once; who is let in is answered, and memory stays."""
    await room.set_pool(waiting_max=20)
    await room.start_engine(batch_max=2, tokens_per_second=PER_SECOND)
    gateway = await room.start_gateway()
    await room.ask()
    before = gateway.memory_bytes()
    async with room.load(clients=60, make=chat) as load:
        await load.more(600, within_s=300)
        while sum(seen.status == 200 for seen in load.seen) * 10 > len(load.seen):
            await load.more(50)
        assert gateway.memory_bytes() - before < 64 * 1024 * 1024
    refused = [seen for seen in load.seen if seen.end is End.REFUSED]
    assert {seen.end for seen in load.seen} <= {End.FINISHED, End.LEFT, End.REFUSED}
    assert {seen.status for seen in refused} == {429}
    for seen in refused:
        assert seen.error is not None
        assert seen.error["code"] == "queue_full"
        assert "wait already" in seen.error["message"]
        assert int(seen.headers["retry-after"]) >= 1
    after = await room.ask()
    assert after.end is End.FINISHED
    events = await room.check()
    assert outcomes(events).keys() <= {"done", "client_gone"}
    assert await room.waiting() == 0


@pytest.mark.parametrize("redis_is", ["there", "away"])
async def test_a_flood_of_one_tenant_takes_no_more_than_its_share(room: Room, redis_is: str) -> None:
    """Row 34: two tenants that always wait get as much as each other, whoever sends more; a third one, who
    asks now and then, is answered before those who wait."""
    await room.set_pool(waiting_max=400)
    await room.start_engine(batch_max=2, tokens_per_second=PER_SECOND)
    await asyncio.gather(room.start_gateway(), room.start_gateway())
    if redis_is == "away":
        room.to_redis.refusing = True
        room.to_redis.reset()
    steady_key, chat_key = await room.new_key("steady"), await room.new_key("chatting")
    async with (
        room.load(clients=100, make=chat) as flood,
        room.load(clients=16, make=chat, key=steady_key) as steady,
    ):

        async def in_line() -> bool:
            return await room.waiting() > 80

        await until(in_line, "most of the flood waits")
        flood_before, steady_before = len(flood.seen), len(steady.seen)
        overtaken = [await behind(room, flood.seen, chat_key) for _ in range(5)]
        await steady.more(40, within_s=120)
        served = (len(flood.seen) - flood_before, len(steady.seen) - steady_before)
        # More than half of the flood waits all the time; first come, first served would be this many.
        assert max(overtaken) < 40
        assert served[0] <= 2 * served[1] + 10, "the flood got more than its share"
    assert {seen.end for load in (flood, steady) for seen in load.seen} <= {End.FINISHED, End.LEFT}
    await room.check()


async def behind(room: Room, flood: list[Seen], key: str) -> int:
    """Ask once; how many of the flood's requests ended before the answer came."""
    ended = len(flood)
    seen = await room.ask(room.gateways[0], key=key, **chat(random.Random(0)))
    assert seen.end is End.FINISHED
    return len(flood) - ended


async def test_a_tenant_fills_half_of_the_queue_and_others_still_find_room(room: Room) -> None:
    """Row 34: the flood is refused, not who comes after it."""
    await room.set_pool(waiting_max=40)
    await room.start_engine(batch_max=1, tokens_per_second=PER_SECOND)
    await room.start_gateway()
    other_key = await room.new_key("other")
    async with room.load(clients=60, make=chat) as flood:

        async def refused() -> bool:
            return any(seen.status == 429 for seen in flood.seen)

        await until(refused, "the flood is refused")
        for _ in range(3):
            assert (await room.ask(key=other_key, **chat(random.Random(0)))).end is End.FINISHED
    assert {seen.status for seen in flood.seen} == {200, 429}
    await room.check()
