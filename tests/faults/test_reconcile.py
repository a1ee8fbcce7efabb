"""Reconciling after faults: what engines worked on and what is charged have no difference."""

from __future__ import annotations

import asyncio

from rig.books import reconcile
from rig.client import MODEL, request
from rig.room import Room
from rig.server import until

from penstock_billing.reconcile.report import Compared

STREAM = {"stream": True, "stream_options": {"include_usage": True}}


async def test_killed_gateways_and_engines_and_clients_that_leave_make_no_difference(room: Room) -> None:
    await room.start_engine()
    second = await room.start_engine()
    await room.start_gateway()
    await room.start_gateway()
    async with room.load() as load:
        for _ in range(2):
            await load.more(25)
            await room.gateways[0].kill()
            await room.gateways[0].start()
            await load.more(25)
            await second.kill()
            await second.start(MODEL, tokens_per_second=100, answer_tokens=1000)
        await load.more(25)
    report = await reconcile(room)
    assert report.differences == []
    assert report.examined.events > 100
    assert report.examined.engine_boots == 4
    assert report.in_flight.journal_records == 0


async def test_an_engine_killed_before_it_confirms_an_abort_makes_no_difference(room: Room) -> None:
    engine = await room.start_engine()
    await room.start_gateway()
    await engine.breaks(die_at_receipt=True)
    left = await room.ask(leave_at=3, max_tokens=900, **STREAM)
    await engine.process.wait()
    event = await room.event(left)
    report = await reconcile(room)
    assert report.differences == []
    assert event["outcome"] == "client_gone"
    assert event["output_tokens"] >= 3
    assert {one.request_id for one in report.unbilled} <= {left.request_id}


async def test_what_an_engine_made_and_was_killed_before_telling_is_named_as_unbilled(room: Room) -> None:
    """A whole answer: its gateway knows of no token yet when the client leaves, only the engine does."""
    engine = await room.start_engine()
    gateway = await room.start_gateway()
    await engine.breaks(die_at_receipt=True)
    body = {"model": MODEL, "messages": [{"role": "user", "content": "a"}], "max_tokens": 900}
    _, writer = await asyncio.open_connection("127.0.0.1", gateway.port)
    writer.write(request("/v1/chat/completions", room.key, body, "whole", {}))

    async def works() -> bool:
        return any(one["completion_tokens"] for one in (await engine.made()).values())

    await until(works, "the engine works on it")
    writer.transport.abort()
    await engine.process.wait()
    report = await reconcile(room)
    assert report.differences == []
    (rest,) = report.unbilled
    assert "its engine was killed before it confirmed the abort" in rest.reason
    assert rest.output_tokens > 0


async def test_work_that_nobody_recorded_is_named(room: Room) -> None:
    engine = await room.start_engine()
    await room.start_gateway()
    await room.ask(**STREAM)
    async with engine._client() as client:
        body = {"model": MODEL, "prompt": "a b c", "max_tokens": 5}
        await client.post("/v1/completions", json=body, headers={"x-request-id": "past-the-gateway"})
    report = await reconcile(room)
    (one,) = report.differences
    assert (one.check, one.requests) == (Compared.WORK_IS_RECORDED, ["past-the-gateway"])
    assert one.expected == "3 input (0 cached), 5 output counted"
