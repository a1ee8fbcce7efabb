"""Noting a stream's progress, so that a killed gateway costs us no more than what it has used since.

Only an answer's last event tells how much of its input the engine had cached, and that is charged less. So
before the first note the engine is asked.
"""

from __future__ import annotations

import asyncio
import time

import msgspec

from penstock.routing.directory import Target
from penstock.serving import receipts
from penstock.serving.call import Call
from penstock.serving.meter import Meter, Settlement
from penstock.serving.usage import EngineUsage, PromptDetails
from penstock.serving.way import Way
from penstock_billing.record import Outcome

NOTE_TOKENS = 256
"""As soon as a stream has so many output tokens that are not noted, they are."""
NOTE_S = 5.0
"""And after this time whatever is not: relays look every CHECK_EVERY_S, so within 10 s it is."""


class Notes:
    """The notes of one stream. Called with its running count, now and then: nearly always, nothing is due."""

    __slots__ = (
        "_asking",
        "_cached_tokens",
        "_call",
        "_first_ns",
        "_meter",
        "_noted",
        "_noted_s",
        "_target",
        "_way",
    )

    def __init__(self, meter: Meter, call: Call, target: Target, way: Way) -> None:
        self._meter = meter
        self._call = call
        self._target = target
        self._way = way
        self._first_ns = 0
        self._noted = -1
        self._noted_s = time.monotonic()
        self._cached_tokens: int | None = None
        self._asking: asyncio.Task[None] | None = None

    def __call__(self, usage: EngineUsage) -> None:
        """Note it, when that is due."""
        unnoted = usage.output_tokens - self._noted
        if not self._first_ns:
            self._first_ns = time.perf_counter_ns()
            self._meter.begin(self._call)
        if not unnoted or (unnoted < NOTE_TOKENS and time.monotonic() < self._noted_s + NOTE_S):
            return
        if self._cached_tokens is not None:
            self._note(usage)
        elif self._asking is None:
            self._asking = asyncio.get_running_loop().create_task(self._ask(usage))

    async def _ask(self, usage: EngineUsage) -> None:
        """Learn what was cached, and make the first note. An engine that does not tell has cached nothing."""
        self._cached_tokens = await receipts.cached_tokens(self._target.address, self._call.request_id) or 0
        self._note(usage)

    def _note(self, usage: EngineUsage) -> None:
        self._noted = usage.output_tokens
        self._noted_s = time.monotonic()
        cached = PromptDetails(min(self._cached_tokens or 0, usage.prompt_tokens))
        self._meter.note(
            self._call,
            Settlement(
                Outcome.RECOVERED,
                200,
                msgspec.structs.replace(usage, prompt_tokens_details=cached),
                self._way,
                first_data_ns=self._first_ns,
            ),
        )
