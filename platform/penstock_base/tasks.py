"""Ending tasks for certain."""

from __future__ import annotations

import asyncio
from typing import Any

AGAIN_S = 1.0
"""How long a task may take over its end before it is told once more."""


async def end(*tasks: asyncio.Task[Any]) -> None:
    """Cancel tasks and wait until all of them are over, whatever they raise.

    Those that go on are told again: before Python 3.12 `asyncio.wait_for` loses a cancellation that comes
    together with its result (python/cpython#86296), and a loop that lost it would go on for ever.
    """
    pending = set(tasks)
    while pending:
        for task in pending:
            task.cancel()
        _, pending = await asyncio.wait(pending, timeout=AGAIN_S)
    await asyncio.gather(*tasks, return_exceptions=True)
