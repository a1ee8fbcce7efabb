"""One engine of a pool, from its weights to its end, as the controller keeps it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from pathlib import Path

from penstock_catalog import artifacts
from penstock_catalog.cards import ModelCard
from penstock_catalog.errors import ArtifactError
from penstock_catalog.hub import Hub
from penstock_engines import machine, placing
from penstock_engines.inventory import GIB
from penstock_engines.launch import Launcher
from penstock_engines.placing import Claim
from penstock_engines.plan import Present
from penstock_engines.registry import Registered
from penstock_engines.replica import Replica, ReplicaLimits, ReplicaState
from penstock_engines.spec import EngineSpec

logger = logging.getLogger(__name__)

ASIDE = frozenset({ReplicaState.DRAINING, ReplicaState.ASLEEP})


class Engine:
    """An engine of one version of a pool; `run` is its life, one task."""

    def __init__(
        self,
        engine_id: str,
        card: ModelCard,
        version: int,
        claim: Claim,
        folder: Path,
        sleeps: bool,
        limits: ReplicaLimits,
        changed: Callable[[Engine], Awaitable[None]],
    ) -> None:
        """`changed` is awaited on each change of state or reason, before anything follows from it."""
        self.id = engine_id
        self.card = card
        self.version = version
        self.claim = claim
        self.folder = folder
        self.replica: Replica | None = None
        self.refused = False
        """It cannot be run as described."""
        self._sleeps = sleeps
        self._limits = limits
        self._changed = changed
        self._state = ReplicaState.STARTING
        self._reason = "its weights are being looked for"
        self._stopping = asyncio.Event()

    @property
    def state(self) -> ReplicaState:
        """Where it is in its life."""
        return self.replica.state if self.replica is not None else self._state

    @property
    def reason(self) -> str | None:
        """Why it is in this state; None where that needs no reason."""
        if self.state is ReplicaState.READY:
            return None
        return self.replica.reason if self.replica is not None else self._reason

    @property
    def present(self) -> Present:
        """As plans see it: one that goes to sleep sleeps, and one that is to wake up is starting."""
        state = self.state
        if self.replica is not None and state in ASIDE and not self._stopping.is_set():
            state = ReplicaState.ASLEEP if self.replica.resting else ReplicaState.STARTING
        figures = self.replica.figures if self.replica is not None else None
        running = figures.running if figures is not None else 0
        return Present(self.id, self.version, state, running, self.refused, self._can_sleep(state))

    def _can_sleep(self, state: ReplicaState) -> bool:
        """Whether it may sleep, or sleep on; it needs memory for its weights."""
        if self.replica is None or not self.replica.spec.sleeps or self.replica.sleep_failed:
            return False
        if state is ReplicaState.ASLEEP:
            return True
        _, free_bytes = machine.memory_bytes()
        return state is ReplicaState.READY and placing.weights_gib(self.card) * GIB <= free_bytes

    @property
    def in_place(self) -> bool:
        """Whether its place is taken: not when it is gone, and not while it sleeps and nobody woke it."""
        if self.state is ReplicaState.ASLEEP:
            return self.replica is not None and not self.replica.resting
        return self.state is not ReplicaState.GONE

    @property
    def registered(self) -> Registered:
        """As gateways see it."""
        return Registered(
            self.id,
            self.card.id,
            self.state.value,
            self.folder / "engine.sock",
            self.card.engine.max_concurrent_requests,
            self.reason,
            self.version,
        )

    async def run(self, launcher: Launcher, models_folder: Path, adapters: Path, hub: Hub, log: Path) -> None:
        """Fetch the weights where they are not here, then keep an engine until `stop`."""
        fetching = asyncio.ensure_future(self._weights(models_folder, hub))
        stopping = asyncio.ensure_future(self._stopping.wait())
        try:
            await asyncio.wait({fetching, stopping}, return_when=asyncio.FIRST_COMPLETED)
            if not fetching.done():
                await self._end("stopped before it was started")
                return
            weights = fetching.result()
        except ArtifactError as error:
            logger.error("no weights", extra={"model": self.card.id, "reason": str(error)})
            self.refused = True
            await self._end(str(error))
            return
        finally:
            for task in (fetching, stopping):
                task.cancel()
            await asyncio.gather(fetching, stopping, return_exceptions=True)
        spec = EngineSpec(
            self.card.id,
            weights,
            self.card.task,
            self.card.context_length,
            self.card.engine,
            self.claim.gpus,
            self.claim.gpu_share,
            adapters,
            sleeps=self._sleeps,
        )
        self.replica = Replica(
            spec, launcher, self.folder, self._replica_changed, log=log, limits=self._limits
        )
        if not self._stopping.is_set():
            await self.replica.run()
            # Not told to stop and yet gone: it cannot be run as described.
            self.refused = not self._stopping.is_set()
        await self._changed(self)

    async def stop(self, drain_s: float) -> None:
        """Let it finish what it has, for `drain_s` seconds at most, and end it; returns when it is gone."""
        self._stopping.set()
        if self.replica is not None:
            await self.replica.stop(drain_s)

    async def _weights(self, models_folder: Path, hub: Hub) -> Path:
        def progress(done: artifacts.Progress) -> None:
            share = f"{done.done_bytes / done.total_bytes:.0%}" if done.total_bytes else "0%"
            self._reason = f"fetching weights: {share} of {done.total_bytes:,} bytes"

        return await artifacts.locate(self.card, models_folder, progress, hub)

    async def _replica_changed(self, replica: Replica) -> None:
        logger.info(
            "engine %s",
            replica.state.value,
            extra={"replica": self.id, "model": self.card.id, "reason": replica.reason},
        )
        await self._changed(self)

    async def _end(self, reason: str) -> None:
        self._state, self._reason = ReplicaState.GONE, reason
        await self._changed(self)
