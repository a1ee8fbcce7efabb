"""What this gateway has to do, told to controllers: every second, and at once when a model should wake."""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import logging
from collections import deque
from collections.abc import Callable

import asyncpg

from penstock.changes import Change, Changes
from penstock.routing.directory import Directory
from penstock.serving.dispatch import Dispatcher
from penstock_billing.shipper import DATABASE_AWAY
from penstock_engines import pools
from penstock_engines.pools import Told

logger = logging.getLogger(__name__)

TELL_EVERY_S = 1.0
FIRST_TOKENS_S = 30.0
FIRST_TOKENS_MAX = 1_000
"""Times to first token that are remembered per model."""


class FirstTokens:
    """How long first tokens took lately, by model."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._took: dict[str, deque[tuple[float, float]]] = {}

    def note(self, model: str, took_s: float) -> None:
        """Remember one, from the request's arrival on: what its client had to wait."""
        took = self._took.get(model)
        if took is None:
            took = self._took[model] = deque(maxlen=FIRST_TOKENS_MAX)
        took.append((self._clock(), took_s))

    def p90_s(self, model: str) -> float:
        """The 90th percentile of the last half minute, in seconds; 0 where there was none."""
        since_s = self._clock() - FIRST_TOKENS_S
        lately = sorted(took_s for at_s, took_s in self._took.get(model, ()) if at_s >= since_s)
        return lately[(len(lately) * 9) // 10] if lately else 0.0


class LoadTeller:
    """Tells of one gateway's load, until cancelled."""

    def __init__(
        self,
        pool: asyncpg.Pool,
        changes: Changes,
        gateway: str,
        directory: Directory,
        first_tokens: FirstTokens,
        clock: Callable[[], float],
    ) -> None:
        """`gateway` is the name of this process among all; the clock is the dispatcher's."""
        self._pool = pool
        self._changes = changes
        self._gateway = gateway
        self._directory = directory
        self._first_tokens = first_tokens
        self._clock = clock
        self._wake = asyncio.Event()
        self._told_s: dict[str, float] = {}
        """When each model was last asked for, as far as that was told."""
        self._busy: set[str] = set()
        """Models that were last told to have something to do."""

    def wanted(self, _: str) -> None:
        """Somebody waits for a model that no engine serves: tell it now."""
        self._wake.set()

    async def run(self, dispatcher: Dispatcher) -> None:
        """Tell of what the dispatcher has to do."""
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(TELL_EVERY_S):
                    await self._wake.wait()
            waking = self._wake.is_set()
            self._wake.clear()
            told = self._told(dispatcher)
            if not told:
                continue
            try:
                await pools.tell_load(self._pool, self._gateway, told)
            except DATABASE_AWAY as error:
                logger.warning("load not told", extra={"reason": str(error)})
                await asyncio.sleep(TELL_EVERY_S)
                continue
            self._busy = {each.model for each in told if each.running or each.waiting_requests}
            for model in dispatcher.models:
                self._told_s[model] = dispatcher.asked_at(model) or 0.0
            if waking:
                await self._changes.tell(Change.LOAD)

    def _told(self, dispatcher: Dispatcher) -> list[Told]:
        """Say what there is to say: of models with something to do, or that had it, or were asked for."""
        now_s, now = self._clock(), datetime.datetime.now(datetime.UTC)
        told = []
        for model in dispatcher.models:
            asked_s = dispatcher.asked_at(model) or now_s
            waiting, tokens = dispatcher.waiting(model)
            running = sum(target.in_flight for target in self._directory.targets(model))
            if running or waiting or model in self._busy or asked_s != self._told_s.get(model):
                told.append(
                    Told(
                        model=model,
                        running=running,
                        waiting_requests=waiting,
                        waiting_tokens=tokens,
                        first_token_ms=int(self._first_tokens.p90_s(model) * 1000),
                        asked_at=now - datetime.timedelta(seconds=now_s - asked_s),
                    )
                )
        return told
