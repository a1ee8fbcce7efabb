"""Conducting one request: choose an engine, run it there, relay the answer, meter it, settle.

Everything that can go wrong before the first byte is an error for the edge to put into words, or is tried at
another engine; after it, the stream itself says so. On every way out there is exactly one settlement.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import defaultdict

import msgspec
from litestar.types import Receive, Send

from penstock.observe import metrics
from penstock.routing.directory import Target
from penstock.serving import attempt as attempts
from penstock.serving import receipts
from penstock.serving import way as ways
from penstock.serving.attempt import OUTCOMES, OWN_ERROR, Attempt, EngineFailed, Failed
from penstock.serving.call import Call
from penstock.serving.dispatch import Dispatcher
from penstock.serving.hedging import Budget, Race
from penstock.serving.load import FirstTokens
from penstock.serving.meter import Meter, Settlement
from penstock.serving.notes import Notes
from penstock.serving.opening import Opening
from penstock.serving.relay import Ending, Headers, Patience, StreamRelay, WholeRelay
from penstock.serving.tickets import ClientGone, NotServed, Slot, Ticket
from penstock.serving.usage import NOTHING
from penstock.serving.watch import Watch
from penstock.serving.way import Way
from penstock_billing.record import Outcome
from penstock_engines.adapter_names import NAME_HEADER
from penstock_engines.client import EngineConnection, EngineGone, post

logger = logging.getLogger(__name__)

ATTEMPTS_MAX = 3
"""Engines that a request may fail at: it may be what they fail of."""
BYTES_PER_TOKEN = 4
"""Of a request's body, roughly: what it is counted as in the queue until the engine has counted."""

CUT_SHORT = frozenset({Ending.CLIENT_GONE, Ending.CREDIT_ENDED})
"""The engine was told to stop, and its receipt says how much it had made until it did."""
NOBODY_THERE = (ConnectionRefusedError, FileNotFoundError)
"""Of an engine's socket: its process is gone. Other errors may be those of a busy moment."""


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
        self._budgets: defaultdict[str, Budget] = defaultdict(Budget)

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
        failures: list[Failed] = []
        while True:
            in_flight.inc()
            try:
                failed = await self._run_at(slot, call, request, receive, send, headers, opening)
            finally:
                self._dispatcher.release(slot)
                in_flight.dec()
            if failed is None:
                for earlier in failures:
                    if earlier.doubted:
                        self._failed(earlier.target)
                return
            failures.append(failed)
            again = await self._again(slot, failures, receive)
            if again is None:
                await failed.give_up()
                return
            slot = again

    async def _again(self, slot: Slot, failures: list[Failed], receive: Receive) -> Slot | None:
        """Another engine for a call whose client has no byte yet; None where it is to be given up."""
        failed = failures[-1]
        logger.warning(
            "a request is tried elsewhere if it can be",
            extra={"replica": failed.target.id, "reason": failed.ending.value},
        )
        if len(failures) >= ATTEMPTS_MAX:
            return None
        slot.ticket.tried.append(failed.target)
        if (again := self._dispatcher.retry(slot)) is not None or not failed.lost:
            return again
        try:
            return await self._dispatcher.wait_again(slot, receive)
        except (NotServed, ClientGone):
            return None

    async def _run_at(
        self,
        slot: Slot,
        call: Call,
        request: bytes,
        receive: Receive,
        send: Send,
        headers: Headers,
        opening: Opening,
    ) -> Failed | None:
        """Run the call at one engine; None when it is over."""
        address = slot.target.address
        kept = address.idle()
        if kept is not None:
            failed = await self._run_on(kept, slot, call, request, receive, send, headers, opening)
            if failed is None or failed.ending is not Ending.UNREACHED:
                return failed
        # The engine may have closed a kept connection just then; a new one tells whether it is there.
        try:
            fresh = await address.connect()
        except EngineGone as gone:
            logger.warning("engine unreachable", extra={"replica": slot.target.id, "reason": str(gone)})
            self._failed(slot.target, surely=isinstance(gone.__cause__, NOBODY_THERE))
            return self._unreached(call, slot, opening)
        failed = await self._run_on(fresh, slot, call, request, receive, send, headers, opening)
        if failed is not None and failed.ending is Ending.UNREACHED:
            self._failed(slot.target)
        return failed

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
    ) -> Failed | None:
        """Run the call on one connection; None when it is over."""
        attempt = self._send(connection, slot, call, request, send, headers, opening)
        race = None
        if slot.hedge_after_s is not None and call.streamed:
            race = self._race(attempt, slot.hedge_after_s, request, send, headers, opening)
        # Until the relay tells how it ended, a cancellation is the server giving up waiting for us.
        outcome, usage = Outcome.SHUTDOWN, None
        try:
            ending = await (attempt.relay.run(receive) if race is None else race.run(receive))
            attempt = attempt if race is None else race.ahead
            relay, target = attempt.relay, attempt.slot.target
            if ending is Ending.UNREACHED:
                return self._unreached(call, attempt.slot, opening)
            self._judge(attempt, ending)
            if ending is Ending.REFUSED:
                if not attempt.failed_early(ending):
                    await attempt.refuse()
                doubted = relay.status == OWN_ERROR
                return Failed(target, ending, lost=False, give_up=attempt.refuse, doubted=doubted)
            outcome = OUTCOMES[ending]
            if attempt.watch is not None and attempt.watch.receipt is not None:
                usage = await attempt.watch.receipt
            elif ending in CUT_SHORT:
                usage = await receipts.fetch(target.address, call.request_id)
        except asyncio.CancelledError:
            attempt = attempt if race is None else race.ahead
            attempt.slot.target.breaker.undecided()
            attempt.settle(outcome, usage)
            raise
        finally:
            if race is not None and race.ahead.slot is not slot:
                self._dispatcher.release(race.ahead.slot)

        async def conclude() -> None:
            if isinstance(relay, StreamRelay):
                relay.begun |= opening.begun
            await attempts.end(attempt, outcome, usage, send, headers)

        if attempt.failed_early(ending):
            return Failed(target, ending, lost=relay.lost, give_up=conclude, doubted=not relay.lost)
        await conclude()
        return None

    def _send(
        self,
        connection: EngineConnection,
        slot: Slot,
        call: Call,
        request: bytes,
        send: Send,
        headers: Headers,
        opening: Opening,
    ) -> Attempt:
        """Send the call to an engine."""
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
        attempt = Attempt(self._meter, self._dispatcher, call, slot, relay, watch, way, sent_ns)
        relay.on_first_data = lambda: self._first_data(attempt)
        connection.send(request, relay)
        if not call.streamed:
            # Nothing tells when the prompt of a whole answer was read: as long as others take, it counts.
            usual_s = slot.target.usual_first_s
            asyncio.get_running_loop().call_later(usual_s, self._dispatcher.read, slot)
        return attempt

    def _race(
        self,
        first: Attempt,
        after_s: float,
        request: bytes,
        send: Send,
        headers: Headers,
        opening: Opening,
    ) -> Race:
        """Have a second engine asked too, should the first be late."""

        async def second(attempt: Attempt) -> Attempt | None:
            slot = self._dispatcher.beside(attempt.slot)
            if slot is None:
                return None
            try:
                connection = await slot.target.address.connect()
            except EngineGone as gone:
                self._failed(slot.target, surely=isinstance(gone.__cause__, NOBODY_THERE))
                connection = None
            except BaseException:
                self._dispatcher.give_back(slot)
                raise
            if connection is None or attempt.relay.ended or attempt.relay.first_data_ns:
                self._dispatcher.give_back(slot)
                return None
            attempt.way = msgspec.structs.replace(attempt.way, hedged=True)
            return self._send(connection, slot, attempt.call, request, send, headers, opening)

        def dropped(attempt: Attempt, ending: Ending) -> None:
            self._judge(attempt, ending)
            if ending is not Ending.OUTRUN:
                attempt.slot.ticket.tried.append(attempt.slot.target)

        budget = self._budgets[first.call.card.id]
        return Race(first, after_s, budget, second, dropped)

    def _unreached(self, call: Call, slot: Slot, opening: Opening) -> Failed:
        """No byte of an answer came."""

        async def give_up() -> None:
            # A request that reached an engine ends in a record, however it ends.
            way = ways.of(call, slot, time.perf_counter_ns())
            status = 200 if opening.begun else 502
            lost = Settlement(Outcome.ENGINE_FAILED, status, NOTHING, way, first_data_ns=0)
            attempts.record(self._meter, call, lost)
            raise EngineFailed("no engine answered; nothing was billed, try again")

        return Failed(slot.target, Ending.UNREACHED, lost=True, give_up=give_up)

    def _judge(self, attempt: Attempt, ending: Ending) -> None:
        """Tell an engine's breaker what an ending says of it."""
        target = attempt.slot.target
        if ending is Ending.FINISHED:
            target.breaker.worked()
        elif self._at_fault(attempt, ending):
            self._failed(target)
        else:
            target.breaker.undecided()

    def _at_fault(self, attempt: Attempt, ending: Ending) -> bool:
        """Whether an ending is the engine's fault, whatever the request was."""
        relay = attempt.relay
        if ending is Ending.REFUSED:
            return relay.status in attempts.BUSY
        if ending is Ending.BROKEN:
            return attempt.wrote or relay.lost
        if ending is Ending.CLIENT_GONE and attempt.call.streamed and not relay.first_data_ns:
            # Clients lose patience before we do: with one that waited so long in vain, we did.
            return (time.perf_counter_ns() - attempt.sent_ns) / 1e9 >= self._patience.stall_s
        return ending in {Ending.STALLED, Ending.UNREACHED}

    def _failed(self, target: Target, *, surely: bool = False) -> None:
        """Count an engine's failure."""
        if target.breaker.failed(time.monotonic(), surely=surely):
            metrics.BREAKERS_OPENED.labels(target.registered.model).inc()
            logger.warning("an engine fails: it is left alone for a while", extra={"replica": target.id})

    def _watch(self, call: Call, slot: Slot, way: Way) -> Watch:
        """What is done now and then while a stream runs."""
        notes = Notes(self._meter, call, slot.target, way) if call.noted else None
        return Watch(call, self._dispatcher, slot, notes)

    def _first_data(self, attempt: Attempt) -> None:
        """An engine began to answer: its window learns how long that took."""
        now_ns = attempt.relay.first_data_ns
        call, target = attempt.call, attempt.slot.target
        if call.streamed:
            # A whole answer comes at its end: how long that took says nothing of waiting.
            took_s = (now_ns - attempt.sent_ns) / 1e9
            target.first_token(took_s, time.monotonic())
            self._dispatcher.read(attempt.slot)
            # A start's seconds are none that more engines would save.
            waited_s = (now_ns - call.started_ns) / 1e9 - attempt.slot.wake_s
            self._first_tokens.note(call.card.id, waited_s)
