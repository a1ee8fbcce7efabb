"""The fair queue: a Virtual Token Counter per tenant, whoever had least goes next.

Sheng et al., "Fairness in Serving Large Language Models" (OSDI 2024). Service is counted in weighted tokens
as it is given, divided by the tenant's weight; the waiting tenant with the lowest counter is served next. A
tenant that comes back is lifted to the least of those waiting, so that idle time earns no credit. The
difference in service between two tenants that both wait stays within what may be in flight at once, however
long it lasts.

Nothing here waits or knows a clock. Counters of other gateways come in through `charge`: being late bends
fairness a little, and money not at all.
"""

from __future__ import annotations

import heapq
from collections import deque
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
        self._counters: dict[int, float] = {}
        self._weights: dict[int, float] = {}
        self._lines: dict[Urgency, Lines[Item]] = {each: Lines(self._counters) for each in sorted(Urgency)}
        self._floor = 0.0
        """The counter of the tenant that left the queue last: where the next one begins when none waits."""

    def __len__(self) -> int:
        return sum(len(lines) for lines in self._lines.values())

    def counter(self, tenant: int) -> float:
        """Weighted tokens served to a tenant, per unit of its weight."""
        return self._counters.get(tenant, 0.0)

    def waiting(self, tenant: int) -> int:
        """How many of a tenant's items wait."""
        return sum(lines.waiting(tenant) for lines in self._lines.values())

    def has_room(self, tenant: int, waiting_max: int) -> bool:
        """May a tenant put one more item into a queue that holds `waiting_max` in all?

        A line may be as long as the room that is left (dynamic thresholds: Choudhury and Hahne, 1998): one
        tenant alone fills half of the queue, and the next one always finds room.
        """
        return self.waiting(tenant) < waiting_max - len(self)

    def push(
        self, tenant: int, item: Item, *, weight: float = 1.0, urgency: Urgency = Urgency.INTERACTIVE
    ) -> None:
        """Put an item at the end of its tenant's line; weight 2 is served twice as much as weight 1."""
        self.arrive(tenant, weight=weight)
        self._lines[urgency].push(tenant, item)

    def arrive(self, tenant: int, *, weight: float = 1.0) -> None:
        """Note a tenant's weight, and lift its counter where it was away: one that is served at once, too."""
        self._weights[tenant] = weight
        if not self.waiting(tenant):
            least = [lines.least() for lines in self._lines.values() if len(lines)]
            floor = min(least, default=self._floor)
            self._counters[tenant] = max(self.counter(tenant), floor)

    def pop(self) -> Item | None:
        """Take the next item: of the most urgent class, of the tenant served least; None when none waits."""
        for lines in self._lines.values():
            if len(lines):
                tenant, item = lines.pop()
                self._floor = max(self._floor, self.counter(tenant))
                return item
        return None

    def remove(self, tenant: int, item: Item) -> bool:
        """Take an item out that gave up waiting; False when it is not in the queue any more."""
        return any(lines.remove(tenant, item) for lines in self._lines.values())

    def charge(self, tenant: int, amount: float) -> None:
        """Count service given (or, where an estimate was too high, taken back) in weighted tokens."""
        self._counters[tenant] = self.counter(tenant) + amount / self._weights.get(tenant, 1.0)
        for lines in self._lines.values():
            lines.note(tenant)

    def forget(self, tenants_max: int) -> list[int]:
        """Drop the counters of idle tenants beyond `tenants_max`, those served least first; say whose.

        They lose nothing: a tenant without a counter begins at the floor, which is no lower than what it had.
        """
        idle = [tenant for tenant in self._counters if not self.waiting(tenant)]
        dropped = sorted(idle, key=self.counter)[: max(0, len(self._counters) - tenants_max)]
        for tenant in dropped:
            del self._counters[tenant]
            self._weights.pop(tenant, None)
        return dropped


class Lines(Generic[Item]):
    """One class of work: a line per tenant, and a heap that finds the least counter among them.

    Heap entries are not moved when a counter changes; a newer entry is added, and an older one is passed over
    when it comes up.
    """

    def __init__(self, counters: dict[int, float]) -> None:
        """`counters` are the queue's own, looked at whenever they matter."""
        self._counters = counters
        self._lines: dict[int, deque[Item]] = {}
        self._heap: list[tuple[float, int]] = []
        self._size = 0

    def __len__(self) -> int:
        return self._size

    def waiting(self, tenant: int) -> int:
        """How many of a tenant's items are in line."""
        return len(self._lines.get(tenant, ()))

    def push(self, tenant: int, item: Item) -> None:
        """Put an item at the end of its tenant's line."""
        line = self._lines.get(tenant)
        if line is None:
            line = self._lines[tenant] = deque()
            heapq.heappush(self._heap, (self._counters[tenant], tenant))
        line.append(item)
        self._size += 1

    def note(self, tenant: int) -> None:
        """A counter changed."""
        if tenant not in self._lines:
            return
        heapq.heappush(self._heap, (self._counters[tenant], tenant))
        if len(self._heap) > HEAP_SPARE + 4 * len(self._lines):
            self._heap = [(self._counters[each], each) for each in self._lines]
            heapq.heapify(self._heap)

    def least(self) -> float:
        """The least counter of those in line; there must be one."""
        return self._counters[self._first()]

    def pop(self) -> tuple[int, Item]:
        """Take the first item of the tenant with the least counter."""
        tenant = self._first()
        item = self._lines[tenant].popleft()
        self._shrunk(tenant)
        return tenant, item

    def remove(self, tenant: int, item: Item) -> bool:
        """Take one item out; False when it is not there."""
        try:
            self._lines[tenant].remove(item)
        except (KeyError, ValueError):
            return False
        self._shrunk(tenant)
        return True

    def _shrunk(self, tenant: int) -> None:
        self._size -= 1
        if not self._lines[tenant]:
            del self._lines[tenant]

    def _first(self) -> int:
        while True:
            counter, tenant = self._heap[0]
            if tenant in self._lines and self._counters[tenant] == counter:
                return tenant
            heapq.heappop(self._heap)
