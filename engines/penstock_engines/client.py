"""The HTTP/1.1 client of the token path: one request at a time per connection, kept alive, on a unix socket.

It is ours because the upstream client is the largest single cost of a relay; it speaks only to engines that
Penstock started, and everything else of HTTP is left to libraries. Nothing here knows what the bytes mean.
"""

from __future__ import annotations

import asyncio
from collections import deque
from pathlib import Path
from typing import Protocol, cast

import httptools

IDLE_S = 300.0
"""Longest rest of a kept connection: below the 600 s after which our engines close it (spec.KEEP_ALIVE_S)."""


class EngineGone(Exception):
    """The engine could not be reached, or its connection broke.

    `answered` tells whether any byte of the response had come: if not, another engine may be tried.
    """

    def __init__(self, reason: str, *, answered: bool) -> None:
        super().__init__(reason)
        self.answered = answered


class Receiver(Protocol):
    """What a connection tells, in this order: head, data any number of times, then end or lost once."""

    def on_head(self, status: int, headers: list[tuple[bytes, bytes]]) -> None:
        """Take the status line and headers (names as the engine wrote them)."""

    def on_data(self, data: bytes) -> None:
        """Take all body bytes that one read brought, transfer encoding removed."""

    def on_end(self) -> None:
        """The response is complete; the connection has gone back to rest."""

    def on_lost(self, error: EngineGone) -> None:
        """The connection broke before the response was complete."""


class EngineConnection(asyncio.Protocol):
    """One kept-alive connection; `send` starts an exchange, `abort` ends it and so the engine's work."""

    __slots__ = (
        "_address",
        "_answered",
        "_body",
        "_ended",
        "_keep",
        "_parser",
        "_receiver",
        "_status_headers",
        "_transport",
        "idle_since",
    )

    def __init__(self, address: EngineAddress) -> None:
        self._address = address
        self._parser = httptools.HttpResponseParser(self)
        self._receiver: Receiver | None = None
        self._transport: asyncio.Transport | None = None
        self._status_headers: list[tuple[bytes, bytes]] = []
        self._body: list[bytes] = []
        self._answered = False
        self._ended = False
        self._keep = False
        self.idle_since = 0.0

    @property
    def alive(self) -> bool:
        """False once the transport is lost."""
        return self._transport is not None

    def send(self, request: bytes, receiver: Receiver) -> None:
        """Write a whole request; its response goes to `receiver`."""
        self._receiver = receiver
        self._answered = False
        if self._transport is None:
            self._lose("the engine closed the connection")
        else:
            self._transport.write(request)

    def abort(self) -> None:
        """Close at once, without a word to the receiver: the engine sees its client gone and stops."""
        self._receiver = None
        if self._transport is not None:
            self._transport.abort()

    def pause(self) -> None:
        """Stop reading: the engine's socket fills, which is how a slow client holds its engine back."""
        if self._transport is not None:
            self._transport.pause_reading()

    def resume(self) -> None:
        """Read on."""
        if self._transport is not None:
            self._transport.resume_reading()

    # asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Called by the event loop."""
        self._transport = cast("asyncio.Transport", transport)

    def connection_lost(self, exc: Exception | None) -> None:
        """Called by the event loop."""
        self._transport = None
        self._address.forget(self)
        self._lose(str(exc) if exc else "the engine closed the connection")

    def data_received(self, data: bytes) -> None:
        """Called by the event loop: one call here is at most one `on_data`."""
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError as error:
            self._lose(f"the engine sent what is not HTTP: {error}")
            self.abort()
            return
        receiver = self._receiver
        body = self._body
        if body:
            joined = body[0] if len(body) == 1 else b"".join(body)
            body.clear()
            if receiver is not None:
                receiver.on_data(joined)
        if self._ended:
            self._finish()

    # httptools callbacks

    def on_message_begin(self) -> None:
        """Called by the parser."""
        self._status_headers = []
        self._answered = True

    def on_header(self, name: bytes, value: bytes) -> None:
        """Called by the parser."""
        self._status_headers.append((name, value))

    def on_headers_complete(self) -> None:
        """Called by the parser."""
        if self._receiver is not None:
            self._receiver.on_head(self._parser.get_status_code(), self._status_headers)

    def on_body(self, body: bytes) -> None:
        """Called by the parser."""
        self._body.append(body)

    def on_message_complete(self) -> None:
        """Called by the parser."""
        self._ended = True
        # Asked here: the parser forgets the message's flags as soon as this returns.
        self._keep = self._parser.should_keep_alive()

    def _finish(self) -> None:
        self._ended = False
        receiver, self._receiver = self._receiver, None
        self.resume()  # a slow client may have paused it with the very last bytes
        if self._keep:
            self._parser = httptools.HttpResponseParser(self)
            self._address.rest(self)
        elif self._transport is not None:
            self._transport.close()
        if receiver is not None:
            receiver.on_end()

    def _lose(self, reason: str) -> None:
        receiver, self._receiver = self._receiver, None
        if receiver is not None:
            receiver.on_lost(EngineGone(reason, answered=self._answered))


class EngineAddress:
    """Where one engine listens (a unix socket, or host and port elsewhere), and its idle connections."""

    def __init__(self, socket: Path | None = None, *, host: str = "", port: int = 0) -> None:
        self._socket = None if socket is None else str(socket)
        self._host, self._port = host, port
        self._idle: deque[EngineConnection] = deque()
        self._loop = asyncio.get_running_loop()

    def idle(self) -> EngineConnection | None:
        """Take a kept connection, the most recently used first, if one is fresh enough."""
        oldest = self._loop.time() - IDLE_S
        while self._idle:
            connection = self._idle.pop()
            if connection.alive and connection.idle_since >= oldest:
                return connection
            connection.abort()
        return None

    async def connect(self) -> EngineConnection:
        """Open a connection; raises EngineGone when nothing listens."""
        try:
            if self._socket is not None:
                _, made = await self._loop.create_unix_connection(
                    lambda: EngineConnection(self), self._socket
                )
            else:
                _, made = await self._loop.create_connection(
                    lambda: EngineConnection(self), self._host, self._port
                )
        except OSError as error:
            raise EngineGone(f"the engine cannot be reached: {error}", answered=False) from error
        return made

    def rest(self, connection: EngineConnection) -> None:
        """Keep a connection whose response is complete."""
        connection.idle_since = self._loop.time()
        self._idle.append(connection)

    def forget(self, connection: EngineConnection) -> None:
        """Drop a lost connection from the idle ones."""
        try:
            self._idle.remove(connection)
        except ValueError:
            pass  # it was in use

    def close(self) -> None:
        """Close every idle connection."""
        while self._idle:
            self._idle.pop().abort()


def post(path: bytes, body: bytes, headers: bytes = b"") -> bytes:
    """Write a POST of JSON as bytes; `headers` are whole lines, each ended by CRLF."""
    length = b"content-length: %d\r\n" % len(body)
    kind = b"content-type: application/json\r\n"
    return b"POST %b HTTP/1.1\r\nhost: engine\r\n%b%b%b\r\n%b" % (path, kind, headers, length, body)


def get(path: bytes) -> bytes:
    """Write a GET as bytes."""
    return b"GET %b HTTP/1.1\r\nhost: engine\r\n\r\n" % path


class Collected:
    """A receiver that keeps a whole small response, for questions beside the token path."""

    def __init__(self) -> None:
        self._status = 0
        self._body: list[bytes] = []
        self.answer: asyncio.Future[tuple[int, bytes]] = asyncio.get_running_loop().create_future()

    def on_head(self, status: int, headers: list[tuple[bytes, bytes]]) -> None:  # noqa: ARG002 - as Receiver
        """Keep the status."""
        self._status = status

    def on_data(self, data: bytes) -> None:
        """Keep the body."""
        self._body.append(data)

    def on_end(self) -> None:
        """Answer."""
        if not self.answer.done():
            self.answer.set_result((self._status, b"".join(self._body)))

    def on_lost(self, error: EngineGone) -> None:
        """Fail."""
        if not self.answer.done():
            self.answer.set_exception(error)


async def ask(address: EngineAddress, request: bytes, timeout_s: float) -> tuple[int, bytes]:
    """Ask an engine something small: (status, body); raises EngineGone, or TimeoutError."""
    connection = address.idle() or await address.connect()
    collected = Collected()
    connection.send(request, collected)
    try:
        async with asyncio.timeout(timeout_s):
            return await collected.answer
    except TimeoutError:
        connection.abort()
        raise
