"""The controller: the models that should be served, turned into running engines that gateways can find.

One of any number leads (an advisory lock in Postgres); the others wait for it to end.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from datetime import UTC, datetime
from typing import cast

import asyncpg

from penstock.admission.idempotency import claims
from penstock.changes import Change, Changes
from penstock.control import closing, filing, spending
from penstock.control.reconciling import Reconciling
from penstock.control.running import Running
from penstock.observe import engine_metrics
from penstock.settings import Settings
from penstock_base import database, ids
from penstock_billing import partitions, prices
from penstock_billing.intervals import IntervalKind, Subject
from penstock_billing.prices import Offer
from penstock_billing.shipper import DATABASE_AWAY
from penstock_catalog import artifacts
from penstock_catalog.cards import ModelCard
from penstock_catalog.errors import ArtifactError
from penstock_catalog.hub import Hub
from penstock_catalog.shelf import Shelf
from penstock_engines import registry
from penstock_engines.launch import Launcher
from penstock_engines.registry import Registered
from penstock_engines.replica import Replica, ReplicaState
from penstock_engines.spec import EngineSpec

logger = logging.getLogger(__name__)

LEADER_LOCK = 7_306_001_114
"""Any constant: the advisory lock of the leading controller."""
STANDBY_EVERY_S = 1.0
SYNC_EVERY_S = 1.0
FIGURES_EVERY_S = 2.0
HOUSEKEEPING_EVERY_S = 3600.0
STARTING = ReplicaState.STARTING.value
RUNS = frozenset({ReplicaState.READY, ReplicaState.DRAINING})
"""The states of an engine between ready and stopped."""
POOLED = "pooled"
"""The instance type of an engine of ours that everybody shares, as minute prices would name it."""


class UnknownModelError(Exception):
    """PENSTOCK_MODELS names a model without a card."""


class Controller:
    """Keeps one engine per wanted model."""

    def __init__(self, settings: Settings, shelf: Shelf, launcher: Launcher, pool: asyncpg.Pool) -> None:
        self._settings = settings
        self._shelf = shelf
        self._launcher = launcher
        self._pool = pool
        self._changes = Changes(settings.redis_url)
        self._boot = ids.random_text(10)
        self._replicas: dict[str, Replica] = {}
        self._running = Running(pool, self._boot)
        self._reconciling = Reconciling(settings, pool, self._replicas)
        self._untold: set[str] = set()
        self._draining = False
        self._fetching: dict[str, Registered] = {}
        """Engines without weights yet, as the registry should show them."""
        self._hub = Hub(settings.hub_endpoint, settings.hub_token or None)
        self.cards = [self._card(model) for model in settings.models]

    async def run(self, stop: asyncio.Event) -> None:
        """Lead as soon as nobody else does, until `stop`; then drain every engine."""
        lock = await self._lead(stop)
        if lock is None:
            return
        try:
            await self._prepare()
            await self._serve(stop)
        finally:
            with contextlib.suppress(*DATABASE_AWAY):
                await lock.close(timeout=5)
            await self._changes.close()

    async def _lead(self, stop: asyncio.Event) -> asyncpg.Connection | None:
        """Wait for the leader's lock; None when told to stop first. The lock ends with its connection."""
        said = False
        while not stop.is_set():
            connection: asyncpg.Connection | None = None
            try:
                connection = await database.connect(self._settings.database_url, "leader")
                if await connection.fetchval("select pg_try_advisory_lock($1)", LEADER_LOCK):
                    return connection
                await connection.close()
                if not said:
                    logger.info("another controller leads: standing by")
                    said = True
            except DATABASE_AWAY as error:
                logger.warning("the database is away", extra={"reason": str(error)})
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(STANDBY_EVERY_S):
                    await stop.wait()
        return None

    async def _prepare(self) -> None:
        """Forget engines of a dead controller, and make the cards' prices the current ones."""
        await registry.clear_others(self._pool, self._boot)
        await self._running.begin()
        offers = [
            Offer(
                card.id,
                card.prices.input_pico_usd,
                card.prices.cached_input_pico_usd,
                card.prices.output_pico_usd,
            )
            for card in self._shelf.cards
        ]
        async with self._pool.acquire() as connection:
            made = await prices.sync_list(cast("asyncpg.Connection", connection), offers)
            await partitions.ensure(cast("asyncpg.Connection", connection))
        if made:
            logger.info("%d new price versions", len(made))
            await self._changes.tell(Change.PRICES)

    async def _serve(self, stop: asyncio.Event) -> None:
        async with asyncio.TaskGroup() as group:
            background = (
                self._tell(),
                self._figures(),
                self._keep_house(),
                closing.close_hours(self._pool),
                filing.file_old_events(self._settings),
                spending.watch_budgets(self._pool),
                spending.expire_promotions(self._pool),
                self._running.see(),
                self._running.charge(),
                self._reconciling.count(),
                self._reconciling.run(),
            )
            loops = [group.create_task(loop) for loop in background]
            engines = [group.create_task(self._engine(card)) for card in self.cards]
            await stop.wait()
            self._draining = True
            logger.info("draining %d engines", len(self._replicas))
            await asyncio.gather(*(r.stop(self._settings.drain_s) for r in self._replicas.values()))
            for task in (*engines, *loops):
                task.cancel()
        await self._running.finish()
        await self._launcher.close()

    async def _engine(self, card: ModelCard) -> None:
        """One engine of a model, from its weights to its end."""
        replica_id = registry.engine_name(card.id, ids.random_text(4))
        folder = self._settings.engines_folder / replica_id

        def progress(done: artifacts.Progress) -> None:
            share = f"{done.done_bytes / done.total_bytes:.0%}" if done.total_bytes else "0%"
            self._fetching[replica_id] = self._registered(
                replica_id, card, STARTING, f"fetching weights: {share} of {done.total_bytes:,} bytes"
            )

        try:
            weights = await artifacts.locate(card, self._settings.models_folder, progress, self._hub)
        except ArtifactError as error:
            logger.error("no weights", extra={"model": card.id, "reason": str(error)})
            self._fetching[replica_id] = self._registered(
                replica_id, card, ReplicaState.GONE.value, str(error)
            )
            return
        self._fetching.pop(replica_id, None)
        spec = EngineSpec(card.id, weights, card.task, card.context_length, card.engine)
        log = self._settings.home / "logs" / f"engine-{card.file_stem}.log"
        replica = Replica(spec, self._launcher, folder, self._changed, log=log)
        self._replicas[replica_id] = replica
        await replica.run()

    async def _changed(self, replica: Replica) -> None:
        """Tell everyone of an engine's new state, before anything follows from it."""
        replica_id = replica.folder.name
        logger.info(
            "engine %s",
            replica.state.value,
            extra={"replica": replica_id, "model": replica.spec.model, "reason": replica.reason},
        )
        self._untold.add(replica_id)
        # Engines of pools cost nobody; what they cost us is known from the same intervals.
        instance = Subject(
            kind=IntervalKind.INSTANCE, id=replica_id, priced_as=POOLED, model=replica.spec.model
        )
        self._running.changed(instance, ready=replica.state in RUNS)
        try:
            await self._tell_one(replica_id)
        except DATABASE_AWAY as error:
            # The engine does not wait for the database; `_tell` says it as soon as it can.
            logger.warning("state not recorded", extra={"replica": replica_id, "reason": str(error)})

    async def _tell(self) -> None:
        """Record states that could not be recorded at once."""
        while True:
            await asyncio.sleep(SYNC_EVERY_S)
            for fetching in list(self._fetching.values()):
                with contextlib.suppress(*DATABASE_AWAY):
                    await registry.put(self._pool, fetching, self._boot)
            for replica_id in list(self._untold):
                with contextlib.suppress(*DATABASE_AWAY):
                    await self._tell_one(replica_id)

    async def _tell_one(self, replica_id: str) -> None:
        replica = self._replicas[replica_id]
        card = self._card(replica.spec.model)
        if replica.state is ReplicaState.GONE and self._draining:
            await registry.remove(self._pool, replica_id)
        else:
            # A state without trouble needs no reason.
            reason = None if replica.state is ReplicaState.READY else replica.reason
            await registry.put(
                self._pool, self._registered(replica_id, card, replica.state.value, reason), self._boot
            )
        self._untold.discard(replica_id)
        await self._changes.tell(Change.REPLICAS)

    def _registered(self, replica_id: str, card: ModelCard, state: str, reason: str | None) -> Registered:
        socket = self._settings.engines_folder / replica_id / "engine.sock"
        return Registered(replica_id, card.id, state, socket, card.engine.max_concurrent_requests, reason)

    def _card(self, model: str) -> ModelCard:
        card = self._shelf.get(model)
        if card is None:
            raise UnknownModelError(
                f"PENSTOCK_MODELS names {model!r}, which has no card; cards: "
                + ", ".join(known.id for known in self._shelf.cards)
            )
        return card

    async def _figures(self) -> None:
        """Show the engines to Prometheus."""
        restarts: dict[str, int] = {}
        while True:
            counts = {(card.id, state): 0 for card in self.cards for state in ReplicaState}
            for replica_id, replica in self._replicas.items():
                model = replica.spec.model
                counts[model, replica.state] += 1
                engine_metrics.RESTARTS.labels(model).inc(replica.restarts - restarts.get(replica_id, 0))
                restarts[replica_id] = replica.restarts
                if (figures := replica.figures) is not None:
                    engine_metrics.ENGINE_RUNNING.labels(model).set(figures.running)
                    engine_metrics.ENGINE_WAITING.labels(model).set(figures.waiting)
                    engine_metrics.ENGINE_KV_CACHE.labels(model).set(figures.kv_usage)
            for (model, state), count in counts.items():
                engine_metrics.REPLICAS.labels(model, state.value).set(count)
            await asyncio.sleep(FIGURES_EVERY_S)

    async def _keep_house(self) -> None:
        """Make the partitions of the days to come, and forget answers that were kept long enough."""
        while True:
            await asyncio.sleep(HOUSEKEEPING_EVERY_S)
            try:
                async with self._pool.acquire() as connection:
                    await partitions.ensure(cast("asyncpg.Connection", connection))
                    await partitions.settle(cast("asyncpg.Connection", connection))
                    forgotten = await claims.forget_expired(cast("asyncpg.Connection", connection))
                logger.info("partitions made ahead of %s", datetime.now(UTC).date())
                logger.info("%d idempotency keys forgotten", forgotten)
            except DATABASE_AWAY as error:
                logger.warning("house not kept", extra={"reason": str(error)})
