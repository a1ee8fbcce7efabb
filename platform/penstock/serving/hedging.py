"""Asking a second engine when the first is late: whichever brings the first byte answers the request.

Dean and Barroso, "The Tail at Scale" (2013). The other is stopped in the same moment, and what it made is
charged to nobody. Only streams are hedged: of a whole answer the first byte is the end, and says nothing of
how well its engine works. A pool does it or not (`hedge_after_ms`); how much more its engines have to do for
it is bounded.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable

from litestar.types import Receive

from penstock.observe import metrics
from penstock.serving.attempt import Attempt
from penstock.serving.relay import Ending

SHARE = 0.05
"""Of a pool's requests, as far as they come through one gateway; one in LATELY_S may be in any case."""
LATELY_S = 60

Second = Callable[[Attempt], Awaitable[Attempt | None]]
"""Send an attempt's call to another engine as well; None where there is none with room."""
Dropped = Callable[[Attempt, Ending], None]
"""Told of an attempt that came to nothing while the other goes on."""


class Budget:
    """How many requests of a pool were hedged lately; the clock is handed in."""

    def __init__(self) -> None:
        self._seconds: deque[list[int]] = deque()
        """Each with its number, the requests that came in it, and the hedges."""

    def asked(self, now_s: float) -> None:
        """Count a request that might be hedged."""
        self._now(now_s)[1] += 1

    def spend(self, now_s: float) -> bool:
        """Count one more hedge, if it may be."""
        now = self._now(now_s)
        asked = sum(second[1] for second in self._seconds)
        hedged = sum(second[2] for second in self._seconds)
        if hedged >= max(1, int(asked * SHARE)):
            return False
        now[2] += 1
        return True

    def keep(self, now_s: float) -> None:
        """Take a hedge back that came to nothing: no engine had room."""
        self._now(now_s)[2] -= 1

    def _now(self, now_s: float) -> list[int]:
        number = int(now_s)
        if not self._seconds or self._seconds[-1][0] != number:
            self._seconds.append([number, 0, 0])
        while self._seconds[0][0] <= number - LATELY_S:
            self._seconds.popleft()
        return self._seconds[-1]


class Race:
    """One streamed call at an engine, and where that one is late at a second."""

    def __init__(
        self, first: Attempt, after_s: float, budget: Budget, second: Second, dropped: Dropped
    ) -> None:
        self.ahead = first
        """The attempt that answers, as far as is known; afterwards the one that did, or failed last."""
        self._first = first
        self._after_s = after_s
        self._budget = budget
        self._begin_second = second
        self._dropped = dropped

    async def run(self, receive: Receive) -> Ending:
        """Run the call; how `ahead` ended. On every way out nothing of the other is left at its engine."""
        loop = asyncio.get_running_loop()
        self._budget.asked(loop.time())
        running = {loop.create_task(self._first.relay.run(receive)): self._first}
        try:
            await asyncio.wait(running, timeout=self._after_s)
            if self._late() and self._budget.spend(loop.time()):
                second = await self._begin_second(self._first)
                if second is None:
                    self._budget.keep(loop.time())
                else:
                    self._pit(self._first, second)
                    self._pit(second, self._first)
                    running[loop.create_task(second.relay.run(receive))] = second
            return await self._decide(running)
        finally:
            for task, attempt in running.items():
                task.cancel()
                if attempt is not self.ahead:
                    attempt.relay.outrun()
                    self._drop(attempt, Ending.OUTRUN)
            await asyncio.gather(*running, return_exceptions=True)

    async def _decide(self, running: dict[asyncio.Task[Ending], Attempt]) -> Ending:
        """Wait for an end that counts: the only one left, or one that the other cannot make better."""
        while True:
            done, _ = await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
            for task in [each for each in running if each in done]:
                attempt, ending = running[task], task.result()
                if len(running) == 1:
                    self.ahead = attempt
                    return ending
                if ending is Ending.OUTRUN or _brought_nothing(attempt, ending):
                    del running[task]
                    self._drop(attempt, ending)
                    (self.ahead,) = running.values()
                else:
                    self.ahead = attempt
                    return ending

    def _late(self) -> bool:
        """Whether the first engine has neither brought a byte nor ended."""
        return not self._first.relay.first_data_ns and not self._first.relay.ended

    def _pit(self, attempt: Attempt, other: Attempt) -> None:
        """Let one attempt's first byte end the other."""
        seen = attempt.relay.on_first_data

        def first() -> None:
            self.ahead = attempt
            other.relay.outrun()
            winner = "second" if attempt.slot.hedges else "first"
            metrics.HEDGED.labels(attempt.call.card.id, winner).inc()
            if seen is not None:
                seen()

        attempt.relay.on_first_data = first

    def _drop(self, attempt: Attempt, ending: Ending) -> None:
        """Give an attempt's place back: what it took of its engine counts for nobody."""
        attempt.dispatcher.give_back(attempt.slot)
        self._dropped(attempt, ending)


def _brought_nothing(attempt: Attempt, ending: Ending) -> bool:
    """Whether an engine came to nothing before its first byte, so that the other one may still answer."""
    stalled = ending is Ending.STALLED and not attempt.relay.first_data_ns
    return stalled or attempt.failed_early(ending)
