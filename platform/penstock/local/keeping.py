"""Keeping a child alive: one that ends is started again, after a pause that grows while it keeps ending."""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import Awaitable, Callable

from penstock.local import problems
from penstock.local.children import Child

PAUSE_FIRST_S = 0.5
PAUSE_MAX_S = 30.0
STEADY_AFTER_S = 60.0
"""A child that ran this long was well: its next end counts as the first."""


def pause_s(failures: int) -> float:
    """How long to wait before the start that follows this many ends in a row: doubling, up to PAUSE_MAX_S."""
    return min(PAUSE_FIRST_S * 2.0 ** min(failures - 1, 10), PAUSE_MAX_S)


class Kept:
    """One child process and how to start it; `keep` restarts it until `stop`."""

    def __init__(
        self,
        start: Callable[[], Awaitable[Child]],
        note: Callable[[str], None],
        *,
        with_signal: signal.Signals = signal.SIGTERM,
        patience_s: float,
        after_end: Callable[[Child], None] = lambda _: None,
    ) -> None:
        self._start = start
        self._note = note
        self._signal = with_signal
        self._patience_s = patience_s
        self._after_end = after_end
        self._stopping = False
        self._child: Child | None = None
        self.tolerant = False
        """While we start up, an end is an error that `keep` raises; once set, it is repaired."""

    async def start(self) -> None:
        """Start it for the first time; errors are the caller's."""
        self._child = await self._start()

    async def keep(self) -> None:
        """Watch until `stop`; raises ChildError when the child ends before `tolerant` was set."""
        failures = 0
        while (child := self._child) is not None:
            began = time.monotonic()
            status = await child.ended()
            if self._stopping:
                return
            if not self.tolerant:
                raise child.death(status)
            failures = 1 if time.monotonic() - began > STEADY_AFTER_S else failures + 1
            wait_s = pause_s(failures)
            self._note(f"{child.death(status).brief}; starting it again in {wait_s:.1f} s")
            self._after_end(child)
            await asyncio.sleep(wait_s)
            await self._again(child)

    async def _again(self, child: Child) -> None:
        try:
            self._child = await self._start()
        except problems.LocalError as error:
            self._note(f"{child.name} could not be started again: {error}")

    async def stop(self) -> None:
        """Stop it for good, first gently."""
        self._stopping = True
        if self._child is not None:
            await self._child.stop(with_signal=self._signal, patience_s=self._patience_s)

    def kill(self) -> None:
        """Stop it at once: `stop`, which waits, then returns."""
        self._stopping = True
        if self._child is not None:
            self._child.kill()
