"""Sending requests to engines: at once where there is room, else in fair turn, refused when too many wait.

The queue of a model is here, in every gateway, where it is fair between tenants; what is at an engine is
bounded by a window that keeps first tokens quick. The last places are for tenants that have few: a newcomer
begins at once, however much another one floods. A request that waits is one future and one entry: it costs
nothing until it is its turn, its client leaves, or it has waited long enough.
"""

from __future__ import annotations

import asyncio
import random
from collections import defaultdict
from collections.abc import Awaitable, Callable
from typing import Any

from litestar.types import Receive

from penstock.admission import fair_queue
from penstock.admission.fair_queue import FairQueue, Urgency
from penstock.admission.shared_counters import SharedCounters
from penstock.routing import affinity
from penstock.routing.directory import Directory, Standing, Target
from penstock.routing.policies import POLICIES
from penstock.serving.tickets import ClientGone, NotServed, QueueFull, Slot, Ticket
from penstock.serving.usage import NOTHING, EngineUsage

TENANTS_MAX = 10_000
"""Counters of idle tenants kept per model."""
SHARED_KEEP_S = 600
"""A tenant that no gateway serves for so long starts anew; it would be lifted to the others anyhow."""
RESERVE = 8
"""One place in so many is kept for interactive requests of tenants that have fewer than are kept."""
RESERVE_FROM = 8
"""Pools with fewer places keep none; with so many, one."""
TELL_EVERY_S = 2.0
"""Between two words to a client that wants to see that it waits."""
ADAPTER_AFFINITY = "adapter_affinity"
"""How requests for adapters find their engine, whatever the pool's policy is."""
PACE_TOKENS = 384
"""Unread prompt tokens that an engine is sent at once while tenants share it; a longer prompt goes alone."""
SHARED_FOR_S = 10.0
"""How long a model counts as shared after two tenants had places one after the other."""
HOPELESS = {"gone", "off", "unknown"}
"""Standings of a model that waiting does not change."""


class Dispatcher:
    """The queues of one gateway, by model."""

    def __init__(
        self,
        directory: Directory,
        counters: SharedCounters,
        *,
        wanted: Callable[[str], None],
        clock: Callable[[], float],
        dice: random.Random,
    ) -> None:
        """`wanted` is told of a model that somebody waits for and no engine serves."""
        self._directory = directory
        self._counters = counters
        self._shared: dict[tuple[str, int, Urgency], str] = {}
        """Whose service is followed over all gateways, and what it is called there."""
        self._wanted = wanted
        self._clock = clock
        self._dice = dice
        self._queues: defaultdict[str, FairQueue[Ticket]] = defaultdict(FairQueue)
        self._held: dict[tuple[str, int], int] = {}
        """Places that a tenant has at a model's engines."""
        self._last: dict[str, int] = {}
        """The tenant that had the latest place at a model's engines."""
        self._shared_at_s: dict[str, float] = {}
        """When a model's latest place went to another tenant than the one before."""
        self._waiting_tokens: dict[str, float] = {}
        self._asked_at_s: dict[str, float] = {}
        self._asleep: set[str] = set()
        """Models that somebody waits for and no engine is ready of, as far as was seen."""
        self._woken_s: dict[str, float] = {}
        """When such a model had an engine again."""

    def waiting(self, model: str) -> tuple[int, float]:
        """How many requests for a model wait here, and their weighted tokens as far as they are known."""
        queue = self._queues.get(model)
        return (len(queue), self._waiting_tokens.get(model, 0.0)) if queue is not None else (0, 0.0)

    def asked_at(self, model: str) -> float | None:
        """When, by the clock handed in, the model was last asked for here."""
        return self._asked_at_s.get(model)

    @property
    def models(self) -> list[str]:
        """The models that were asked for here."""
        return list(self._asked_at_s)

    async def acquire(self, ticket: Ticket, receive: Receive) -> Slot:
        """Get a place at an engine, in fair turn.

        Raises QueueFull at once when too many wait, NotServed when no engine comes, and ClientGone when the
        client leaves first.
        """
        queue = self._queues[ticket.model]
        self._asked_at_s[ticket.model] = self._clock()
        if not len(queue) and (candidates := self._open_to(ticket)):
            queue.pass_by(ticket.tenant, weight=ticket.weight, urgency=ticket.urgency)
            return self._seat(ticket, candidates)
        settings = self._directory.settings(ticket.model)
        if not queue.has_room(ticket.tenant, settings.waiting_max):
            waiting = queue.waiting(ticket.tenant)
            raise QueueFull(
                ticket.model, f"{waiting} requests of yours and {len(queue)} in all wait already", 1
            )
        return await self._turn(ticket, receive, settings.wait_max_s)

    def retry(self, slot: Slot) -> Slot | None:
        """Get a place at an engine that has not failed the request, which its ticket tells; now or never."""
        self.charge(slot, NOTHING)
        tried = slot.ticket.tried
        candidates = [target for target in self._open(slot.ticket.model) if target not in tried]
        return _after(slot, self._seat(slot.ticket, candidates)) if candidates else None

    def beside(self, slot: Slot) -> Slot | None:
        """Get a place at a second engine for a request; None where others wait or none has room."""
        ticket = slot.ticket
        candidates, spare, _ = self._room(ticket.model, ticket.tokens)
        if spare <= 0 or len(self._queues[ticket.model]):
            return None
        candidates = [
            each
            for each in candidates
            if each is not slot.target and each not in ticket.tried and not each.breaker.opened
        ]
        if not candidates:
            return None
        second = self._seat(ticket, candidates)
        second.waited_s, second.wake_s, second.retries = slot.waited_s, slot.wake_s, slot.retries
        second.hedges = True
        return second

    async def wait_again(self, slot: Slot, receive: Receive) -> Slot:
        """Wait for a place once more, for a request whose engine was lost and that no other has room for.

        What it waited before counts. Raises NotServed and ClientGone, as `acquire`.
        """
        model = slot.ticket.model
        left_s = self._directory.settings(model).wait_max_s - slot.waited_s
        if left_s <= 0:
            raise NotServed(model, slot.waited_s, self._directory.standing(model))
        return _after(slot, await self._turn(slot.ticket, receive, left_s))

    def read(self, slot: Slot) -> None:
        """Note that an engine has read a request's prompt: the next one may go there."""
        if slot.unread:
            slot.mark_read()
            self.fill(slot.ticket.model)

    def charge(self, slot: Slot, usage: EngineUsage) -> None:
        """Count what a request has taken so far, as the engine counts it: the counts that are billed."""
        taken = fair_queue.service(usage.prompt_tokens, usage.cached_tokens, usage.output_tokens)
        if taken != slot.charged:
            self._serve(slot.ticket, taken - slot.charged)
            slot.charged = taken

    def release(self, slot: Slot) -> None:
        """Give the place back; whoever is next takes it."""
        if slot.released:
            return
        slot.released = True
        slot.target.leave(slot.ticket.tokens)
        slot.mark_read()
        whose = (slot.ticket.model, slot.ticket.tenant)
        if left := self._held.pop(whose) - 1:
            self._held[whose] = left
        self.fill(slot.ticket.model)

    def give_back(self, slot: Slot) -> None:
        """Give a place back that was of no use: what it would have taken is not counted."""
        self.charge(slot, NOTHING)
        self.release(slot)

    def fill(self, model: str) -> None:
        """Send those who wait, as far as there is room: called when there may be more of it."""
        queue = self._queues[model]
        while len(queue):
            if model in self._asleep and self._directory.has_ready(model):
                self._asleep.discard(model)
                self._woken_s[model] = self._clock()
            candidates, spare, reserve = self._room(model, queue.first().tokens)
            if not candidates:
                return
            ticket = queue.pop() if spare > 0 else queue.pop_interactive(self._has_few(model, reserve))
            if ticket is None:
                return
            if ticket.turn is None or ticket.turn.done():
                continue
            ticket.turn.set_result(self._seat(ticket, candidates))

    def fill_all(self) -> None:
        """The same for every model: engines came, or windows grew."""
        for model, queue in self._queues.items():
            self.fill(model)
            for tenant, urgency in queue.forget(TENANTS_MAX):
                self._counters.forget(self._shared.pop((model, tenant, urgency), ""))

    def _serve(self, ticket: Ticket, amount: float) -> None:
        """Count service given here, and let the other gateways know; theirs counts here as it is heard of."""
        model, tenant, urgency = ticket.model, ticket.tenant, ticket.urgency
        queue = self._queues[model]
        queue.charge(tenant, amount, urgency)
        name = self._shared.get((model, tenant, urgency))
        if name is None:
            name = self._shared[model, tenant, urgency] = f"service:{model}:{urgency.name}:{tenant}"
            self._counters.watch(name, lambda others: queue.charge(tenant, others, urgency))
        # What was served matters elsewhere as soon as somebody waits there: that is pressing, and asked then.
        self._counters.add(name, amount, SHARED_KEEP_S, pressing=len(queue) > 0)

    def _look(self, ticket: Ticket) -> None:
        """Ask what other gateways gave a tenant that waits here: its turn depends on it."""
        name = self._shared.get((ticket.model, ticket.tenant, ticket.urgency))
        if name is not None:
            self._counters.look(name)

    def _open(self, model: str) -> list[Target]:
        """The engines that may have one more request now."""
        now_s = self._clock()
        return [target for target in self._directory.targets(model) if target.open(now_s)]

    def _room(self, model: str, tokens: float) -> tuple[list[Target], int, int]:
        """The engines that may have one more request, how many places all may take, and how many are kept.

        The request's prompt has `tokens`: while tenants share the model, an engine that has others to read
        is for those who have few, so that a newcomer's prompt is read in the next step but one at worst.
        """
        now_s, candidates, free, places = self._clock(), [], 0, 0
        for target in self._directory.targets(model):
            if target.ready:
                places += target.window.size
                if target.open(now_s):
                    candidates.append(target)
                    free += target.window.size - target.in_flight
        reserve = max(1, places // RESERVE) if places >= RESERVE_FROM else 0
        if now_s - self._shared_at_s.get(model, -SHARED_FOR_S) < SHARED_FOR_S:
            calm = [each for each in candidates if _reads_soon(each, tokens)]
            if not calm:
                return candidates, 0, max(1, reserve)
            candidates = calm
        return candidates, free - reserve, reserve

    def _open_to(self, ticket: Ticket) -> list[Target]:
        """The engines that may have this request now; the last places are for those who have few."""
        candidates, spare, reserve = self._room(ticket.model, ticket.tokens)
        if spare > 0:
            return candidates
        few = ticket.urgency is Urgency.INTERACTIVE and self._has_few(ticket.model, reserve)(ticket.tenant)
        return candidates if few else []

    def _has_few(self, model: str, reserve: int) -> Callable[[int], bool]:
        """Which tenants may take the places that are kept."""
        return lambda tenant: self._held.get((model, tenant), 0) < reserve

    def _seat(self, ticket: Ticket, candidates: list[Target]) -> Slot:
        """Take a place, and let the tenant's counter rise by what the request will surely take."""
        settings = self._directory.settings(ticket.model)
        name, choose = settings.policy.value, POLICIES[settings.policy]
        if ticket.hint.adapter is not None:
            name, choose = ADAPTER_AFFINITY, affinity.by_adapter
        if ticket.tried:
            candidates = [each for each in candidates if each not in ticket.tried] or candidates
        target = candidates[0] if len(candidates) == 1 else choose(candidates, ticket.hint, self._dice)
        target.enter(ticket.tokens)
        target.unread_tokens += ticket.tokens
        if self._last.get(ticket.model, ticket.tenant) != ticket.tenant:
            self._shared_at_s[ticket.model] = self._clock()
        self._last[ticket.model] = ticket.tenant
        whose = (ticket.model, ticket.tenant)
        self._held[whose] = self._held.get(whose, 0) + 1
        self._serve(ticket, ticket.tokens)
        count, after_s = len(candidates), settings.hedge_after_s
        return Slot(ticket, target, ticket.tokens, name, count, hedge_after_s=after_s)

    async def _turn(self, ticket: Ticket, receive: Receive, wait_max_s: float) -> Slot:
        """Wait for the turn, and know afterwards how long it took, and how much of it to wake the model."""
        began_s = self._clock()
        waking = not self._directory.has_ready(ticket.model)
        if waking:
            standing = self._directory.standing(ticket.model)
            if standing.state in HOPELESS:
                raise NotServed(ticket.model, 0, standing)
            self._asleep.add(ticket.model)
            self._wanted(ticket.model)
        slot = await self._wait(ticket, receive, wait_max_s)
        now_s = self._clock()
        slot.waited_s = now_s - began_s
        if waking:
            slot.wake_s = min(max(self._woken_s.get(ticket.model, now_s) - began_s, 0.0), slot.waited_s)
        return slot

    async def _wait(self, ticket: Ticket, receive: Receive, wait_max_s: float) -> Slot:
        """Wait for the turn; whatever else happens first, the ticket is out of the queue afterwards."""
        queue = self._queues[ticket.model]
        turn: asyncio.Future[Slot] = asyncio.get_running_loop().create_future()
        ticket.turn = turn
        queue.push(ticket.tenant, ticket, weight=ticket.weight, urgency=ticket.urgency)
        self._waiting_tokens[ticket.model] = self._waiting_tokens.get(ticket.model, 0.0) + ticket.tokens
        self._look(ticket)
        # There may be room that it alone may take, or that nobody was told of: windows grow, breakers close.
        self.fill(ticket.model)
        left = asyncio.ensure_future(_until_gone(receive))
        try:
            either: set[asyncio.Future[Any]] = {turn, left}
            if ticket.tell is None:
                await asyncio.wait(either, timeout=wait_max_s, return_when=asyncio.FIRST_COMPLETED)
            else:
                await self._wait_telling(ticket, ticket.tell, either, wait_max_s)
            if left.done():
                raise ClientGone
            if not turn.done():
                raise NotServed(ticket.model, wait_max_s, self._directory.standing(ticket.model))
        except BaseException:
            if turn.done():
                self.give_back(turn.result())
            else:
                turn.cancel()
                queue.remove(ticket.tenant, ticket)
            raise
        finally:
            self._waiting_tokens[ticket.model] -= ticket.tokens
            left.cancel()
        return turn.result()

    async def _wait_telling(
        self,
        ticket: Ticket,
        tell: Callable[[float, Standing], Awaitable[None]],
        either: set[asyncio.Future[Any]],
        wait_max_s: float,
    ) -> None:
        """Wait for either, and let the client see meanwhile that it waits."""
        loop = asyncio.get_running_loop()
        began_s = loop.time()
        while (rest_s := began_s + wait_max_s - loop.time()) > 0:
            within_s = min(TELL_EVERY_S, rest_s)
            done, _ = await asyncio.wait(either, timeout=within_s, return_when=asyncio.FIRST_COMPLETED)
            if done:
                return
            await tell(loop.time() - began_s, self._directory.standing(ticket.model))


def _reads_soon(target: Target, tokens: float) -> bool:
    """Whether an engine may be sent a prompt of so many tokens beside those that it has not read."""
    return target.unread_tokens < 1 or target.unread_tokens + tokens <= PACE_TOKENS


def _after(slot: Slot, again: Slot) -> Slot:
    """Let a request's next place know of the time before it."""
    again.waited_s += slot.waited_s
    again.wake_s += slot.wake_s
    again.retries = slot.retries + 1
    return again


async def _until_gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
