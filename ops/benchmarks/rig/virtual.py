"""An event loop over virtual time: it never waits, it jumps to the next timer. Simulations run on it."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

Result = TypeVar("Result")


class Stuck(Exception):
    """Nothing is due any more and what was waited for has not come."""


class VirtualLoop(asyncio.BaseEventLoop):
    """One thread, no sockets, no clock but its own: the same program twice is the same run twice."""

    def __init__(self) -> None:
        super().__init__()
        self._now_s = 0.0
        self._clock_resolution = 1e-9
        self._selector = self

    def time(self) -> float:
        """Seconds since it was made."""
        return self._now_s

    def select(self, timeout: float | None) -> list[Any]:
        """Jump to when the next timer is due, in place of waiting for it."""
        if timeout is None:
            raise Stuck
        self._now_s += timeout
        return []

    def _process_events(self, events: list[Any]) -> None:
        """Nothing comes from outside."""

    def _write_to_self(self) -> None:
        """Nobody else wakes it."""


def run(program: Coroutine[Any, Any, Result]) -> Result:
    """Run a program to its end in virtual time; raises Stuck where it waits for ever."""
    loop = VirtualLoop()
    try:
        return loop.run_until_complete(program)
    finally:
        for task in asyncio.all_tasks(loop):
            task.cancel()
        loop.run_until_complete(asyncio.sleep(0))
        loop.close()
