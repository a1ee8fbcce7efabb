"""Load: clients that stream, ask for whole answers, and leave at seeded tokens."""

from __future__ import annotations

import asyncio
import itertools
import random
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Any

from rig.client import Seen, ask

Make = Callable[[random.Random], dict[str, Any]]


def mixed(chance: random.Random) -> dict[str, Any]:
    """A request of any kind."""
    return {
        "messages": [{"role": "user", "content": " ".join(["word"] * chance.randint(1, 12))}],
        "max_tokens": chance.randint(1, 24),
        "n": chance.choice((1, 1, 1, 2, 3)),
    } | chance.choice(
        (
            {},
            {"stream": True},
            {"stream": True, "stream_options": {"include_usage": True}},
            {"stream": True, "stream_options": {"include_usage": True, "continuous_usage_stats": True}},
        )
    )


class Load:
    """Clients in turn at several gateways, from `async with` until its end, which waits for their answers."""

    def __init__(
        self,
        gateways: Sequence[Any],
        key: str,
        *,
        clients: int = 6,
        seed: int = 1,
        make: Make = mixed,
        name_length: int = 0,
    ) -> None:
        self.seen: list[Seen] = []
        """Requests that have ended, in that order."""
        self._gateways = gateways
        self._key = key
        self._clients = clients
        self._seed = seed
        self._make = make
        self._name_length = name_length
        self._numbers = itertools.count(1)
        self._stopping = False
        self._tasks: list[asyncio.Task[None]] = []
        self._more = asyncio.Condition()

    async def __aenter__(self) -> Load:
        self._tasks = [
            asyncio.create_task(self._client(random.Random(self._seed * 1000 + number)))
            for number in range(self._clients)
        ]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stopping = True
        if error is not None:
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)
            return
        await asyncio.gather(*self._tasks)

    async def more(self, requests: int, within_s: float = 60) -> None:
        """Wait until so many more have ended."""
        target = len(self.seen) + requests
        async with asyncio.timeout(within_s), self._more:
            await self._more.wait_for(lambda: len(self.seen) >= target or any(t.done() for t in self._tasks))
        for task in self._tasks:
            if task.done():
                task.result()

    async def _client(self, chance: random.Random) -> None:
        while not self._stopping:
            body = self._make(chance)
            leaves = body.get("stream") and chance.random() < 0.2
            seen = await ask(
                chance.choice(self._gateways),
                self._key,
                body,
                name=f"load-{self._seed}-{next(self._numbers)}".ljust(self._name_length, "x"),
                leave_at=chance.randint(0, 6) if leaves else None,
                politely=chance.random() < 0.5,
            )
            self.seen.append(seen)
            async with self._more:
                self._more.notify_all()
            if seen.status >= 400 or not seen.status:
                await asyncio.sleep(0.05)  # what is refused at once is not asked again at once
