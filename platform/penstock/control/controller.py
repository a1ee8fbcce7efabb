"""The controller: pools as they should be, turned into running engines that gateways can find.

One of any number leads (leadership.py); the others stand by, with a warm parent of engines on CPU.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import logging
from datetime import UTC, datetime, timedelta
from typing import cast

import asyncpg

from penstock.adapters.store import Store
from penstock.admission.idempotency import claims
from penstock.changes import Change, Changes
from penstock.control import closing, filing, spending
from penstock.control.adapters import AdapterFiles
from penstock.control.endpoints import ServerlessEndpoints
from penstock.control.fleet import Fleet
from penstock.control.leadership import Leadership, LeadershipLostError
from penstock.control.reconciling import Reconciling
from penstock.control.running import Running
from penstock.control.sizing import Sizing
from penstock.observe import engine_metrics
from penstock.settings import Settings
from penstock_base import ids, tasks
from penstock_billing import partitions, prices, speeds
from penstock_billing.prices import Offer
from penstock_billing.shipper import DATABASE_AWAY
from penstock_catalog.cards import ModelCard
from penstock_catalog.shelf import Shelf
from penstock_engines import inventory, pools, registry
from penstock_engines.failures import EngineFailure
from penstock_engines.launch import Launcher
from penstock_engines.placing import DoesNotFit
from penstock_engines.plan import plan
from penstock_engines.pools import Load, Pool
from penstock_engines.replica import ReplicaState

logger = logging.getLogger(__name__)

FOLLOW_EVERY_S = 1.0
FIGURES_EVERY_S = 2.0
HOUSEKEEPING_EVERY_S = 3600.0
KEEP_SCALINGS = timedelta(days=30)


class UnknownModelError(Exception):
    """The settings name a model without a card."""


class Controller:
    """Keeps every pool as large, and of the version, that it should be."""

    def __init__(self, settings: Settings, shelf: Shelf, launcher: Launcher, pool: asyncpg.Pool) -> None:
        self._settings = settings
        self._shelf = shelf
        self._launcher = launcher
        self._pool = pool
        self._changes = Changes(settings.redis_url)
        self._changed = asyncio.Event()
        self._boot = ids.random_text(10)
        self._running = Running(pool, self._boot)
        self._hardware = inventory.find(launcher.device, settings.cpu_slots)
        self._fleet = Fleet(
            settings, launcher, self._hardware, pool, self._changes, self._running, self._boot
        )
        self._reconciling = Reconciling(settings, pool, self._fleet.replicas)
        self._sizing = Sizing(pool)
        self._endpoints = ServerlessEndpoints(pool, shelf.get)
        self._adapters = AdapterFiles(pool, Store(settings.adapters_folder))
        self._pools: list[Pool] = []
        self._led_again = False
        self._homeless: dict[str, str] = {}
        """Why an engine of a pool has no place, so that it is said once."""
        self._ready_cards = [self._card(model) for model in settings.models]
        self._asleep_cards = [self._card(model) for model in settings.models_asleep]

    async def run(self, stop: asyncio.Event) -> None:
        """Lead as soon as nobody else does, until `stop`; then drain every engine.

        Raises LeadershipLostError where another controller took over; the engines have finished by then.
        """
        warming = asyncio.create_task(self._warm())
        leadership = Leadership(self._settings.database_url)
        try:
            if await leadership.gain(stop):
                engine_metrics.LEADS.set(1)
                await self._prepare()
                await self._serve(leadership, stop)
        finally:
            await tasks.end(warming)
            await self._launcher.close()
            await leadership.leave()
            await self._changes.close()

    async def _warm(self) -> None:
        """Make the first start as quick as the later ones, also that of one who takes over."""
        try:
            await self._launcher.warm()
        except EngineFailure as failure:
            logger.warning("engines will start cold", extra={"reason": str(failure)})

    async def _prepare(self) -> None:
        """Forget engines of a dead controller, name the pools, make the cards' prices the current ones."""
        await self._fleet.tidy()
        await self._clear()
        offers = [
            Offer(
                card.id,
                card.prices.input_pico_usd,
                card.prices.cached_input_pico_usd,
                card.prices.output_pico_usd,
            )
            for card in self._shelf.cards
        ]
        async with self._pool.acquire() as taken:
            connection = cast("asyncpg.Connection", taken)
            made = await prices.sync_list(connection, offers)
            await self._endpoints.set_first_fee(connection)
            await partitions.ensure(connection)
            await pools.put_hardware(connection, self._boot, self._hardware)
            await pools.name(connection, self._ready_cards, self._asleep_cards)
        if made:
            logger.info("%d new price versions", len(made))
            await self._changes.tell(Change.PRICES)

    async def _clear(self) -> None:
        """Forget the engines of other controllers: they ended with them, or are ending."""
        await registry.clear_others(self._pool, self._boot)
        await self._running.begin()

    async def _serve(self, leadership: Leadership, stop: asyncio.Event) -> None:
        """Do a leader's work until `stop`, or until another one leads; then let the engines finish."""
        leads_on = leadership.keep(self._lead_again)
        async with asyncio.TaskGroup() as group:
            # These go on until the last engine is gone; all else only the leader may do.
            ending = [
                group.create_task(loop)
                for loop in (self._fleet.run(), self._running.see(), self._reconciling.count())
            ]
            leading = [
                group.create_task(loop)
                for loop in (
                    self._follow(),
                    self._changes.listen(self._changed),
                    self._figures(),
                    self._keep_house(),
                    closing.close_hours(self._pool),
                    filing.file_old_events(self._settings),
                    spending.watch_budgets(self._pool),
                    spending.expire_promotions(self._pool),
                    self._endpoints.run(),
                    self._adapters.run(),
                    self._running.charge(),
                    self._reconciling.run(),
                )
            ]
            until = [group.create_task(leads_on), group.create_task(_set(stop))]
            await asyncio.wait(until, return_when=asyncio.FIRST_COMPLETED)
            await tasks.end(*leading, *until)
            # Whoever leads next need not wait for what our engines still have.
            await leadership.leave()
            engine_metrics.LEADS.set(0)
            await self._fleet.drain()
            await tasks.end(*ending)
        await self._running.finish()
        if not stop.is_set():
            raise LeadershipLostError("another controller leads: this one's engines have finished")

    def _lead_again(self) -> None:
        """Postgres was away, and may not know what we told it."""
        self._led_again = True
        self._changed.set()

    async def _follow(self) -> None:
        """Bring every pool to what it should be: every second, and at once when somebody says so."""
        loads: dict[str, Load] = {}
        while True:
            self._changed.clear()
            try:
                if self._led_again:
                    await self._clear()
                    self._fleet.tell_again()
                    self._led_again = False
                self._pools = await pools.listed(self._pool)
                loads = await pools.loads(self._pool)
            except DATABASE_AWAY as error:
                logger.warning("the database is away", extra={"reason": str(error)})
            for pool in self._pools:
                await self._follow_one(pool, loads.get(pool.model))
            known = {pool.model for pool in self._pools}
            for engine in self._fleet.engines:
                if engine.card.id not in known:
                    self._fleet.stop(engine.id)
            self._sizing.forget(known)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(FOLLOW_EVERY_S):
                    await self._changed.wait()

    async def _follow_one(self, pool: Pool, load: Load | None) -> None:
        """Start and stop engines of one pool."""
        card = self._shelf.get(pool.model)
        engines = self._fleet.of(pool.model)
        figures = [one.replica.figures for one in engines if one.replica is not None]
        kv_usage = max((each.kv_usage for each in figures if each is not None), default=0.0)
        for engine in engines:
            if engine.refused and engine.version != pool.version:
                self._fleet.forget(engine)
        present = [engine.present for engine in engines]
        if not pool.settings.sleeps:
            present = [dataclasses.replace(one, can_sleep=False) for one in present]
        wanted = await self._sizing.wanted(pool, present, kv_usage, load) if card is not None else 0
        todo = plan(wanted, pool.version, present)
        for engine_id in todo.stop:
            self._fleet.stop(engine_id)
        for engine_id in todo.sleep:
            self._fleet.sleep(engine_id)
        for engine_id in todo.wake:
            self._fleet.wake(engine_id)
        if card is None:
            self._say_homeless(
                pool.model, f"{pool.model} has a pool and no card: add the card or remove the pool"
            )
            return
        spare = list(todo.spare)
        for _ in range(todo.start):
            try:
                settings = pool.settings
                self._fleet.start(
                    pool.content.of(card), pool.version, settings.instance_type, sleeps=settings.sleeps
                )
            except DoesNotFit as reason:
                if reason.ever and spare:
                    # No room for old and new side by side: requests wait while one replaces the other.
                    self._fleet.stop(spare.pop(0))
                else:
                    self._say_homeless(pool.model, str(reason))
                return
        if self._homeless.pop(pool.model, None) is not None:
            engine_metrics.WITHOUT_PLACE.labels(pool.model).set(0)

    def _say_homeless(self, model: str, reason: str) -> None:
        if self._homeless.get(model) != reason:
            logger.warning("an engine has no place", extra={"model": model, "reason": reason})
            self._homeless[model] = reason
            engine_metrics.WITHOUT_PLACE.labels(model).set(1)

    def _card(self, model: str) -> ModelCard:
        card = self._shelf.get(model)
        if card is None:
            raise UnknownModelError(
                f"PENSTOCK_MODELS or PENSTOCK_MODELS_ASLEEP names {model!r}, which has no card; cards: "
                + ", ".join(known.id for known in self._shelf.cards)
            )
        return card

    async def _figures(self) -> None:
        """Show the engines to Prometheus."""
        restarts: dict[str, int] = {}
        shown: set[str] = set()
        while True:
            shown |= {pool.model for pool in self._pools}
            counts = {(model, state): 0 for model in shown for state in ReplicaState}
            for engine in self._fleet.engines:
                model, replica = engine.card.id, engine.replica
                counts[model, engine.state] = counts.get((model, engine.state), 0) + 1
                if replica is None:
                    continue
                engine_metrics.RESTARTS.labels(model).inc(replica.restarts - restarts.get(engine.id, 0))
                restarts[engine.id] = replica.restarts
                if (figures := replica.figures) is not None:
                    engine_metrics.ENGINE_RUNNING.labels(model).set(figures.running)
                    engine_metrics.ENGINE_WAITING.labels(model).set(figures.waiting)
                    engine_metrics.ENGINE_KV_CACHE.labels(model).set(figures.kv_usage)
            for (model, state), count in counts.items():
                engine_metrics.REPLICAS.labels(model, state.value).set(count)
            await asyncio.sleep(FIGURES_EVERY_S)

    async def _keep_house(self) -> None:
        """Make the partitions of the days to come, and forget what was kept long enough."""
        while True:
            await asyncio.sleep(HOUSEKEEPING_EVERY_S)
            try:
                async with self._pool.acquire() as taken:
                    connection = cast("asyncpg.Connection", taken)
                    await partitions.ensure(connection)
                    await partitions.settle(connection)
                    forgotten = await claims.forget_expired(connection)
                    await pools.forget(connection, datetime.now(UTC) - KEEP_SCALINGS)
                    await speeds.tidy(connection)
                await self._fleet.tidy()
                logger.info("partitions made ahead of %s", datetime.now(UTC).date())
                logger.info("%d idempotency keys forgotten", forgotten)
            except DATABASE_AWAY as error:
                logger.warning("house not kept", extra={"reason": str(error)})


async def _set(event: asyncio.Event) -> None:
    await event.wait()
