"""Gateways are killed, drained and stopped under load (rows 1, 2, 3, 38)."""

from __future__ import annotations

import asyncio

from rig.check import outcomes
from rig.room import Room


async def test_a_gateway_killed_under_load_loses_nothing_it_acknowledged(room: Room) -> None:
    """Row 1: SIGKILL mid-stream, three times, beside a gateway that lives on."""
    await room.start_engine()
    await asyncio.gather(room.start_gateway(), room.start_gateway())
    async with room.load() as load:
        for _ in range(3):
            await load.more(25)
            await room.gateways[0].kill()
            await room.gateways[0].start()
        await load.more(25)
    events = await room.check()
    assert outcomes(events)["done"] > 50
