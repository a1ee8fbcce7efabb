"""The fair queue: a Virtual Token Counter per tenant, whoever had least goes next.

Sheng et al., "Fairness in Serving Large Language Models" (OSDI 2024). Service is counted in weighted tokens
as it is given, divided by the tenant's weight; the waiting tenant with the lowest counter is served next. A
tenant that comes back is lifted to the least of those waiting, so that idle time earns no credit. The
difference in service between two tenants that both wait stays within what may be in flight at once, however
long it lasts.

Each class of urgency counts for itself: what a tenant has of idle engines for work that may wait sets it back
among others whose work may wait, and nowhere else.

Nothing here waits or knows a clock. Counters of other gateways come in through `charge`: being late bends
fairness a little, and money not at all.
"""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Callable
from enum import IntEnum
from typing import Generic, TypeVar

Item = TypeVar("Item")

PROMPT_WEIGHT = 1.0
"""What a prompt token counts."""
CACHED_WEIGHT = 0.1
"""What a prompt token counts that the engine had in its prefix cache."""
OUTPUT_WEIGHT = 2.0
"""What a generated token counts: the paper's own ratio."""

HEAP_SPARE = 64
"""Outdated entries that a heap may carry, beside a few per line."""


class Urgency(IntEnum):
    """Classes of work; a lower one waits for every higher one. The value is vLLM's `priority`."""

    INTERACTIVE = 0
    """Somebody waits for the answer."""
    BATCH = 10
    """It may take its time."""


def service(prompt_tokens: float, cached_tokens: float, output_tokens: float) -> float:
    """Weigh tokens; `cached_tokens` is a part of `prompt_tokens`. The counts are those that are billed."""
    return (
        (prompt_tokens - cached_tokens) * PROMPT_WEIGHT
        + cached_tokens * CACHED_WEIGHT
        + output_tokens * OUTPUT_WEIGHT
    )


class FairQueue(Generic[Item]):
    """Who waits for one model's engines, and who is next."""

    def __init__(self) -> None:
        self._lines: dict[Urgency, Lines[Item]] = {each: Lines() for each in sorted(Urgency)}
        self._size = 0

    def __len__(self) -> int:
        return self._size

    def counter(self, tenant: int, urgency: Urgency = Urgency.INTERACTIVE) -> float:
        """Weighted tokens served to a tenant, per unit of its weight."""
        return self._lines[urgency].counter(tenant)

    def waiting(self, tenant: int) -> int:
        """How many of a tenant's items wait."""
        return sum(lines.waiting(tenant) for lines in self._lines.values())

    def has_room(self, tenant: int, waiting_max: int) -> bool:
        """May a tenant put one more item into a queue that holds `waiting_max` in all?

        A line may be as long as the room that is left (dynamic thresholds: Choudhury and Hahne, 1998): one
        tenant alone fills half of the queue, and the next one always finds room.
        """
        return self.waiting(tenant) < waiting_max - self._size

    def push(
        self, tenant: int, item: Item, *, weight: float = 1.0, urgency: Urgency = Urgency.INTERACTIVE
    ) -> None:
        """Put an item at the end of its tenant's line; weight 2 is served twice as much as weight 1."""
        lines = self._lines[urgency]
        lines.arrive(tenant, weight)
        lines.push(tenant, item)
        self._size += 1

    def pass_by(self, tenant: int, *, weight: float = 1.0, urgency: Urgency = Urgency.INTERACTIVE) -> None:
        """Note one that is served without having waited, as if it had been put in and taken out again."""
        lines = self._lines[urgency]
        lines.arrive(tenant, weight)
        lines.leave(tenant)

    def first(self) -> Item:
        """The next item, which stays; there must be one."""
        return next(lines.first() for lines in self._lines.values() if lines.size)

    def pop(self) -> Item | None:
        """Take the next item: of the most urgent class, of the tenant served least; None when none waits."""
        for lines in self._lines.values():
            if lines.size:
                self._size -= 1
                return lines.pop()
        return None

    def pop_interactive(self, may: Callable[[int], bool]) -> Item | None:
        """Take the next item that somebody waits for, of the tenants that may have one more now."""
        item = self._lines[Urgency.INTERACTIVE].pop_one_of(may)
        self._size -= item is not None
        return item

    def remove(self, tenant: int, item: Item) -> bool:
        """Take an item out that gave up waiting; False when it is not in the queue any more."""
        removed = any(lines.remove(tenant, item) for lines in self._lines.values())
        self._size -= removed
        return removed

    def charge(self, tenant: int, amount: float, urgency: Urgency = Urgency.INTERACTIVE) -> None:
        """Count service given (or, where an estimate was too high, taken back) in weighted tokens."""
        self._lines[urgency].charge(tenant, amount)

    def forget(self, tenants_max: int) -> list[tuple[int, Urgency]]:
        """Drop the counters of idle tenants beyond `tenants_max` of a class, those served least first.

        Says whose. A tenant without a counter begins at the floor; it had more only where it was among the
        last to be served, and then no more than its last requests made of it.
        """
        return [
            (tenant, urgency)
            for urgency, lines in self._lines.items()
            for tenant in lines.forget(tenants_max)
        ]


class Lines(Generic[Item]):
    """One class of work: a line per tenant, and a heap that finds the least counter among them.

    Heap entries are not moved when a counter changes; a newer entry is added, and an older one is passed over
    when it comes up.
    """

    def __init__(self) -> None:
        self.size = 0
        """How many items wait."""
        self._counters: dict[int, float] = {}
        self._weights: dict[int, float] = {}
        self._lines: dict[int, deque[Item]] = {}
        self._heap: list[tuple[float, int]] = []
        self._floor = 0.0
        """The counter of the tenant that was served last: where the next one begins when none waits."""

    def counter(self, tenant: int) -> float:
        """Weighted tokens served to a tenant, per unit of its weight."""
        return self._counters.get(tenant, 0.0)

    def waiting(self, tenant: int) -> int:
        """How many of a tenant's items are in line."""
        return len(self._lines.get(tenant, ()))

    def arrive(self, tenant: int, weight: float) -> None:
        """Note a tenant's weight, and lift its counter where it was away."""
        self._weights[tenant] = weight
        if tenant not in self._lines:
            floor = self._counters[self._first()] if self._lines else self._floor
            self._counters[tenant] = max(self._counters.get(tenant, floor), floor)

    def leave(self, tenant: int) -> None:
        """Note that a tenant is being served."""
        counter = self._counters[tenant]
        self._floor = max(self._floor, counter)

    def push(self, tenant: int, item: Item) -> None:
        """Put an item at the end of the line of a tenant that has arrived."""
        line = self._lines.get(tenant)
        if line is None:
            line = self._lines[tenant] = deque()
            self._note(tenant)
        line.append(item)
        self.size += 1

    def first(self) -> Item:
        """The first item of the tenant with the least counter; there must be one."""
        return self._lines[self._first()][0]

    def pop(self) -> Item:
        """Take the first item of the tenant with the least counter; there must be one."""
        return self._take(self._first())

    def pop_one_of(self, may: Callable[[int], bool]) -> Item | None:
        """Take the first item of the tenant with the least counter among those that may; None without one."""
        eligible = [tenant for tenant in self._lines if may(tenant)]
        return self._take(min(eligible, key=self._counters.__getitem__)) if eligible else None

    def _take(self, tenant: int) -> Item:
        item = self._lines[tenant].popleft()
        self._shrunk(tenant)
        self.leave(tenant)
        return item

    def remove(self, tenant: int, item: Item) -> bool:
        """Take one item out; False when it is not there."""
        try:
            self._lines[tenant].remove(item)
        except (KeyError, ValueError):
            return False
        self._shrunk(tenant)
        return True

    def charge(self, tenant: int, amount: float) -> None:
        """Count service given to a tenant, or taken back."""
        counters = self._counters
        counters[tenant] = counters.get(tenant, self._floor) + amount / self._weights.get(tenant, 1.0)
        if tenant in self._lines:
            self._note(tenant)

    def forget(self, tenants_max: int) -> list[int]:
        """Drop the counters of idle tenants beyond `tenants_max`, those served least first; say whose."""
        spare = len(self._counters) - tenants_max
        if spare <= 0:
            return []
        idle = [tenant for tenant in self._counters if tenant not in self._lines]
        dropped = sorted(idle, key=self._counters.__getitem__)[:spare]
        for tenant in dropped:
            del self._counters[tenant]
            self._weights.pop(tenant, None)
        return dropped

    def _note(self, tenant: int) -> None:
        """Let the heap know of the counter of one in line."""
        heapq.heappush(self._heap, (self._counters[tenant], tenant))
        if len(self._heap) > HEAP_SPARE + 4 * len(self._lines):
            self._heap = [(self._counters[each], each) for each in self._lines]
            heapq.heapify(self._heap)

    def _shrunk(self, tenant: int) -> None:
        self.size -= 1
        if not self._lines[tenant]:
            del self._lines[tenant]

    def _first(self) -> int:
        while True:
            counter, tenant = self._heap[0]
            if tenant in self._lines and self._counters[tenant] == counter:
                return tenant
            heapq.heappop(self._heap)
