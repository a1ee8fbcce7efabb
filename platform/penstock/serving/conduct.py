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

from penstock.admission import room
from penstock.observe import metrics
from penstock.routing import least_load
from penstock.routing.directory import Directory, Target
from penstock.serving import last_events, receipts
from penstock.serving.call import Call, Surface
from penstock.serving.meter import Meter, Settlement
from penstock.serving.notes import Notes
from penstock.serving.relay import Ending, Headers, Patience, Relay, StreamRelay, WholeRelay
from penstock.serving.usage import NOTHING, EngineUsage
from penstock_base import money
from penstock_billing.errors import JournalError
from penstock_billing.record import Outcome
from penstock_engines.client import EngineConnection, EngineGone, post

logger = logging.getLogger(__name__)

ATTEMPTS_MAX = 3
RETRY_AFTER_S = 1
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
CUT_SHORT = frozenset({Ending.CLIENT_GONE, Ending.CREDIT_ENDED})
"""The engine was told to stop, and its receipt says how much it had made until it did."""
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


class Conductor:
    """Runs requests on the engines of a directory."""

    def __init__(self, directory: Directory, meter: Meter, patience: Patience) -> None:
        self._directory = directory
        self._meter = meter
        self._patience = patience

    async def run(self, call: Call, receive: Receive, send: Send, headers: Headers) -> None:
        """Answer the call completely.

        Raises NoEngine, Overloaded, EngineRefused, EngineFailed or MeteringFailed, each before any byte.
        """
        try:
            await self._run(call, receive, send, headers)
        finally:
            call.charge.close()

    async def _run(self, call: Call, receive: Receive, send: Send, headers: Headers) -> None:
        request = post(
            call.surface.engine_path, call.body, b"x-request-id: %b\r\n" % call.request_id.encode()
        )
        tried: list[Target] = []
        in_flight = metrics.model_figures(call.card.id).in_flight
        while True:
            target = self._choose(call, tried)
            if target is None:
                self._give_up(call, tried[-1])
            target.in_flight += 1
            in_flight.inc()
            try:
                if await self._run_at(target, call, request, receive, send, headers):
                    return
            except EngineGone as gone:
                logger.warning(
                    "engine unreachable", extra={"replica": target.registered.id, "reason": str(gone)}
                )
            finally:
                target.in_flight -= 1
                in_flight.dec()
            tried.append(target)

    def _choose(self, call: Call, tried: list[Target]) -> Target | None:
        """Choose an engine with room that was not tried yet; None when trying on makes no sense."""
        if len(tried) >= ATTEMPTS_MAX:
            return None
        ready = self._directory.ready(call.card.id)
        open_targets = [t for t in ready if room.has_room(t.in_flight, t.registered.batch_max)]
        if not open_targets and not tried:
            raise room.Overloaded(call.card.id, RETRY_AFTER_S)
        return least_load.choose(open_targets, tried)

    def _give_up(self, call: Call, last: Target) -> NoReturn:
        """Record that no engine answered: a request that reached one ends in a record, however it ends."""
        lost = Settlement(
            Outcome.ENGINE_FAILED, 502, NOTHING, replica=last.registered.id, queue_us=0, first_data_ns=0
        )
        _record(self._meter, call, lost)
        raise EngineFailed("no engine answered; nothing was billed, try again")

    async def _run_at(
        self, target: Target, call: Call, request: bytes, receive: Receive, send: Send, headers: Headers
    ) -> bool:
        """Run the call at one engine; False when it never answered and another may be tried."""
        kept = target.address.idle()
        if kept is not None and await self._run_on(kept, target, call, request, receive, send, headers):
            return True
        # The engine may have closed a kept connection just then; a new one tells whether it is there.
        fresh = await target.address.connect()
        return await self._run_on(fresh, target, call, request, receive, send, headers)

    async def _run_on(
        self,
        connection: EngineConnection,
        target: Target,
        call: Call,
        request: bytes,
        receive: Receive,
        send: Send,
        headers: Headers,
    ) -> bool:
        """Run the call on one connection; False when no byte of an answer came."""
        watch = self._watch(call, target) if call.streamed else None
        relay = (
            StreamRelay(connection, self._patience, call, send, headers, watch)
            if call.streamed
            else WholeRelay(connection, self._patience)
        )
        attempt = Attempt(self._meter, call, target, relay)
        connection.send(request, relay)
        # Until the relay tells how it ended, a cancellation is the server giving up waiting for us.
        outcome, usage = Outcome.SHUTDOWN, None
        try:
            ending = await relay.run(receive)
            if ending is Ending.UNREACHED:
                return False
            if ending is Ending.REFUSED:
                raise EngineRefused(call.surface, relay.status, b"".join(relay.body))
            outcome = OUTCOMES[ending]
            if watch is not None and watch.receipt is not None:
                usage = await watch.receipt
            elif ending in CUT_SHORT:
                usage = await receipts.fetch(target.address, call.request_id)
        except asyncio.CancelledError:
            attempt.settle(outcome, usage)
            raise
        if isinstance(relay, StreamRelay):
            await _end_stream(attempt, relay, outcome, usage, send)
        else:
            await _end_whole(attempt, outcome, usage, send, headers)
        return True

    def _watch(self, call: Call, target: Target) -> Watch | None:
        """What is done now and then while a stream runs, where there is anything to do."""
        notes = Notes(self._meter, call, target) if call.noted else None
        return Watch(call, target, notes) if notes is not None or call.charge.elastic else None


class Watch:
    """A stream's checkpoint: what it has used is noted, and its credit asked whether it may go on."""

    __slots__ = ("_call", "_notes", "_target", "receipt")

    def __init__(self, call: Call, target: Target, notes: Notes | None) -> None:
        self._call = call
        self._target = target
        self._notes = notes
        self.receipt: asyncio.Task[EngineUsage | None] | None = None
        """Asked for as soon as the credit has ended: a slow client may take longer than it is kept."""

    def __call__(self, usage: EngineUsage) -> bool:
        """Whether to go on."""
        if self._notes is not None:
            self._notes(usage)
        if self._call.charge.go_on(usage.prompt_tokens, usage.cached_tokens, usage.output_tokens):
            return True
        fetching = receipts.fetch(self._target.address, self._call.request_id)
        self.receipt = asyncio.get_running_loop().create_task(fetching)
        return False


class Attempt:
    """A call at one engine, to be settled exactly once."""

    __slots__ = ("call", "meter", "queue_us", "relay", "target")

    def __init__(self, meter: Meter, call: Call, target: Target, relay: Relay) -> None:
        self.meter = meter
        self.call = call
        self.target = target
        self.relay = relay
        self.queue_us = (time.perf_counter_ns() - call.started_ns) // 1000

    def settle(self, outcome: Outcome, receipt: EngineUsage | None) -> tuple[Outcome, int]:
        """Record the end: how it finally counts, and the cost in nano-dollars; raises MeteringFailed."""
        usage = _usage(self.relay)
        if receipt is not None:
            usage = receipt.with_reasoning_of(usage)
        # No prompt has no tokens: an engine that says so has not counted.
        if outcome is Outcome.DONE and (usage is None or not usage.prompt_tokens):
            logger.error("answer without a token count", extra={"replica": self.target.registered.id})
            outcome = Outcome.ENGINE_FAILED
        begun = isinstance(self.relay, StreamRelay) and self.relay.begun
        end = Settlement(
            outcome,
            200 if begun else STATUSES[outcome],
            usage or NOTHING,
            replica=self.target.registered.id,
            queue_us=self.queue_us,
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
