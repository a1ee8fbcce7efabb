"""All engines of one controller: placed on this machine, started, told to everyone, stopped."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
import shutil
import time
from pathlib import Path

import asyncpg

from penstock.changes import Change, Changes
from penstock.control.engine import Engine
from penstock.control.running import Running
from penstock.observe import engine_metrics
from penstock.settings import Settings
from penstock_base import ids
from penstock_billing.intervals import IntervalKind, Subject
from penstock_billing.shipper import DATABASE_AWAY
from penstock_catalog.cards import ModelCard
from penstock_catalog.hub import Hub
from penstock_engines import placing, pools, registry
from penstock_engines.health import Patience
from penstock_engines.inventory import Inventory
from penstock_engines.launch import Launcher
from penstock_engines.replica import Replica, ReplicaLimits, ReplicaState
from penstock_engines.spec import Device

logger = logging.getLogger(__name__)

TELL_EVERY_S = 1.0
KEEP_FOLDERS_S = 3 * 86_400.0
"""Longer than reconciling looks back."""
RUNS = frozenset({ReplicaState.READY, ReplicaState.DRAINING})
"""The states of an engine between ready and stopped."""


class Fleet:
    """Engines by id; those that are gone stay listed as long as they have something to say."""

    def __init__(
        self,
        settings: Settings,
        launcher: Launcher,
        hardware: Inventory,
        pool: asyncpg.Pool,
        changes: Changes,
        running: Running,
        boot: str,
    ) -> None:
        """`running` notes from when to when engines run; `boot` names this start of a controller."""
        self._settings = settings
        self._launcher = launcher
        self._hardware = hardware
        self._pool = pool
        self._changes = changes
        self._running = running
        self._boot = boot
        self._limits = patient(settings.stall_timeout_s)
        self._hub = Hub(settings.hub_endpoint, settings.hub_token or None)
        self._engines: dict[str, Engine] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._stops: set[asyncio.Task[None]] = set()
        self._untold: set[str] = set()
        self._logs: dict[str, int] = {}

    def of(self, model: str) -> list[Engine]:
        """The engines of a model, the oldest first."""
        return [engine for engine in self._engines.values() if engine.card.id == model]

    def replicas(self) -> dict[str, Replica]:
        """Every engine that has its weights, by id."""
        return {one.id: one.replica for one in self._engines.values() if one.replica is not None}

    @property
    def engines(self) -> list[Engine]:
        """Every engine."""
        return list(self._engines.values())

    def start(
        self, card: ModelCard, version: int, instance_type: str | None = None, *, sleeps: bool = False
    ) -> Engine:
        """Start one more engine, on all of an instance type where one is named; raises DoesNotFit.

        `sleeps`: it shall be able to sleep, where the device can.
        """
        taken = [one.claim for one in self._engines.values() if one.in_place]
        sleeps = sleeps and self._launcher.device is Device.CUDA
        claim = placing.place(self._hardware, taken, card, instance_type)
        engine_id = registry.engine_name(card.id, ids.random_text(4))
        folder = self._settings.engines_folder / engine_id
        engine = Engine(engine_id, card, version, claim, folder, sleeps, self._limits, self._changed)
        self._engines[engine_id] = engine
        self._untold.add(engine_id)
        told = self._settings
        life = engine.run(
            self._launcher, told.models_folder, told.adapters_folder, self._hub, self._log(engine)
        )
        self._tasks[engine_id] = asyncio.create_task(life, name=engine_id)
        return engine

    def _log(self, engine: Engine) -> Path:
        """A log that no other engine writes to now: there are few, and each is rotated."""
        used = {self._logs[one.id] for one in self.of(engine.card.id) if one.id in self._logs}
        number = next(n for n in itertools.count(1) if n not in used)
        self._logs[engine.id] = number
        name = f"engine-{engine.card.file_stem}" + (f"-{number}" if number > 1 else "")
        return self._settings.home / "logs" / f"{name}.log"

    def sleep(self, engine_id: str) -> None:
        """Have an engine sleep instead of stopping it: its GPU is free for others."""
        if (replica := self._engines[engine_id].replica) is not None:
            replica.rest()

    def wake(self, engine_id: str) -> None:
        """Wake an engine up; where another one has its place by now, it is stopped."""
        engine = self._engines[engine_id]
        others = [one.claim for one in self._engines.values() if one is not engine and one.in_place]
        if engine.replica is None or not placing.fits(self._hardware, others, engine.claim):
            self.stop(engine_id)
        else:
            engine.replica.wake()

    def stop(self, engine_id: str) -> None:
        """Begin to stop one engine."""
        stopping = asyncio.create_task(self._engines[engine_id].stop(self._settings.drain_s))
        self._stops.add(stopping)
        stopping.add_done_callback(self._stops.discard)

    async def tidy(self) -> None:
        """Remove the folders of engines that ended long ago: until then their receipts may be asked for."""
        await asyncio.to_thread(self._remove_folders, time.time() - KEEP_FOLDERS_S)

    def _remove_folders(self, before_s: float) -> None:
        folder = self._settings.engines_folder
        for left in folder.iterdir() if folder.is_dir() else ():
            if left.is_dir() and left.name not in self._engines and left.stat().st_mtime < before_s:
                newest = max((each.stat().st_mtime for each in left.iterdir()), default=0.0)
                if newest < before_s:
                    shutil.rmtree(left, ignore_errors=True)

    def forget(self, engine: Engine) -> None:
        """Drop an engine that could not be run, with the reason that kept it listed."""
        engine.refused = False
        self._untold.add(engine.id)

    async def run(self) -> None:
        """Tell of engines that could not be told of at once, until cancelled."""
        while True:
            await asyncio.sleep(TELL_EVERY_S)
            # One that still fetches its weights has a new reason every second.
            fetching = [engine.id for engine in self._engines.values() if engine.replica is None]
            for engine_id in {*self._untold, *fetching} & self._engines.keys():
                with contextlib.suppress(*DATABASE_AWAY):
                    await self._tell(self._engines[engine_id])

    def tell_again(self) -> None:
        """Have every engine told of anew."""
        self._untold |= self._engines.keys()

    async def drain(self) -> None:
        """Stop every engine; returns when all are gone."""
        logger.info("draining %d engines", len(self._engines))
        await asyncio.gather(*(one.stop(self._settings.drain_s) for one in self._engines.values()))
        await asyncio.gather(*self._tasks.values(), *self._stops, return_exceptions=True)

    async def _changed(self, engine: Engine) -> None:
        """Tell everyone of an engine's new state, before anything follows from it."""
        self._untold.add(engine.id)
        # Engines of pools cost nobody; what they cost us is known from the same intervals.
        instance = Subject(
            kind=IntervalKind.INSTANCE,
            id=engine.id,
            priced_as=engine.claim.instance_type,
            model=engine.card.id,
        )
        self._running.changed(instance, ready=engine.state in RUNS)
        try:
            await self._tell(engine)
            if engine.state is ReplicaState.READY and engine.replica is not None:
                engine_metrics.START.labels(engine.card.id).observe(engine.replica.timings.answer_s)
                await pools.note_start(self._pool, engine.card.id, engine.version, engine.replica.timings)
        except DATABASE_AWAY as error:
            # The engine does not wait for the database; `run` says it as soon as it can.
            logger.warning("state not recorded", extra={"replica": engine.id, "reason": str(error)})

    async def _tell(self, engine: Engine) -> None:
        ended = engine.state is ReplicaState.GONE and self._tasks[engine.id].done()
        if engine.state is ReplicaState.GONE and not engine.refused:
            await registry.remove(self._pool, engine.id)
            if ended:
                self._engines.pop(engine.id, None)
                self._tasks.pop(engine.id, None)
                self._logs.pop(engine.id, None)
                self._untold.discard(engine.id)
        else:
            await registry.put(self._pool, engine.registered, self._boot)
            self._untold.discard(engine.id)
        await self._changes.tell(Change.REPLICAS)


def patient(stall_s: float) -> ReplicaLimits:
    """How long an engine may be still: with work, as long as a gateway lets a stream be."""
    usual = ReplicaLimits()
    return ReplicaLimits(
        watch_s=min(usual.watch_s, stall_s / 4),
        probe_s=min(usual.probe_s, stall_s),
        patience=Patience(stall_s, min(usual.patience.idle_s, stall_s)),
    )
