"""One call at one engine, from its being sent to its one settlement, and how it can come to nothing there."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import msgspec
from litestar.types import Send

from penstock.routing.directory import Target
from penstock.serving import last_events
from penstock.serving.call import Call, Surface
from penstock.serving.dispatch import Dispatcher
from penstock.serving.meter import Meter, Settlement
from penstock.serving.relay import Ending, Headers, Relay, StreamRelay
from penstock.serving.tickets import Slot
from penstock.serving.usage import NOTHING, EngineUsage
from penstock.serving.watch import Watch
from penstock.serving.way import Way
from penstock_base import money
from penstock_billing.errors import JournalError
from penstock_billing.record import Outcome

logger = logging.getLogger(__name__)

END_S = 30.0
"""How long a client may take to let the end of its stream leave."""

OUTCOMES = {
    Ending.FINISHED: Outcome.DONE,
    Ending.CLIENT_GONE: Outcome.CLIENT_GONE,
    Ending.CREDIT_ENDED: Outcome.CREDIT_ENDED,
    Ending.STALLED: Outcome.STALLED,
    Ending.BROKEN: Outcome.ENGINE_FAILED,
    Ending.UNREACHED: Outcome.ENGINE_FAILED,
}
FAILURES = {
    Outcome.ENGINE_FAILED: "the engine failed before the answer was complete; nothing is billed",
    Outcome.STALLED: "the engine stopped making progress; nothing is billed",
}
STATUSES = {
    Outcome.DONE: 200,
    Outcome.CLIENT_GONE: 499,
    Outcome.CREDIT_ENDED: 402,
    Outcome.ENGINE_FAILED: 502,
    Outcome.STALLED: 504,
    Outcome.SHUTDOWN: 503,
}
"""What a client is told, or would have been; 499 is nginx' word for one that left."""
BUSY = frozenset({429, 502, 503, 504})
"""Statuses of an engine that takes no request now, whoever asks: it is full, asleep, or on its way out."""
OWN_ERROR = 500
"""Of an engine that failed, maybe at just this request."""


class EngineRefused(Exception):
    """The engine would not do this request; `body` is its own explanation."""

    def __init__(self, surface: Surface, status: int, body: bytes) -> None:
        super().__init__(f"the engine answered {status}")
        self.surface = surface
        self.status = status
        self.body = body


class EngineFailed(Exception):
    """The engine was lost, or gave no usable answer, before anything was sent; nothing is billed."""


class MeteringFailed(Exception):
    """The usage could not be recorded, so the answer may not be given; nothing is billed."""


@dataclass(slots=True)
class Failed:
    """An engine failed a call before its client had a byte of it, so that another engine may be tried."""

    target: Target
    ending: Ending
    lost: bool
    """Its connection broke or there was none: it may be gone, and to wait for another makes sense."""
    give_up: Callable[[], Awaitable[None]]
    """End the call as it stands, where no other engine is tried; raises what its client is told."""
    doubted: bool = False
    """Whether the request itself may be at fault: that shows when another engine answers it."""


class Attempt:
    """A call at one engine, to be settled exactly once."""

    __slots__ = ("call", "dispatcher", "meter", "relay", "sent_ns", "slot", "watch", "way")

    def __init__(
        self,
        meter: Meter,
        dispatcher: Dispatcher,
        call: Call,
        slot: Slot,
        relay: Relay,
        watch: Watch | None,
        way: Way,
        sent_ns: int,
    ) -> None:
        self.meter = meter
        self.dispatcher = dispatcher
        self.call = call
        self.slot = slot
        self.relay = relay
        self.watch = watch
        self.way = way
        self.sent_ns = sent_ns

    @property
    def begun(self) -> bool:
        """Whether the head of a stream has left."""
        return isinstance(self.relay, StreamRelay) and self.relay.begun

    @property
    def wrote(self) -> bool:
        """Whether the client has a part of the answer."""
        return isinstance(self.relay, StreamRelay) and self.relay.wrote

    def failed_early(self, ending: Ending) -> bool:
        """Whether it came to nothing at this engine, and another may be tried."""
        if ending is Ending.REFUSED:
            return self.relay.status == OWN_ERROR or self.relay.status in BUSY
        return ending is Ending.UNREACHED or (ending is Ending.BROKEN and not self.wrote)

    def settle(self, outcome: Outcome, receipt: EngineUsage | None) -> tuple[Outcome, int]:
        """Record the end: how it finally counts, and the cost in nano-dollars; raises MeteringFailed."""
        usage = usage_of(self.relay)
        if receipt is not None:
            usage = receipt.with_reasoning_of(usage)
        self.dispatcher.charge(self.slot, usage or NOTHING)
        # No prompt has no tokens: an engine that says so has not counted.
        if outcome is Outcome.DONE and (usage is None or not usage.prompt_tokens):
            logger.error("answer without a token count", extra={"replica": self.slot.target.id})
            outcome = Outcome.ENGINE_FAILED
        status = 200 if self.begun else STATUSES[outcome]
        end = Settlement(outcome, status, usage or NOTHING, self.way, first_data_ns=self.relay.first_data_ns)
        return outcome, record(self.meter, self.call, end)

    async def refuse(self) -> None:
        """Say what the engine answered, which was no answer; raises EngineRefused."""
        status = self.relay.status
        if status == OWN_ERROR or (self.slot.retries and status in BUSY):
            # Engines may have worked on it, and work ends in a record.
            self.settle(Outcome.ENGINE_FAILED, None)
        raise EngineRefused(self.call.surface, status, b"".join(self.relay.body))


def record(meter: Meter, call: Call, end: Settlement) -> int:
    """Write the record; its cost in nano-dollars. Raises MeteringFailed."""
    try:
        return meter.settle(call, end).cost_nano_usd
    except JournalError as error:
        logger.exception("usage could not be recorded", extra={"request_id": call.request_id})
        raise MeteringFailed("usage cannot be recorded right now; nothing is billed") from error


async def end(
    attempt: Attempt, outcome: Outcome, receipt: EngineUsage | None, send: Send, headers: Headers
) -> None:
    """Settle, then let the end leave; raises EngineFailed or MeteringFailed where nothing has left."""
    if isinstance(attempt.relay, StreamRelay):
        await _end_stream(attempt, attempt.relay, outcome, receipt, send)
    else:
        await _end_whole(attempt, outcome, receipt, send, headers)


async def _end_stream(
    attempt: Attempt, relay: StreamRelay, outcome: Outcome, receipt: EngineUsage | None, send: Send
) -> None:
    """Settle, then let the last bytes go: `[DONE]`, or what went wrong instead."""
    try:
        outcome, _ = attempt.settle(outcome, receipt)
        failure = FAILURES.get(outcome)
    except MeteringFailed as error:
        if not relay.begun:
            raise
        failure = str(error)
    if outcome is Outcome.CLIENT_GONE:
        return
    if failure is not None and not relay.begun:
        raise EngineFailed(failure)
    if not relay.begun:
        await send({"type": "http.response.start", "status": 200, "headers": relay.headers})
    if outcome is Outcome.CREDIT_ENDED and failure is None:
        last = last_events.credit_ended(attempt.call, receipt or usage_of(relay) or NOTHING)
    else:
        last = relay.events.held if failure is None else last_events.failed(failure)
    try:
        async with asyncio.timeout(END_S):
            await send({"type": "http.response.body", "body": last, "more_body": False})
    except TimeoutError:
        # All is settled; who reads nothing does not keep a place at the engine. The server hangs up.
        logger.info("a client did not read the end", extra={"request_id": attempt.call.request_id})


async def _end_whole(
    attempt: Attempt, outcome: Outcome, receipt: EngineUsage | None, send: Send, headers: Headers
) -> None:
    """Settle, then answer, with the cost in a header."""
    outcome, cost_nano_usd = attempt.settle(outcome, receipt)
    if outcome is Outcome.CLIENT_GONE:
        return
    if outcome is not Outcome.DONE:
        raise EngineFailed(FAILURES[outcome])
    body = b"".join(attempt.relay.body)
    cost = (b"x-penstock-cost-usd", money.nano_to_usd(cost_nano_usd).encode())
    length = (b"content-length", b"%d" % len(body))
    await send({"type": "http.response.start", "status": 200, "headers": [*headers, length, cost]})
    await send({"type": "http.response.body", "body": body, "more_body": False})


def usage_of(relay: Relay) -> EngineUsage | None:
    """What the relay read, if it makes sense."""
    try:
        return relay.usage()
    except (ValueError, msgspec.MsgspecError):
        return None
