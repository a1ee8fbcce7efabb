"""Clients: what each asked for, what it was given, and how it ended for it."""

from __future__ import annotations

import enum
import re
from typing import Any

import msgspec
from world.engine import Ask
from world.loop import VirtualLoop

CONTENT = re.compile(rb'"content":"(t*)"')
USAGE = re.compile(rb'"usage":(\{[^{}]*(?:\{[^{}]*\}[^{}]*)*\})')


class Asked(msgspec.Struct, frozen=True):
    """A request of the plan."""

    number: int
    at_s: float
    organisation_id: int
    ask: Ask
    usage_view: str = "HIDDEN"
    leave_after_s: float | None = None
    """Since it began."""
    slow_s: float = 0.0
    """How long it takes to read each part, where it is slow."""
    model: str = "sim/chat"


class End(enum.Enum):
    """How a request ended for its client."""

    OPEN = "still open"
    ACKNOWLEDGED = "the whole answer, with its end"
    FAILED = "an error, before or within the answer"
    BROKEN = "the connection broke"
    LEFT = "the client left"
    REFUSED = "not let in"


class Client:
    """One request's client, as an ASGI server's `receive` and `send` stand for it."""

    def __init__(self, loop: VirtualLoop, asked: Asked) -> None:
        self._loop = loop
        self.asked = asked
        self.request_id = ""
        self.end = End.OPEN
        self.why = ""
        self.ended_at_s = 0.0
        self.received: list[bytes] = []
        self.headers: dict[bytes, bytes] = {}
        self._gone = loop.create_future()
        self.done = loop.create_future()
        """Set when it is over for the client."""
        self.status = 0

    def settle(self, end: End, why: str = "") -> None:
        """It is over; what comes later is not seen any more."""
        if self.end is not End.OPEN:
            return
        self.end, self.why, self.ended_at_s = end, why, self._loop.time()
        if not self.done.done():
            self.done.set_result(None)
        if not self._gone.done():
            self._gone.set_result(None)

    def leave(self) -> None:
        self.settle(End.LEFT)

    def broken(self) -> None:
        """The gateway's process is gone."""
        self.settle(End.BROKEN)

    async def receive(self) -> dict[str, Any]:
        await self._gone
        return {"type": "http.disconnect"}

    async def send(self, message: dict[str, Any]) -> None:
        if self.end is not End.OPEN:
            return
        if message["type"] == "http.response.start":
            self.status = message["status"]
            self.headers = dict(message["headers"])
            return
        self.received.append(message["body"])
        if not message.get("more_body", False):
            self._last()
        elif self.asked.slow_s:
            read = self._loop.create_future()
            self._loop.outside(self.asked.slow_s, lambda: read.done() or read.set_result(None))
            await read

    def _last(self) -> None:
        if not self.asked.ask.stream or b"".join(self.received).rstrip().endswith(b"data: [DONE]"):
            self.settle(End.ACKNOWLEDGED)
        else:
            self.settle(End.FAILED, "an error ended the stream")

    @property
    def tokens(self) -> int:
        """Tokens that reached the client."""
        return sum(len(found) for found in CONTENT.findall(b"".join(self.received)))

    @property
    def usage(self) -> dict[str, Any] | None:
        """The usage that the client was told last."""
        found = USAGE.findall(b"".join(self.received))
        return None if not found else msgspec.json.decode(found[-1])
