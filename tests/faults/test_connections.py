"""Thousands of connections that ask for nothing, and readers that hardly read (row 43)."""

from __future__ import annotations

import asyncio
import contextlib
import resource
import socket
from collections.abc import Iterator

import pytest
from rig.client import End, request
from rig.room import Room
from rig.server import until

IDLE = 5_000
SPARE = 512
"""Files that the test itself and a gateway need besides."""


@pytest.fixture(autouse=True)
def many_files() -> Iterator[int]:
    """How many connections this machine lets us have, at most IDLE."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = IDLE + SPARE if hard == resource.RLIM_INFINITY else min(IDLE + SPARE, hard)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, most), hard))
    yield most - SPARE
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@contextlib.contextmanager
def idle(port: int, count: int) -> Iterator[list[socket.socket]]:
    """Connections that are open and say nothing; every other one asks for a health check first."""
    with contextlib.ExitStack() as stack:
        opened = []
        for number in range(count):
            one = stack.enter_context(socket.create_connection(("127.0.0.1", port), timeout=60))
            if number % 2:
                one.sendall(b"GET /healthz HTTP/1.1\r\nhost: gateway\r\n\r\n")
            opened.append(one)
        yield opened


async def test_idle_connections_and_slow_readers_hold_up_nobody(room: Room, many_files: int) -> None:
    """Row 43: 5,000 of them (or what the machine allows) cost little memory, and others are answered."""
    engine = await room.start_engine(tokens_per_second=0, answer_tokens=200_000)
    # Fewer files than there will be connections: a gateway takes what it is allowed to take.
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (1024, hard))
    try:
        gateway = await room.start_gateway(stall_timeout_s=10, first_byte_timeout_s=10)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    await room.ask()
    before = gateway.memory_bytes()
    with idle(gateway.port, many_files):

        async def taken() -> bool:
            return gateway.connections() >= many_files

        await until(taken, "the gateway has taken all connections")
        names = [f"slow-{number}" for number in range(20)]
        readers = [asyncio.create_task(read_slowly(room, gateway.port, name)) for name in names]

        async def all_run() -> bool:
            return len(await engine.made()) >= len(names)

        await until(all_run, "the slow readers are being answered")
        async with room.load(clients=4) as load:
            await load.more(40)
        assert gateway.memory_bytes() - before < 256 * 1024 * 1024
        assert {seen.end for seen in load.seen} <= {End.FINISHED, End.LEFT}
        for reader in readers:
            reader.cancel()
        await asyncio.gather(*readers, return_exceptions=True)

    async def all_closed() -> bool:
        return gateway.connections() == 0

    await until(all_closed, "the gateway holds no connection any more")
    assert (await room.ask()).end is End.FINISHED
    await room.check()


async def read_slowly(room: Room, port: int, name: str) -> None:
    """Ask for an endless answer, and read a byte a second of it."""
    loop = asyncio.get_running_loop()
    body = {"model": "penstock/demo-chat", "messages": [{"role": "user", "content": "a"}], "stream": True}
    with socket.socket() as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.setblocking(False)
        await loop.sock_connect(client, ("127.0.0.1", port))
        await loop.sock_sendall(client, request("/v1/chat/completions", room.key, body, name, {}))
        while True:
            if not await loop.sock_recv(client, 1):
                return
            await asyncio.sleep(1)
