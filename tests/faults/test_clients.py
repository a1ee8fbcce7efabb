"""Clients leave at every token, read slowly, and are asked another price midway (rows 21, 22, 29)."""

from __future__ import annotations

import asyncio
import socket
from typing import Any

import pytest
from rig.check import outcomes
from rig.client import End, request
from rig.room import OFFER, Room
from rig.server import until

from penstock_billing import prices

STREAM: dict[str, Any] = {"stream": True, "stream_options": {"include_usage": True}}
TOKENS_PER_SECOND = 50


@pytest.mark.parametrize("politely", [False, True], ids=["RST", "FIN"])
async def test_a_client_gone_at_any_token_pays_what_was_made_until_the_abort(
    room: Room, politely: bool
) -> None:
    """Row 21: one stream for each token k; the engine is stopped soon after k, and its count is the bill."""
    engine = await room.start_engine(tokens_per_second=TOKENS_PER_SECOND)
    await room.start_gateway()
    leaving = range(25)
    seen = await asyncio.gather(
        *(room.ask(max_tokens=900, leave_at=k, politely=politely, n=1 + k % 3, **STREAM) for k in leaving)
    )
    assert {one.end for one in seen} == {End.LEFT}
    events = {event["request_id"]: event for event in await room.check()}
    made = await engine.made()
    for one in seen:
        assert events[one.request_id]["outcome"] == "client_gone"
        assert made[one.request_id]["outcome"] == "aborted"
        # In tokens of its three choices. A second is enough where nothing else runs; this is ten.
        late = made[one.request_id]["completion_tokens"] - one.tokens
        assert 0 <= late <= 10 * TOKENS_PER_SECOND * 3, f"stopped {late} tokens after its client left"


async def test_clients_gone_before_a_whole_answer_pay_what_was_made(room: Room) -> None:
    """Row 21: nothing was sent yet, so only the engine can say what it made."""
    engine = await room.start_engine(tokens_per_second=TOKENS_PER_SECOND)
    await room.start_gateway()
    names = [f"whole-{number}" for number in range(8)]
    body = {"model": "penstock/demo-chat", "messages": [{"role": "user", "content": "a"}], "max_tokens": 800}
    writers = []
    for name in names:
        _, writer = await asyncio.open_connection("127.0.0.1", room.gateways[0].port)
        writer.write(request("/v1/chat/completions", room.key, body, name, {}))
        writers.append(writer)

    async def all_run() -> bool:
        made = await engine.made()
        return len(made) == len(names) and all(one["completion_tokens"] > 0 for one in made.values())

    await until(all_run, "the engine works on all of them")
    for writer in writers:
        writer.transport.abort()
    events = await room.check()
    assert sorted(event["client_request_id"] for event in events) == names
    assert outcomes(events) == {"client_gone": len(names)}
    assert all(0 < event["output_tokens"] < 800 for event in events)


async def test_slow_readers_hold_their_engine_back_and_are_let_go(room: Room) -> None:
    """Row 22: clients that read a byte a second of endless answers cost no memory, and pay what was made."""
    tokens = 200_000
    engine = await room.start_engine(tokens_per_second=0, answer_tokens=tokens)
    # Both clocks run out at once: that the engine is silent then is its client's doing, not its own.
    gateway = await room.start_gateway(stall_timeout_s=5, first_byte_timeout_s=5)
    await room.ask()
    before = gateway.memory_bytes()
    body = {"model": "penstock/demo-chat", "messages": [{"role": "user", "content": "a"}], "stream": True}
    names = [f"slow-{number}" for number in range(10)]
    readers = [
        asyncio.create_task(
            read_slowly(gateway.port, request("/v1/chat/completions", room.key, body, name, {}))
        )
        for name in names
    ]

    async def all_gone() -> bool:
        made = [one for one in (await engine.made()).values() if one["completion_tokens"] > 100]
        return len(made) == len(readers) and all(one["outcome"] == "aborted" for one in made)

    async def all_closed() -> bool:
        return gateway.connections() == 0

    await until(all_gone, "the engine was told to stop")
    assert gateway.memory_bytes() - before < 64 * 1024 * 1024
    await until(all_closed, "the gateway holds no connection of theirs any more")
    for reader in readers:
        reader.cancel()
    await asyncio.gather(*readers, return_exceptions=True)
    events = [event for event in await room.check() if event["client_request_id"] in names]
    assert outcomes(events) == {"client_gone": len(readers)}
    assert all(event["output_tokens"] < tokens for event in events)


async def read_slowly(port: int, question: bytes) -> None:
    """Ask, and read a byte a second until there is no more, or for ever."""
    loop = asyncio.get_running_loop()
    with socket.socket() as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.setblocking(False)
        await loop.sock_connect(client, ("127.0.0.1", port))
        await loop.sock_sendall(client, question)
        while True:
            if not await loop.sock_recv(client, 1):
                return
            await asyncio.sleep(1)


async def test_the_price_of_a_request_is_that_of_its_admission(room: Room) -> None:
    """Row 29: prices rise while streams run; what had begun pays the old one, what comes then the new one."""
    engine = await room.start_engine(tokens_per_second=20)
    await room.start_gateway()
    begun = [asyncio.create_task(room.ask(max_tokens=100, **STREAM)) for _ in range(6)]

    async def all_run() -> bool:
        return len(await engine.made()) == len(begun)

    await until(all_run, "all streams run")
    async with room.connect() as connection:
        dearer = prices.Offer(OFFER.model, OFFER.input_pico_usd * 2, OFFER.cached_input_pico_usd, 7_000_000)
        [new] = await prices.sync_list(connection, [dearer])

    async def followed() -> bool:
        seen = await room.ask(max_tokens=1)
        return bool((await room.event(seen))["price_version"] == new.id)

    await until(followed, "the gateway knows the new price")
    await asyncio.gather(*begun)
    old = {event["price_version"] for event in await room.check() if event["output_tokens"] == 100}
    assert len(old) == 1
    assert new.id not in old
