"""A way to a server that can be slow, silent, cut, or gone, for one server behind a unix socket."""

from __future__ import annotations

import asyncio
import contextlib
import enum
import socket
import struct
from collections.abc import Callable
from pathlib import Path

RESET = struct.pack("ii", 1, 0)
"""SO_LINGER with no time to linger: closing sends RST, not FIN."""


class Cut(enum.Enum):
    """When a connection is cut whose client sends what a proxy waits for."""

    BEFORE = "the server never gets it"
    AFTER = "the server has done it, and its answer is lost"


class Link:
    """One client's connection and its own to the server."""

    def __init__(self, client: asyncio.StreamWriter, server: asyncio.StreamWriter) -> None:
        self.client = client
        self.server = server

    def reset(self) -> None:
        """Cut both ends at once."""
        for end in (self.client, self.server):
            handle = end.get_extra_info("socket")
            if handle is not None and handle.family != socket.AF_UNIX:
                with contextlib.suppress(OSError):
                    handle.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
            end.transport.abort()


class Proxy:
    """Passes bytes on, until told otherwise; what is told holds for old connections and for new ones."""

    def __init__(self, target: Callable[[], Path]) -> None:
        """`target` says where the server listens at the moment."""
        self._target = target
        self._links: set[Link] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._passing = asyncio.Event()
        self._passing.set()
        self._server: asyncio.Server | None = None
        self._trips: list[tuple[bytes, Cut]] = []
        self.delay_s = 0.0
        """How much later each packet towards the server arrives."""
        self.refusing = False
        """Whether connections are reset as soon as they are made."""
        self.tripped = 0
        """How many connections were cut by what they sent."""

    async def listen_at(self, path: Path) -> None:
        """Listen at a unix socket."""
        self._server = await asyncio.start_unix_server(self._serve, path)

    async def listen(self) -> int:
        """Listen at a port of the loopback; returns it."""
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        return int(self._server.sockets[0].getsockname()[1])

    def freeze(self) -> None:
        """Let nothing through, without a word: a network that swallows."""
        self._passing.clear()

    def thaw(self) -> None:
        """Let through what was held, and all that follows."""
        self._passing.set()

    def reset(self) -> None:
        """Cut every connection that there is."""
        for link in list(self._links):
            link.reset()

    def half_close(self) -> None:
        """Tell every client that the server will say no more, while still taking what they send."""
        for link in list(self._links):
            if link.client.can_write_eof() and not link.client.is_closing():
                link.client.write_eof()

    def cut_at(self, pattern: bytes, cut: Cut) -> None:
        """Cut the next connection whose client sends `pattern`, once."""
        self._trips.append((pattern, cut))

    async def close(self) -> None:
        """Stop listening and cut everything."""
        if self._server is not None:
            self._server.close()
        self.reset()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        link: Link | None = None
        try:
            if self.refusing:
                Link(writer, writer).reset()
                return
            await self._passing.wait()
            back, forth = await asyncio.open_unix_connection(str(self._target()))
            link = Link(writer, forth)
            self._links.add(link)
            async with asyncio.TaskGroup() as pumps:
                pumps.create_task(self._towards_server(link, reader))
                pumps.create_task(self._towards_client(link, back))
        except* (OSError, asyncio.CancelledError):
            pass  # either end is gone, or all is over: that is what this is for
        finally:
            if link is not None:
                self._links.discard(link)
                link.server.transport.abort()
            writer.transport.abort()
            self._tasks.discard(task)

    async def _towards_server(self, link: Link, reader: asyncio.StreamReader) -> None:
        while data := await reader.read(65536):
            if self.delay_s:
                await asyncio.sleep(self.delay_s)
            await self._passing.wait()
            trip = next((trip for trip in self._trips if trip[0] in data), None)
            if trip is not None:
                self._trips.remove(trip)
                self.tripped += 1
                if trip[1] is Cut.AFTER:
                    # The answer towards the client is dropped by cutting its side first.
                    link.client.transport.abort()
                    link.server.write(data)
                    await link.server.drain()
                    # Long enough for a commit on a busy machine; the server ends the session by itself.
                    await asyncio.sleep(1.0)
                link.reset()
                return
            link.server.write(data)
            await link.server.drain()
        link.client.transport.abort()
        link.server.transport.abort()

    async def _towards_client(self, link: Link, reader: asyncio.StreamReader) -> None:
        while data := await reader.read(65536):
            await self._passing.wait()
            if link.client.is_closing():
                continue
            link.client.write(data)
            with contextlib.suppress(OSError):
                await link.client.drain()
        link.client.transport.abort()
        link.server.transport.abort()
