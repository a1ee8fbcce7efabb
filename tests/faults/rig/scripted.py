"""An engine that says word for word what a test tells it to, for what no healthy engine says."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Sequence
from pathlib import Path

import httptools

HEAD = (
    b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream; charset=utf-8\r\ntransfer-encoding: chunked\r\n\r\n"
)


class Reading:
    """Waits for the end of one request; httptools calls it."""

    def __init__(self) -> None:
        self.parser = httptools.HttpRequestParser(self)
        self.path = b""
        self.complete = False

    def on_url(self, url: bytes) -> None:
        self.path += url

    def on_message_complete(self) -> None:
        self.complete = True


class ScriptedEngine:
    """Answers an inference request with the events it has been given, and knows of no receipts."""

    def __init__(self, socket: Path) -> None:
        self.socket = socket
        self.events: Sequence[bytes] = ()
        self._server: asyncio.Server | None = None

    async def start(self) -> None:
        self._server = await asyncio.start_unix_server(self._serve, self.socket)

    async def close(self) -> None:
        if self._server is not None:
            self._server.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        reading = Reading()
        try:
            while not reading.complete and (data := await reader.read(65536)):
                reading.parser.feed_data(data)
            if reading.path.startswith(b"/v1/"):
                writer.write(HEAD)
                for event in self.events:
                    writer.write(b"%x\r\n%b\r\n" % (len(event), event))
                    await writer.drain()
                    await asyncio.sleep(0.01)  # each event in a packet of its own
                writer.write(b"0\r\n\r\n")
            else:
                writer.write(b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n")
            with contextlib.suppress(OSError):
                await writer.drain()
        except OSError:
            pass  # the gateway is gone
        finally:
            writer.close()
