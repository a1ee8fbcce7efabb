"""A client that remembers what it saw: the other side of the bill."""

from __future__ import annotations

import asyncio
import contextlib
import enum
import json
import socket
import struct
from dataclasses import dataclass, field
from typing import Any

import httptools

MODEL = "penstock/demo-chat"
RESET = struct.pack("ii", 1, 0)


class End(enum.Enum):
    """How a request ended for its client; each ends in exactly one way."""

    FINISHED = "the whole answer, `[DONE]` included: acknowledged"
    REFUSED = "an error status, before any of the answer"
    FAILED = "an error in the middle of the stream, in words"
    BROKEN = "the connection broke"
    LEFT = "the client cut the connection itself"


@dataclass
class Seen:
    """One request, as its client saw it."""

    name: str
    """What the client called it."""
    gateway: Any
    """Who was asked."""
    end: End | None = None
    request_id: str = ""
    status: int = 0
    tokens: int = 0
    """Events with a piece of the answer in it."""
    usage: dict[str, Any] | None = None
    cost_usd: str | None = None
    error: dict[str, Any] | None = None
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""
    """What a whole response said."""
    choices: dict[int, int] = field(default_factory=dict)
    """Events per choice."""
    first_byte_s: float = 0.0
    took_s: float = 0.0

    @property
    def replayed(self) -> bool:
        """Whether it is the answer to an earlier request: it has no record of its own."""
        return self.headers.get("idempotent-replayed") == "true"


class Reading:
    """Collects one HTTP response; httptools calls it."""

    def __init__(self, seen: Seen) -> None:
        self.seen = seen
        self.parser = httptools.HttpResponseParser(self)
        self.partial = b""
        self.done = False
        """The stream said `[DONE]`."""
        self.complete = False
        """The response is complete as HTTP."""

    def on_header(self, name: bytes, value: bytes) -> None:
        self.seen.headers[name.decode().lower()] = value.decode()

    def on_headers_complete(self) -> None:
        seen = self.seen
        seen.status = self.parser.get_status_code()
        seen.request_id = seen.headers.get("x-request-id", "")
        seen.cost_usd = seen.headers.get("x-penstock-cost-usd")

    def on_body(self, body: bytes) -> None:
        if not self.seen.headers.get("content-type", "").startswith("text/event-stream"):
            self.seen.body += body
            return
        *events, self.partial = (self.partial + body).split(b"\n\n")
        for event in events:
            self._event(event.removeprefix(b"data: "))

    def on_message_complete(self) -> None:
        self.complete = True

    def _event(self, data: bytes) -> None:
        if data == b"[DONE]":
            self.done = True
            return
        event = json.loads(data)
        seen = self.seen
        seen.error = event.get("error") or seen.error
        seen.usage = event.get("usage") or seen.usage
        for choice in event.get("choices", ()):
            piece = choice.get("text") or (choice.get("delta") or {}).get("content")
            if piece:
                seen.tokens += 1
                seen.choices[choice["index"]] = seen.choices.get(choice["index"], 0) + 1


async def ask(
    gateway: Any,
    key: str,
    body: dict[str, Any],
    *,
    name: str,
    leave_at: int | None = None,
    politely: bool = False,
    path: str = "/v1/chat/completions",
    headers: dict[str, str] | None = None,
    patience_s: float = 60,
) -> Seen:
    """Ask one thing on a connection of its own; leave after `leave_at` tokens (by RST, or politely by FIN).

    A request that takes longer than `patience_s` is a failure of the test: it has no terminal state.
    """
    seen = Seen(name, gateway)
    loop = asyncio.get_running_loop()
    started = loop.time()
    async with asyncio.timeout(patience_s):
        try:
            reader, writer = await asyncio.open_connection("127.0.0.1", gateway.port)
        except OSError:
            seen.end = End.BROKEN
            return seen
        try:
            writer.write(request(path, key, {"model": MODEL} | body, name, headers or {}))
            await _read(reader, seen, leave_at, started)
        except OSError:
            seen.end = End.BROKEN
        finally:
            if not politely:
                with contextlib.suppress(OSError):  # closed already, from the other side
                    writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
                writer.transport.abort()
            writer.close()
    seen.took_s = loop.time() - started
    return seen


def request(path: str, key: str, body: dict[str, Any], name: str, headers: dict[str, str]) -> bytes:
    """Write a request as bytes."""
    content = json.dumps(body).encode()
    lines = {
        "host": "gateway",
        "authorization": f"Bearer {key}",
        "content-type": "application/json",
        "content-length": str(len(content)),
        "x-client-request-id": name,
        "connection": "close",
    } | headers
    head = "".join(f"{name}: {value}\r\n" for name, value in lines.items())
    return f"POST {path} HTTP/1.1\r\n{head}\r\n".encode() + content


async def _read(reader: asyncio.StreamReader, seen: Seen, leave_at: int | None, started: float) -> None:
    reading = Reading(seen)
    while not reading.complete:
        if leave_at is not None and seen.tokens >= leave_at and (leave_at or seen.status):
            seen.end = End.LEFT
            return
        data = await reader.read(65536)
        if not data:
            break
        seen.first_byte_s = seen.first_byte_s or asyncio.get_running_loop().time() - started
        reading.parser.feed_data(data)
    streamed = seen.headers.get("content-type", "").startswith("text/event-stream")
    if seen.error is not None:
        seen.end = End.FAILED
    elif not reading.complete:
        seen.end = End.BROKEN
    elif seen.status != 200:
        seen.end = End.REFUSED
        seen.error = json.loads(seen.body).get("error")
    elif streamed and not reading.done:
        seen.end = End.BROKEN
    else:
        seen.end = End.FINISHED
        if not streamed:
            seen.usage = json.loads(seen.body).get("usage")
