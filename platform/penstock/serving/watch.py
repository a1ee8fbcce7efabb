"""What is done now and then while a stream runs: its turn is counted, it is noted, its credit asked.

Tokens are also what an engine's breaker goes by: an answer that has begun is none yet.
"""

from __future__ import annotations

import asyncio

from penstock.serving import receipts
from penstock.serving.call import Call
from penstock.serving.dispatch import Dispatcher
from penstock.serving.notes import Notes
from penstock.serving.tickets import Slot
from penstock.serving.usage import EngineUsage


class Watch:
    """A stream's checkpoint."""

    __slots__ = ("_call", "_dispatcher", "_notes", "_slot", "receipt")

    def __init__(self, call: Call, dispatcher: Dispatcher, slot: Slot, notes: Notes | None) -> None:
        self._call = call
        self._dispatcher = dispatcher
        self._slot = slot
        self._notes = notes
        self.receipt: asyncio.Task[EngineUsage | None] | None = None
        """Asked for as soon as the credit has ended: a slow client may take longer than it is kept."""

    def __call__(self, usage: EngineUsage) -> bool:
        """Whether to go on."""
        if usage.output_tokens:
            self._slot.target.breaker.answers()
        self._dispatcher.charge(self._slot, usage)
        if self._notes is not None:
            self._notes(usage)
        if self._call.charge.go_on(usage.prompt_tokens, usage.cached_tokens, usage.output_tokens):
            return True
        fetching = receipts.fetch(self._slot.target.address, self._call.request_id)
        self.receipt = asyncio.get_running_loop().create_task(fetching)
        return False
