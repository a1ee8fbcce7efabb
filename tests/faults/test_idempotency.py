"""Requests are sent again while everything breaks: one execution and one charge for each key (row 23)."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

import asyncpg
import pytest
from rig.client import End, Seen
from rig.proxy import Cut
from rig.room import Room
from rig.server import until

STREAM: dict[str, Any] = {"stream": True, "stream_options": {"include_usage": True}}
PENDING = {"idempotency_in_progress", "idempotency_unavailable"}
"""Refusals after which the same request may be sent again."""


def code(seen: Seen) -> str:
    """The error a client was given, if it was."""
    return str((seen.error or {}).get("code", ""))


def charged(events: Sequence[asyncpg.Record], attempts: Sequence[Seen]) -> list[asyncpg.Record]:
    """The executions among a key's attempts that cost something."""
    names = {seen.name for seen in attempts}
    return [one for one in events if one["client_request_id"] in names and one["cost_nano_usd"]]


@pytest.mark.parametrize("options", [STREAM, {}], ids=["streamed", "whole"])
async def test_fifty_requests_with_one_key_are_executed_once(room: Room, options: dict[str, Any]) -> None:
    """Row 23: at two gateways, under load: one executes, the others are told so or get its answer."""
    await room.start_engine()
    await asyncio.gather(room.start_gateway(), room.start_gateway())
    same = {"headers": {"idempotency-key": "one-of-fifty"}, "max_tokens": 60} | options
    async with room.load(clients=3) as load:
        await load.more(5)
        seen = await asyncio.gather(*(room.ask(room.gateways[each % 2], **same) for each in range(50)))
        await load.more(5)
        late = await room.ask(**same)
    executed = [one for one in seen if one.end is End.FINISHED and not one.replayed]
    assert len(executed) == 1
    assert {code(one) for one in seen if one.end is not End.FINISHED} <= {"idempotency_in_progress"}
    assert late.replayed
    assert late.usage == executed[0].usage
    assert late.tokens == executed[0].tokens
    assert len(charged(await room.check(), [*seen, late])) == 1


Trouble = Callable[[Room], AbstractAsyncContextManager[None]]


@asynccontextmanager
async def postgres_stopped(room: Room) -> AsyncIterator[None]:
    """`pg_ctl stop -m immediate`, and a start."""
    await room.server.stop_immediately()
    await asyncio.sleep(1)
    await room.server.start()
    yield


@asynccontextmanager
async def answers_cut(room: Room) -> AsyncIterator[None]:
    """Claims and their ends that are sent and never answered: some take effect, some do not."""
    # What only the parameters of taking a claim have in them, and only those of ending one.
    taking, ending = socket.gethostname().encode(), b"answered"
    cuts = [(taking, Cut.AFTER), (ending, Cut.AFTER), (taking, Cut.BEFORE), (ending, Cut.BEFORE)]
    for pattern, cut in cuts:
        room.to_postgres.cut_at(pattern, cut)

    async def all_tripped() -> bool:
        return room.to_postgres.tripped == len(cuts)

    await until(all_tripped, "all were cut off")
    yield


@asynccontextmanager
async def gateways_killed(room: Room) -> AsyncIterator[None]:
    """SIGKILL of one, then of the other; each starts again."""
    for gateway in room.gateways:
        await gateway.kill()
        await gateway.start()
        await asyncio.sleep(0.5)
    yield


@pytest.mark.parametrize("trouble", [postgres_stopped, answers_cut, gateways_killed])
async def test_clients_that_try_again_until_they_have_an_answer_pay_once(
    room: Room, trouble: Trouble
) -> None:
    """Row 23: each key's request is sent by two clients, again and again, while things break."""
    await room.start_engine()
    await asyncio.gather(room.start_gateway(), room.start_gateway())
    attempts: dict[str, list[Seen]] = {f"key-{number}": [] for number in range(12)}
    over = asyncio.Event()

    async def insist(key: str, number: int) -> Seen:
        """Send it until it is answered, or refused for good; then the answer may be had again at any time."""
        options: dict[str, Any] = STREAM if key[-1] in "02468" else {}
        while True:
            gateway = room.gateways[(number + len(attempts[key])) % 2]
            headers = {"idempotency-key": key}
            seen = await room.ask(gateway, headers=headers, max_tokens=100, **options)
            attempts[key].append(seen)
            final = seen.end is End.FINISHED or code(seen).startswith("idempotency_")
            if final and code(seen) not in PENDING and over.is_set():
                return seen
            await asyncio.sleep(0.2)

    async with room.load(clients=2) as load:
        await load.more(5)
        asking = [asyncio.create_task(insist(key, number)) for key in attempts for number in range(2)]
        try:
            async with trouble(room):
                await asyncio.sleep(0.5)
            over.set()
            async with asyncio.timeout(90):
                answers = await asyncio.gather(*asking)
        finally:
            for task in asking:
                task.cancel()
        await load.more(5)
    events = await room.check()
    for key, tried in attempts.items():
        paid = charged(events, tried)
        assert len(paid) <= 1, f"{key} was charged {len(paid)} times"
        whole = {json.dumps(one.usage) for one in tried if one.end is End.FINISHED}
        assert len(whole) <= 1, f"{key} got several answers"
        assert len(paid) == 1 or not whole, f"{key} was answered for nothing"
    assert {code(one) for one in answers if one.end is not End.FINISHED} <= {"idempotency_answer_lost"}
