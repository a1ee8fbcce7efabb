"""The leading controller dies or hangs, or Postgres under it (row 42)."""

from __future__ import annotations

import asyncio
import signal

import pytest
from rig.client import End
from rig.room import Room
from rig.server import until

LEADER = "select count(*) from pg_stat_activity where application_name = 'penstock leader'"
LEADING_S = 30.0
"""Under 5 s on a machine that is not busy with tests: see penstock.control.leadership."""


async def pair(room: Room) -> str:
    """Two controllers, of which the first leads, and two gateways; gives the name of the engine."""
    await room.set_pool(scale={"replicas_min": 1, "replicas_max": 1})
    await room.start_controller()
    (engine,) = await room.until_ready(1)
    await room.start_controller()

    async def both() -> bool:
        return bool(await room.fetchval(LEADER + " and datname = current_database()") == 2)

    await until(both, "the second controller stands by")
    await asyncio.gather(room.start_gateway(), room.start_gateway())
    return engine.id


async def followed(room: Room, engine: str) -> bool:
    """Whether an engine of another controller is ready."""
    return any(one.id != engine for one in await room.registered(state="ready"))


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP], ids=["killed", "stopped"])
async def test_another_controller_leads_soon_and_requests_go_on(room: Room, number: signal.Signals) -> None:
    """Row 42: a killed leader's engines end with it, a stopped one's go on; what waits is answered."""
    engine = await pair(room)
    first, second = room.controllers
    async with room.load(clients=6) as load:
        await load.more(10)
        first.send(number)
        await until(lambda: followed(room, engine), "the other controller leads", within_s=LEADING_S)
        await load.more(10)
        if number is signal.SIGSTOP:
            first.send(signal.SIGCONT)
            assert await first.ended() == 1, "it leads no more, and says so"
        await room.until_ready(1)
        await load.more(10)
    failed = [seen for seen in load.seen if seen.end not in {End.FINISHED, End.LEFT}]
    # Streams of engines that were killed with their controller; nothing else fails.
    assert all(seen.status == 200 for seen in failed)
    assert number is signal.SIGKILL or failed == []
    assert second.running
    await room.check()


async def test_with_postgres_gone_for_a_while_the_same_controller_leads_on(room: Room) -> None:
    """Row 42: nobody leads, engines answer, and the one that led is the first to come back."""
    engine = await pair(room)
    async with room.load(clients=4) as load:
        await load.more(10)
        await room.server.stop_immediately()
        await load.more(20)
        await room.server.start()
        await load.more(20)

    async def led() -> bool:
        return "leads on" in room.controllers[0].last_words()

    await until(led, "the first controller leads on")
    (still,) = await room.until_ready(1)
    assert still.id == engine
    assert all(controller.running for controller in room.controllers)
    assert {seen.end for seen in load.seen} <= {End.FINISHED, End.LEFT}
    await room.check()
