"""Bytes through: one engine response to one client. Here alone tokens are seen to pass.

A relay receives from the engine's connection and writes to the ASGI server. It knows how the response ended,
on every way out, and what the engine had counted by then; what that costs is not its business.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable, Iterable
from enum import Enum

import msgspec
from litestar.types import Receive, Send

from penstock.serving import stepping
from penstock.serving.call import Call
from penstock.serving.events import EventStream
from penstock.serving.usage import EngineUsage, decode_whole
from penstock_engines.client import EngineConnection, EngineGone

Headers = list[tuple[bytes, bytes]]

Checkpoint = Callable[[EngineUsage], bool]
"""Told now and then what a stream has used so far; False ends it, since its credit has."""

CHECK_EVERY_BYTES = 4096
"""Between two checkpoints, about: 16 events of one token. Bytes, since one read may bring many events."""
CHECK_EVERY_S = 5.0
"""The longest between two checkpoints of a stream, however slow."""


class Ending(Enum):
    """How a response ended, each exactly one."""

    FINISHED = "the engine said all it had to say"
    REFUSED = "the engine answered with an error status"
    UNREACHED = "the connection broke before the engine answered: another may be tried"
    BROKEN = "the engine died, failed or cut the answer off after it had begun"
    STALLED = "the engine brought nothing for too long"
    CLIENT_GONE = "the client left"
    CREDIT_ENDED = "the checkpoint said that there is no credit for more"
    OUTRUN = "another engine was asked as well, and answered first"


class Patience:
    """How long a relay waits: for the first byte, between bytes, and for a client to read on."""

    __slots__ = ("first_byte_s", "stall_s")

    def __init__(self, first_byte_s: float, stall_s: float) -> None:
        self.first_byte_s = first_byte_s
        self.stall_s = stall_s


class Relay:
    """What both kinds of response have in common: the end, and the three clocks that can bring it about."""

    def __init__(
        self, connection: EngineConnection, patience: Patience, look_every_s: float = math.inf
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._connection = connection
        self._patience = patience
        self._ending: Ending | None = None
        self._turn: asyncio.Future[None] = self._loop.create_future()
        self._progress = self._loop.time()
        self._look_every_s = min(look_every_s, patience.stall_s)
        self._timer = self._loop.call_later(min(patience.first_byte_s, self._look_every_s), self._look)
        self.status = 0
        self.body: list[bytes] = []
        """The whole body of a whole response, or of a refusal."""
        self.first_data_ns = 0
        """time.perf_counter_ns() of the first body byte; 0 before."""
        self.on_first_data: Callable[[], None] | None = None
        """Told when the first byte of an answer (not of a refusal) came."""
        self.lost = False
        """The connection broke; the engine may be gone."""

    async def run(self, receive: Receive) -> Ending:
        """Wait for the end. On every way out but FINISHED and REFUSED the engine's work is stopped."""
        watch = self._loop.create_task(self._watch(receive))
        try:
            while self._ending is None:
                await self._turn
                await self._catch_up()
        finally:
            watch.cancel()
            self._timer.cancel()
            if self._ending not in {Ending.FINISHED, Ending.REFUSED}:
                self._connection.abort()
        return self._ending

    @property
    def ended(self) -> bool:
        """Whether it is known how it ended."""
        return self._ending is not None

    def outrun(self) -> None:
        """Another engine was quicker: stop this one's work now, and let nothing more of it through."""
        self._end(Ending.OUTRUN)
        self._connection.abort()
        self.on_first_data = None

    def usage(self) -> EngineUsage | None:
        """What the engine has counted so far; raises ValueError or msgspec.MsgspecError for nonsense."""
        raise NotImplementedError

    async def _catch_up(self) -> None:
        """Let a slow client read; only streams have anything to do here."""

    async def _watch(self, receive: Receive) -> None:
        """End when the client leaves."""
        while (await receive())["type"] != "http.disconnect":
            pass
        self._end(Ending.CLIENT_GONE)

    def _first_data(self) -> None:
        self.first_data_ns = time.perf_counter_ns()
        # Once: who is told usually holds this relay, and a cycle would be left to the garbage collector.
        told, self.on_first_data = self.on_first_data, None
        if told is not None and self.status == 200:
            told()

    def _end(self, ending: Ending) -> None:
        if self._ending is None:
            self._ending = ending
            self._wake()

    def _wake(self) -> None:
        if not self._turn.done():
            self._turn.set_result(None)

    def _look(self) -> None:
        """Has the engine been silent too long? One timer per response, set again only when it fires."""
        limit = self._patience.stall_s if self.first_data_ns else self._patience.first_byte_s
        rest = self._progress + limit - self._loop.time()
        if rest <= 0:
            self._end(Ending.STALLED)
        else:
            self._timer = self._loop.call_later(min(rest, self._look_every_s), self._look)

    # penstock_engines.client.Receiver

    def on_head(self, status: int, headers: Headers) -> None:  # noqa: ARG002 - as Receiver says
        """Note the status."""
        self.status = status

    def on_data(self, data: bytes) -> None:
        """Keep a part of a whole body."""
        if not self.first_data_ns:
            self._first_data()
        self._progress = self._loop.time()
        self.body.append(data)

    def on_end(self) -> None:
        """The engine is done."""
        self._end(Ending.FINISHED if self.status == 200 else Ending.REFUSED)

    def on_lost(self, error: EngineGone) -> None:
        """The engine is gone."""
        self.lost = True
        self._end(Ending.BROKEN if error.answered else Ending.UNREACHED)


class WholeRelay(Relay):
    """A response kept until it is complete, since its cost stands in a header before it."""

    def usage(self) -> EngineUsage | None:
        """What the response says; None while it is not complete."""
        if self._ending is not Ending.FINISHED:
            return None
        return decode_whole(b"".join(self.body)).usage


class StreamRelay(Relay):
    """A stream of events, written on from the callback that brought them."""

    def __init__(
        self,
        connection: EngineConnection,
        patience: Patience,
        call: Call,
        send: Send,
        headers: Headers,
        checkpoint: Checkpoint | None = None,
    ) -> None:
        """`checkpoint` is told the first count, then every CHECK_EVERY_BYTES and every CHECK_EVERY_S."""
        super().__init__(connection, patience, math.inf if checkpoint is None else CHECK_EVERY_S)
        self._checkpoint = checkpoint
        self._unchecked_bytes = CHECK_EVERY_BYTES
        self._send = send
        self.headers = headers
        self._suspended: stepping.Suspended | None = None
        self._waiting: list[bytes] = []
        self.events = EventStream(call.usage_view, prompts=call.prompts, n=call.n)
        self.begun = False
        """The response's head has left: from here on, errors are events."""
        self.wrote = False
        """A part of the answer has left: no other engine can give it any more."""

    def usage(self) -> EngineUsage | None:
        """What the engine had counted when its last event came."""
        return self.events.usage()

    def on_data(self, data: bytes) -> None:
        """Pass on what may leave; the end and everything after it is held."""
        if self.status != 200:
            super().on_data(data)
            return
        self._progress = self._loop.time()
        if not self.first_data_ns:
            self._first_data()
        ready = self.events.feed(data)
        if self.events.failed:
            self._end(Ending.BROKEN)
        elif ready and self._ending is None:
            if self._suspended is None:
                self._write(ready)
            else:
                self._waiting.append(ready)
        self._unchecked_bytes += len(data)
        if self._unchecked_bytes >= CHECK_EVERY_BYTES:
            self._check()

    def on_end(self) -> None:
        """The engine is done; without its `[DONE]` it broke off."""
        if self.status == 200 and not self.events.done:
            self._end(Ending.BROKEN)
        else:
            super().on_end()

    def _look(self) -> None:
        if self._suspended is not None:
            # We do not read, so that a slow client can catch up: that silence is not the engine's.
            self._progress = self._loop.time()
        super()._look()
        self._check()

    def _check(self) -> None:
        """Ask whether to go on. What came is passed on in any case: it was made, so it is charged."""
        self._unchecked_bytes = 0
        if self._checkpoint is None or self._ending is not None or self.events.done:
            return
        try:
            usage = self.events.usage()
        except (ValueError, msgspec.MsgspecError):
            return  # the settlement says what becomes of a count that makes no sense
        if usage is not None and not self._checkpoint(usage):
            self._end(Ending.CREDIT_ENDED)
            # At once, not when a slow client has read: the engine is not to make more on no credit.
            self._connection.abort()

    def _write(self, data: bytes) -> None:
        messages: list[dict[str, object]] = [{"type": "http.response.body", "body": data, "more_body": True}]
        self.wrote = True
        if not self.begun:
            self.begun = True
            messages.insert(0, {"type": "http.response.start", "status": 200, "headers": self.headers})
        self._send_all(messages)

    def _send_all(self, messages: Iterable[dict[str, object]]) -> None:
        for message in messages:
            if self._suspended is not None:
                self._waiting.append(message["body"])  # type: ignore[arg-type]
                continue
            self._suspended = stepping.step(self._send, message)  # type: ignore[arg-type]
            if self._suspended is not None:
                self._connection.pause()
                self._wake()

    async def _catch_up(self) -> None:
        """Wait until a slow client has read, then go on; one that reads nothing too long counts as gone."""
        if self._suspended is None:
            return
        self._turn = self._loop.create_future()
        try:
            async with asyncio.timeout(self._patience.stall_s):
                await self._suspended
                while self._waiting:
                    data = b"".join(self._waiting)
                    self._waiting.clear()
                    await self._send({"type": "http.response.body", "body": data, "more_body": True})
        except TimeoutError:
            self._end(Ending.CLIENT_GONE)
            return
        self._suspended = None
        self._progress = self._loop.time()
        if self._ending is None:
            self._connection.resume()
        else:
            # The connection is another request's by now, which may have paused it for its own client.
            self._wake()
