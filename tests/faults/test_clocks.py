"""The wall clock of a gateway's machine jumps (row 14)."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta

from rig.client import End
from rig.room import Room

from penstock_billing.testing import in_the_past

HOUR = timedelta(hours=1)


async def test_a_clock_that_jumps_bends_times_and_no_money(room: Room) -> None:
    """Row 14: an hour ahead, an hour back and right again, under load, beside one whose clock is right."""
    # Priced long ago, as it is in life: with a clock that lags there is a price too.
    async with room.connect() as connection, in_the_past(connection):
        await connection.execute(
            "update billing.price_version set valid_from = valid_from - interval '2 days'"
        )
    started = datetime.now(UTC)
    await room.start_engine()
    bent, right = await asyncio.gather(room.start_gateway(shimmed=True), room.start_gateway())
    assert bent.control is not None
    async with room.load(clients=8) as load:
        for hours in (0, 1, -1, 0, 1, 0):
            bent.control.fields.clock_offset_s = hours * 3600
            await load.more(15)
        assert (await room.ask(bent)).end is End.FINISHED
        assert (await room.ask(right)).end is End.FINISHED
    assert {seen.end for seen in load.seen} <= {End.FINISHED, End.LEFT}
    events = await room.check()
    ended = [event["ended_at"] for event in events]
    slack = timedelta(minutes=5)
    assert started - HOUR - slack < min(ended) < started - HOUR + slack
    assert started + HOUR - slack < max(ended) < started + HOUR + slack
    # Durations come from a clock that does not jump.
    assert all(0 <= event["duration_us"] < 120e6 for event in events)


async def test_a_gateway_that_starts_with_a_wrong_clock_bills_each_request_once(room: Room) -> None:
    """Row 14: three hours ahead at its start, then killed, and adopted by a process whose clock is right."""
    await room.start_engine()
    gateway = await room.start_gateway(shimmed=True)
    assert gateway.control is not None
    await gateway.kill()
    gateway.control.fields.clock_offset_s = 3 * 3600
    await gateway.start()
    async with room.load() as load:
        await load.more(20)
        await gateway.kill()
        gateway.control.fields.clock_offset_s = 0
        await gateway.start()
        await load.more(20)
    await room.check()
