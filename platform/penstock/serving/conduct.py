"""Conducting one request: choose an engine, run it there, relay the answer, meter it, settle.

Everything that can go wrong before the first byte is an error for the edge to put into words; after it, the
stream itself says so. On every way out there is exactly one settlement.
"""

from __future__ import annotations

import asyncio
import logging
import time
from typing import NoReturn

import msgspec
from litestar.types import Receive, Send

from penstock.observe import metrics
from penstock.routing.directory import Target
from penstock.serving import last_events, receipts
from penstock.serving import way as ways
from penstock.serving.call import Call, Surface
from penstock.serving.dispatch import ClientGone, Dispatcher, Slot, Ticket
from penstock.serving.load import FirstTokens
from penstock.serving.meter import Meter, Settlement
from penstock.serving.notes import Notes
from penstock.serving.opening import Opening
from penstock.serving.relay import Ending, Headers, Patience, Relay, StreamRelay, WholeRelay
from penstock.serving.usage import NOTHING, EngineUsage
from penstock.serving.watch import Watch
from penstock.serving.way import Way
from penstock_base import money
from penstock_billing.errors import JournalError
from penstock_billing.record import Outcome
from penstock_engines.adapter_names import NAME_HEADER
from penstock_engines.client import EngineConnection, EngineGone, post

logger = logging.getLogger(__name__)

ATTEMPTS_MAX = 3
END_S = 30.0
"""How long a client may take to let the end of its stream leave."""
BYTES_PER_TOKEN = 4
"""Of a request's body, roughly: what it is counted as in the queue until the engine has counted."""

OUTCOMES = {
    Ending.FINISHED: Outcome.DONE,
    Ending.CLIENT_GONE: Outcome.CLIENT_GONE,
    Ending.CREDIT_ENDED: Outcome.CREDIT_ENDED,
    Ending.STALLED: Outcome.STALLED,
    Ending.BROKEN: Outcome.ENGINE_FAILED,
    Ending.UNREACHED: Outcome.ENGINE_FAILED,
}
CUT_SHORT = frozenset({Ending.CLIENT_GONE, Ending.CREDIT_ENDED})
"""The engine was told to stop, and its receipt says how much it had made until it did."""
ENGINES_FAULT = frozenset({Ending.STALLED, Ending.BROKEN})
"""Such an ending counts against the engine; UNREACHED does as well, when no other connection does better."""
NOBODY_THERE = (ConnectionRefusedError, FileNotFoundError)
"""Of an engine's socket: its process is gone. Other errors may be those of a busy moment."""
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


class AlreadyBegun(Exception):
    """The request failed, as its cause says, after its client was told that it waits: say it as an event."""


class Conductor:
    """Runs requests on engines, each when it is its turn."""

    def __init__(
        self, dispatcher: Dispatcher, meter: Meter, patience: Patience, first_tokens: FirstTokens
    ) -> None:
        self._dispatcher = dispatcher
        self._meter = meter
        self._patience = patience
        self._first_tokens = first_tokens

    async def run(self, call: Call, receive: Receive, send: Send, headers: Headers) -> None:
        """Answer the call completely.

        Raises QueueFull, NotServed, ClientGone, EngineRefused, EngineFailed or MeteringFailed, each before
        any byte; or AlreadyBegun from one of them, where the client wanted to see that it waits.
        """
        opening = Opening(send, headers)
        try:
            await self._run(call, receive, send, headers, opening)
        except ClientGone:
            raise
        except Exception as error:
            if opening.begun:
                raise AlreadyBegun from error
            raise
        finally:
            call.charge.close()

    async def _run(
        self, call: Call, receive: Receive, send: Send, headers: Headers, opening: Opening
    ) -> None:
        headers_in = b"x-request-id: %b\r\n" % call.request_id.encode()
        if call.adapter is not None:
            # The engine knows it by its content alone; the answer is to call it what its owner does.
            headers_in += b"%b: %b\r\n" % (NAME_HEADER, call.model.encode())
        request = post(call.surface.engine_path, call.body, headers_in)
        ticket = Ticket(
            call.card.id,
            call.principal.organisation_id,
            call.principal.weight,
            call.urgency,
            call.hint,
            tokens=len(call.body) / BYTES_PER_TOKEN,
            admitted_ns=time.perf_counter_ns(),
            tell=opening.tell if call.told_waiting and call.streamed else None,
        )
        slot = await self._dispatcher.acquire(ticket, receive)
        if slot.waited_s:
            headers = [*headers, *ways.headers(slot)]
        in_flight = metrics.model_figures(call.card.id).in_flight
        tried: list[Target] = []
        while True:
            in_flight.inc()
            absent = False
            try:
                if await self._run_at(slot, call, request, receive, send, headers, opening):
                    return
            except EngineGone as gone:
                logger.warning("engine unreachable", extra={"replica": slot.target.id, "reason": str(gone)})
                absent = isinstance(gone.__cause__, NOBODY_THERE)
            finally:
                self._dispatcher.release(slot)
                in_flight.dec()
            self._failed(slot.target, surely=absent)
            tried.append(slot.target)
            again = self._dispatcher.retry(slot, tried) if len(tried) < ATTEMPTS_MAX else None
            if again is None:
                self._give_up(call, slot, opening)
            slot = again

    def _give_up(self, call: Call, last: Slot, opening: Opening) -> NoReturn:
        """Record that no engine answered: a request that reached one ends in a record, however it ends."""
        lost = Settlement(
            Outcome.ENGINE_FAILED,
            200 if opening.begun else 502,
            NOTHING,
            ways.of(call, last, time.perf_counter_ns()),
            first_data_ns=0,
        )
        _record(self._meter, call, lost)
        raise EngineFailed("no engine answered; nothing was billed, try again")

    async def _run_at(
        self,
        slot: Slot,
        call: Call,
        request: bytes,
        receive: Receive,
        send: Send,
        headers: Headers,
        opening: Opening,
    ) -> bool:
        """Run the call at one engine; False when it never answered and another may be tried."""
        address = slot.target.address
        kept = address.idle()
        if kept is not None and await self._run_on(
            kept, slot, call, request, receive, send, headers, opening
        ):
            return True
        # The engine may have closed a kept connection just then; a new one tells whether it is there.
        fresh = await address.connect()
        return await self._run_on(fresh, slot, call, request, receive, send, headers, opening)

    async def _run_on(
        self,
        connection: EngineConnection,
        slot: Slot,
        call: Call,
        request: bytes,
        receive: Receive,
        send: Send,
        headers: Headers,
        opening: Opening,
    ) -> bool:
        """Run the call on one connection; False when no byte of an answer came."""
        sent_ns = time.perf_counter_ns()
        way = ways.of(call, slot, sent_ns)
        watch = self._watch(call, slot, way) if call.streamed else None
        relay = (
            StreamRelay(connection, self._patience, call, send, headers, watch)
            if call.streamed
            else WholeRelay(connection, self._patience)
        )
        if isinstance(relay, StreamRelay):
            relay.begun = opening.begun
        attempt = Attempt(self._meter, self._dispatcher, call, slot, relay, way, sent_ns)
        relay.on_first_data = lambda: self._first_data(call, slot, attempt)
        connection.send(request, relay)
        # Until the relay tells how it ended, a cancellation is the server giving up waiting for us.
        outcome, usage = Outcome.SHUTDOWN, None
        try:
            ending = await relay.run(receive)
            if ending is Ending.UNREACHED:
                return False
            self._judge(slot.target, attempt, ending)
            if ending is Ending.REFUSED:
                raise EngineRefused(call.surface, relay.status, b"".join(relay.body))
            outcome = OUTCOMES[ending]
            if watch is not None and watch.receipt is not None:
                usage = await watch.receipt
            elif ending in CUT_SHORT:
                usage = await receipts.fetch(slot.target.address, call.request_id)
        except asyncio.CancelledError:
            slot.target.breaker.undecided()
            attempt.settle(outcome, usage)
            raise
        if isinstance(relay, StreamRelay):
            await _end_stream(attempt, relay, outcome, usage, send)
        else:
            await _end_whole(attempt, outcome, usage, send, headers)
        return True

    def _judge(self, target: Target, attempt: Attempt, ending: Ending) -> None:
        """Tell an engine's breaker what an ending says of it."""
        if ending is Ending.FINISHED:
            target.breaker.worked()
        elif ending in ENGINES_FAULT or self._given_up(attempt, ending):
            self._failed(target)
        else:
            target.breaker.undecided()

    def _given_up(self, attempt: Attempt, ending: Ending) -> bool:
        """Whether a client left a stream that had brought nothing for as long as a stall may last."""
        waited_s = (time.perf_counter_ns() - attempt.sent_ns) / 1e9
        return (
            ending is Ending.CLIENT_GONE
            and attempt.call.streamed
            and not attempt.relay.first_data_ns
            and waited_s >= self._patience.stall_s
        )

    def _failed(self, target: Target, *, surely: bool = False) -> None:
        """Count an engine's failure."""
        if target.breaker.failed(time.monotonic(), surely=surely):
            metrics.BREAKERS_OPENED.labels(target.registered.model).inc()
            logger.warning("an engine fails: it is left alone for a while", extra={"replica": target.id})

    def _watch(self, call: Call, slot: Slot, way: Way) -> Watch:
        """What is done now and then while a stream runs."""
        notes = Notes(self._meter, call, slot.target, way) if call.noted else None
        return Watch(call, self._dispatcher, slot, notes)

    def _first_data(self, call: Call, slot: Slot, attempt: Attempt) -> None:
        """An engine began to answer: its window learns how long that took."""
        now_ns = attempt.relay.first_data_ns
        target = slot.target
        if call.streamed:
            # A whole answer comes at its end: how long that took says nothing of waiting.
            took_s = (now_ns - attempt.sent_ns) / 1e9
            target.window.first_token(took_s, target.in_flight, time.monotonic())
            # A start's seconds are none that more engines would save.
            self._first_tokens.note(call.card.id, (now_ns - call.started_ns) / 1e9 - slot.wake_s)


class Attempt:
    """A call at one engine, to be settled exactly once."""

    __slots__ = ("call", "dispatcher", "meter", "relay", "sent_ns", "slot", "way")

    def __init__(
        self,
        meter: Meter,
        dispatcher: Dispatcher,
        call: Call,
        slot: Slot,
        relay: Relay,
        way: Way,
        sent_ns: int,
    ) -> None:
        self.meter = meter
        self.dispatcher = dispatcher
        self.call = call
        self.slot = slot
        self.relay = relay
        self.way = way
        self.sent_ns = sent_ns

    def settle(self, outcome: Outcome, receipt: EngineUsage | None) -> tuple[Outcome, int]:
        """Record the end: how it finally counts, and the cost in nano-dollars; raises MeteringFailed."""
        usage = _usage(self.relay)
        if receipt is not None:
            usage = receipt.with_reasoning_of(usage)
        self.dispatcher.charge(self.slot, usage or NOTHING)
        # No prompt has no tokens: an engine that says so has not counted.
        if outcome is Outcome.DONE and (usage is None or not usage.prompt_tokens):
            logger.error("answer without a token count", extra={"replica": self.slot.target.id})
            outcome = Outcome.ENGINE_FAILED
        begun = isinstance(self.relay, StreamRelay) and self.relay.begun
        end = Settlement(
            outcome,
            200 if begun else STATUSES[outcome],
            usage or NOTHING,
            self.way,
            first_data_ns=self.relay.first_data_ns,
        )
        return outcome, _record(self.meter, self.call, end)


def _record(meter: Meter, call: Call, end: Settlement) -> int:
    """Write the record; its cost in nano-dollars. Raises MeteringFailed."""
    try:
        return meter.settle(call, end).cost_nano_usd
    except JournalError as error:
        logger.exception("usage could not be recorded", extra={"request_id": call.request_id})
        raise MeteringFailed("usage cannot be recorded right now; nothing is billed") from error


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
        last = last_events.credit_ended(attempt.call, receipt or _usage(relay) or NOTHING)
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


def _usage(relay: Relay) -> EngineUsage | None:
    """What the relay read, if it makes sense."""
    try:
        return relay.usage()
    except (ValueError, msgspec.MsgspecError):
        return None
