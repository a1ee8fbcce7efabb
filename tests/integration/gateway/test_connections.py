"""Connections to engines are used again, and a kept one that turns out closed costs nobody an answer."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

JSON = {"content-type": "application/json"}


class Door:
    """A socket in front of an engine that counts who comes in, and can show everybody out."""

    def __init__(self, engine: Path, socket: Path) -> None:
        self.engine, self.socket = engine, socket
        self.entered = 0
        self._writers: list[asyncio.StreamWriter] = []

    async def open(self) -> None:
        self.server = await asyncio.start_unix_server(self._enter, self.socket)

    async def _enter(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.entered += 1
        inner_reader, inner_writer = await asyncio.open_unix_connection(self.engine)
        self._writers += [writer, inner_writer]

        async def carry(source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
            while data := await source.read(65536):
                target.write(data)
            target.close()

        await asyncio.gather(carry(reader, inner_writer), carry(inner_reader, writer))

    def show_out(self) -> None:
        for writer in self._writers:
            writer.close()
        self._writers.clear()


async def test_a_connection_serves_many_requests_and_may_be_closed_between_them(
    bench: Any, chat: Callable[..., bytes]
) -> None:
    engine = await bench.start_engine()
    door = Door(engine.socket, engine.socket.with_name("door.sock"))
    await door.open()
    engine.socket = door.socket
    await bench.set_state(engine, "ready")
    async with bench.client() as client:
        for stream in (True, False, True):
            answer = await client.post("/v1/chat/completions", content=chat(stream=stream), headers=JSON)
            assert answer.status_code == 200
        assert door.entered == 1
        door.show_out()
        answer = await client.post("/v1/chat/completions", content=chat(), headers=JSON)
        assert answer.status_code == 200
        assert door.entered == 2
    door.show_out()
    door.server.close()
