"""Gateways are killed, drained and stopped under load (rows 1, 2, 3, 38 of the fault matrix)."""

from __future__ import annotations

import asyncio
import signal

import pytest
from rig.check import outcomes, settled
from rig.client import End
from rig.room import Room
from rig.server import until
from rig.shim import At

from penstock_billing import progress
from penstock_billing.record import UsageRecord

STOPPED = {0, -signal.SIGTERM}
"""uvicorn ends its process by the signal that it was told to stop with."""
STREAM = {"stream": True, "stream_options": {"include_usage": True}}


async def test_a_gateway_killed_under_load_loses_nothing_it_acknowledged(room: Room) -> None:
    """Row 1: SIGKILL, three times, beside a gateway that lives on and ships what the dead left."""
    await room.start_engine()
    await asyncio.gather(room.start_gateway(), room.start_gateway())
    async with room.load() as load:
        for _ in range(3):
            await load.more(25)
            await room.gateways[0].kill()
            await room.gateways[0].start()
        await load.more(25)
    assert outcomes(await room.check())["done"] > 50


@pytest.mark.parametrize("token", [0, 7, 40])
async def test_a_stream_cut_by_its_gateways_death_costs_what_was_noted_or_what_was_made_since(
    room: Room, token: int
) -> None:
    """Row 1: SIGKILL when so many tokens are made and there is a note of the stream."""
    engine = await room.start_engine()
    gateway = await room.start_gateway()
    asking = asyncio.create_task(room.ask(max_tokens=400, **STREAM))

    async def has_come_so_far() -> bool:
        return any(made["completion_tokens"] > token for made in (await engine.made()).values())

    async def noted() -> UsageRecord | None:
        return next((note for path in room.journal.glob("*.progress") for note in progress.read(path)), None)

    await until(has_come_so_far, f"token {token} is made")
    note: UsageRecord = await until(noted, "there is a note of the stream")
    await gateway.kill()
    seen = await asking
    assert seen.end is End.BROKEN
    await gateway.start()
    await room.ask()
    event = await room.event(seen)
    assert event["outcome"] == "recovered"
    assert event["request_id"] == note.request_id
    assert note.output_tokens <= event["output_tokens"]
    assert 0 < note.cost_nano_usd <= event["cost_nano_usd"]
    await room.check()


@pytest.mark.parametrize(
    ("death", "recorded"), [(At.DIE_BEFORE, False), (At.DIE_TORN, False), (At.DIE_AFTER, True)]
)
async def test_a_death_at_the_append_leaves_the_record_whole_or_not_at_all(
    room: Room, death: At, recorded: bool
) -> None:
    """Row 2: SIGKILL just before, amid, and just after the write that comes before the last byte."""
    await room.start_engine()
    gateway = await room.start_gateway(shimmed=True)
    for _ in range(3):
        assert (await room.ask(**STREAM)).end is End.FINISHED
    assert gateway.control is not None
    gateway.control.at_append(1, death)
    gateway.harmed = True
    killed = await room.ask(max_tokens=2, **STREAM)
    assert await gateway.ended() == -signal.SIGKILL
    assert killed.end is End.BROKEN
    gateway.control.at_append(0, At.NOTHING)
    await gateway.start()
    assert (await room.ask(**STREAM)).end is End.FINISHED
    events = {event["client_request_id"]: event for event in await room.check()}
    assert len(events) == 4 + recorded
    assert (killed.name in events) is recorded


async def test_deaths_at_appends_under_load_keep_what_was_acknowledged(room: Room) -> None:
    """Row 2: the same, again and again, with clients at work."""
    await room.start_engine()
    gateway = await room.start_gateway(shimmed=True)
    assert gateway.control is not None
    async with room.load() as load:
        for death in (At.DIE_AFTER, At.DIE_TORN, At.DIE_BEFORE):
            await load.more(5)
            gateway.harmed = True
            gateway.control.at_append(7, death)
            assert await gateway.ended() == -signal.SIGKILL
            gateway.control.at_append(0, At.NOTHING)
            await gateway.start()
        await load.more(10)
    assert len(await room.check()) >= 20


async def test_a_gateway_told_to_stop_finishes_what_it_has_and_leaves_nothing_unshipped(room: Room) -> None:
    """Row 3: SIGTERM under load; what it had begun it finishes, and the journal is empty when it is gone."""
    await room.start_engine()
    gateway = await room.start_gateway(drain_s=20)
    async with room.load() as load:
        await load.more(25)
        gateway.send(signal.SIGTERM)
        assert await gateway.ended() in STOPPED
        assert await room.behind() == {}
        await gateway.start()
        await load.more(10)
    # A connection that was just accepted may be closed before its request is read; nothing that was begun is.
    assert [seen for seen in load.seen if seen.end in {End.BROKEN, End.FAILED} and seen.status] == []
    assert outcomes(await room.check())["shutdown"] == 0


async def test_streams_longer_than_the_drain_are_cut_for_free(room: Room) -> None:
    """Row 3: when the deadline comes, the rest is our failure."""
    await room.start_engine()
    gateway = await room.start_gateway(drain_s=1)
    asking = [asyncio.create_task(room.ask(max_tokens=900, **STREAM)) for _ in range(4)]

    async def all_run() -> bool:
        return len(await room.engines[0].made()) == 4

    await until(all_run, "all streams run")
    gateway.send(signal.SIGTERM)
    assert await gateway.ended() in STOPPED
    assert {seen.end for seen in await asyncio.gather(*asking)} <= {End.BROKEN, End.FAILED}
    await gateway.start()
    events = await room.check()
    assert outcomes(events) == {"shutdown": 4}


@pytest.mark.parametrize("in_append", [False, True])
async def test_a_stopped_gateway_goes_on_as_if_nothing_had_been(room: Room, in_append: bool) -> None:
    """Row 38: SIGSTOP until others have looked for dead files, once inside an append; then SIGCONT."""
    await room.start_engine()
    stopped, other = await asyncio.gather(room.start_gateway(shimmed=True), room.start_gateway())
    async with room.load(clients=8) as load:
        await load.more(20)
        if in_append:
            assert stopped.control is not None
            stopped.control.at_append(1, At.STOP_AFTER)

            async def is_stopped() -> bool:
                return stopped.status() == "stopped"

            await until(is_stopped, "the gateway stopped in its append")
            stopped.control.at_append(0, At.NOTHING)
        else:
            stopped.send(signal.SIGSTOP)
        await room.ask(other)
        await settled(7)  # others look for dead processes' files every 5 s
        stopped.send(signal.SIGCONT)
        await load.more(20)
    assert other.running
    assert stopped.running
    events = await room.check()
    assert outcomes(events)["done"] > 20
