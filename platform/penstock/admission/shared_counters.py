"""Counters that gateways add to together, over Redis; each works on alone while Redis is away.

Adding is local and at once. Ten times a second, or once where nothing is pressing, what was added goes to
Redis in one round trip, which brings the sums back: what others counted is known that much later. Nothing
that must be exact is here.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

import redis.asyncio as redis

from penstock.changes import REDIS_AWAY

logger = logging.getLogger(__name__)

EVERY_S = 0.1
AT_LEISURE = 10
"""Of so many exchanges nine are left out while nothing is pressing: each costs a gateway a millisecond."""
TIMEOUT_S = 1.0
PAUSE_S = 1.0
PREFIX = "penstock:counter:"


class SharedCounters:
    """Named sums, forgotten some time after they were last added to."""

    def __init__(self, url: str) -> None:
        self._redis = redis.Redis.from_url(url, socket_timeout=TIMEOUT_S, socket_connect_timeout=TIMEOUT_S)
        self._sums: dict[str, float] = {}
        self._unsent: dict[str, float] = {}
        self._keep_s: dict[str, int] = {}
        self._watching: dict[str, Callable[[float], None]] = {}
        self._unseen: set[str] = set()
        """Watched names whose sum was not read yet."""
        self._looked_at: set[str] = set()
        self._under_way: set[str] = set()
        """Names that an exchange is under way for, and that were not forgotten since."""
        self._pressing = False
        self.connected = False

    def add(self, name: str, amount: float, keep_s: int, *, pressing: bool = True) -> None:
        """Add to a sum: here at once, elsewhere in a tenth of a second, or a whole one if not `pressing`."""
        self._pressing = self._pressing or pressing
        self._sums[name] = self._sums.get(name, 0.0) + amount
        self._unsent[name] = self._unsent.get(name, 0.0) + amount
        self._keep_s[name] = keep_s

    def sum(self, name: str) -> float:
        """What all gateways counted, as far as is known here."""
        return self._sums.get(name, 0.0)

    def look(self, name: str) -> None:
        """Have a sum read at the next exchange: somebody decides by it."""
        self._looked_at.add(name)
        self._pressing = True

    def watch(self, name: str, others_added: Callable[[float], None]) -> None:
        """Have a function told what other gateways add from now on, as it becomes known.

        It is known of names that are added to here, and of those that somebody looks at: a gateway that only
        watches asks nothing, however many tenants it has seen.
        """
        self._watching[name] = others_added
        self._unseen.add(name)

    def forget(self, name: str) -> None:
        """Drop a sum that nobody looks at any more."""
        self._sums.pop(name, None)
        self._unsent.pop(name, None)
        self._keep_s.pop(name, None)
        self._watching.pop(name, None)
        self._unseen.discard(name)
        self._looked_at.discard(name)
        self._under_way.discard(name)

    async def run(self) -> None:
        """Exchange until cancelled."""
        left_out = 0
        while True:
            await asyncio.sleep(EVERY_S)
            left_out += 1
            if not self._pressing and (left_out < AT_LEISURE or not self._unsent):
                continue
            self._pressing, left_out = False, 0
            try:
                await self.exchange()
            except REDIS_AWAY as error:
                if self.connected:
                    logger.warning("Redis is away: each gateway counts alone", extra={"reason": str(error)})
                self.connected, self._pressing = False, True
                await asyncio.sleep(PAUSE_S)

    async def exchange(self) -> None:
        """Send what was added and learn what others added, once.

        Raises what REDIS_AWAY lists; then what was added is sent again the next time. It may count twice when
        only the answer was lost: limits are then a little tight for a minute.
        """
        sent, self._unsent = self._unsent, {}
        asked = [name for name in self._looked_at if name not in sent]
        self._looked_at = set()
        self._under_way = {*sent, *asked}
        try:
            async with self._redis.pipeline(transaction=False) as pipeline:
                for name, amount in sent.items():
                    pipeline.incrbyfloat(PREFIX + name, amount)
                    pipeline.expire(PREFIX + name, self._keep_s[name])
                for name in asked:
                    pipeline.get(PREFIX + name)
                answers = await pipeline.execute()
        except BaseException:
            for name in sent.keys() & self._under_way:
                self._unsent[name] = self._unsent.get(name, 0.0) + sent[name]
            raise
        sums = dict(zip(sent, answers[: 2 * len(sent) : 2], strict=True))
        sums |= dict(zip(asked, answers[2 * len(sent) :], strict=True))
        for name in sums.keys() & self._under_way:
            self._learn(name, float(sums[name] or 0.0))
        self.connected = True

    def _learn(self, name: str, total: float) -> None:
        """Take over what Redis has. Less than was known means that Redis forgot: then so do we."""
        own = self._unsent.get(name, 0.0)
        others = total + own - self._sums.get(name, 0.0)
        self._sums[name] = total + own
        if name in self._unseen:
            # What was there before we looked is history.
            self._unseen.discard(name)
        elif others > 0 and (told := self._watching.get(name)) is not None:
            told(others)

    async def close(self) -> None:
        """Close the connections."""
        await self._redis.aclose()
