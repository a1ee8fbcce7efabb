"""The composition root: wires every room into one gateway; the only file that knows them all."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import random
import signal
import time
from collections.abc import AsyncIterator, Coroutine
from typing import Any

import asyncpg
from litestar import Litestar, Request
from litestar.di import NamedDependency, Provide
from litestar.exceptions import MethodNotAllowedException
from litestar.handlers import HTTPRouteHandler

from penstock.access.audit import actor
from penstock.access.keyring import Keyring, Principal
from penstock.adapters.book import AdapterBook
from penstock.adapters.store import Store
from penstock.admission.budgets import Budgets
from penstock.admission.credit.lending import Lender
from penstock.admission.credit.wallets import Wallets
from penstock.admission.funds import Funds
from penstock.admission.idempotency.claims import Claims
from penstock.admission.rates import Rates
from penstock.admission.shared_counters import SharedCounters
from penstock.changes import Changes
from penstock.edge import failures, models, operations, wire
from penstock.edge.api import (
    adapters,
    audit,
    budgets,
    credit,
    instance_types,
    invitations,
    keys,
    limits,
    management,
    members,
    prices,
    projects,
    requests,
    serverless,
)
from penstock.edge.api import models as catalog_models
from penstock.edge.api.adapters import Uploads
from penstock.edge.api.serverless import Serverless
from penstock.edge.catalog import Catalog
from penstock.edge.changing import Doors
from penstock.edge.endpoint_paths import EndpointPaths
from penstock.edge.inference import Inference
from penstock.edge.once import Once
from penstock.edge.operations import Readiness
from penstock.endpoints.book import EndpointBook
from penstock.observe import journal_metrics, metrics
from penstock.portal.frame import World
from penstock.portal.routes import open_portal
from penstock.routing.directory import Directory, Standing
from penstock.serving.conduct import Conductor
from penstock.serving.dispatch import Dispatcher
from penstock.serving.load import FirstTokens, LoadTeller
from penstock.serving.meter import Meter
from penstock.serving.relay import Patience
from penstock.settings import Settings
from penstock_base import database
from penstock_base import tasks as ending
from penstock_billing.journal import Journal
from penstock_billing.prices import PriceBook
from penstock_billing.progress import Progress
from penstock_billing.shipper import DATABASE_AWAY, Shipper
from penstock_billing.speeds import SpeedBook
from penstock_catalog.shelf import BUILTIN, Shelf

logger = logging.getLogger(__name__)

FOLLOW_EVERY_S = 1.0
FIGURES_EVERY_S = 2.0
SPEEDS_EVERY_S = 30.0
DRAIN_SHIPPING_S = 5.0
LOAD_WITHIN_S = 5.0
"""How long a start waits for the database; after that requests are told that nothing is known yet."""
DRAIN_CLAIMS_S = 3.0
DRAIN_CREDIT_S = 3.0
CLOSE_POOL_S = 5.0
POOL_SIZE = 4
DATABASE_TIMEOUT_S = 10.0


class Gateway:
    """One gateway process: what it knows in memory, and the tasks that keep it true.

    Made inside a running event loop; `serve` is its life.
    """

    def __init__(self, settings: Settings, pool: asyncpg.Pool, pages: asyncpg.Pool) -> None:
        self._settings = settings
        self._pool = pool
        # Apart: a page that asks for much keeps nothing waiting that requests to models depend on.
        self._pages = pages
        self._changes = Changes(settings.redis_url)
        self._changed = asyncio.Event()
        self._loaded = asyncio.Event()
        self._database_away = True
        self.shelf = Shelf.open([BUILTIN, *settings.cards])
        self.keyring = Keyring(pool, settings.pepper)
        self.prices = PriceBook()
        self.directory = Directory()
        self.endpoints = EndpointBook()
        self.adapters = AdapterBook()
        self.speeds = SpeedBook()
        self.catalog = Catalog(self.shelf, self.directory, self.prices, self.adapters, self.speeds)
        self.journal = Journal(settings.journal_folder)
        self.progress = Progress(settings.journal_folder, self.journal.boot_id)
        self.shipper = Shipper(settings.database_url, settings.journal_folder, self.journal)
        self.claims = Claims(pool, settings.pepper, self.journal.boot_id)
        self.once = Once(self.claims, self.keyring, settings.body_bytes_max)
        self.doors = Doors(self.keyring)
        self.wallets = Wallets()
        self.lender = Lender(pool, self.journal.boot_id, self.wallets)
        self.budgets = Budgets(self.journal)
        self.first_tokens = FirstTokens(time.monotonic)
        self.counters = SharedCounters(settings.redis_url)
        self.rates = Rates(self.counters)
        self.teller = LoadTeller(
            pool, self._changes, self.journal.boot_id.hex(), self.directory, self.first_tokens, time.monotonic
        )
        self.dispatcher = Dispatcher(
            self.directory,
            self.counters,
            wanted=self.teller.wanted,
            clock=time.monotonic,
            dice=random.Random(),  # noqa: S311 - spreads requests, hides nothing
        )
        self.serverless = Serverless(
            pool, settings.pepper, self.shelf, self.directory, self._changes, settings.public_url
        )
        self.uploads = Uploads(
            settings,
            pool=pool,
            keyring=self.keyring,
            once=self.once,
            shelf=self.shelf,
            store=Store(settings.adapters_folder),
            book=self.adapters,
            changes=self._changes,
        )
        patience = Patience(settings.first_byte_timeout_s, settings.stall_timeout_s)
        self.meter = Meter(self.journal, self.progress)
        self.inference = Inference(
            keyring=self.keyring,
            shelf=self.shelf,
            prices=self.prices,
            directory=self.directory,
            endpoints=self.endpoints,
            adapters=self.adapters,
            journal=self.journal,
            conductor=Conductor(self.dispatcher, self.meter, patience, self.first_tokens),
            once=self.once,
            rates=self.rates,
            funds=Funds(self.wallets, self.lender, self.budgets),
            body_bytes_max=settings.body_bytes_max,
        )

        self.endpoint_paths = EndpointPaths(
            self.inference, self.keyring, self.endpoints, self.shelf, self.prices, settings.public_url
        )

    def application(self) -> Litestar:
        """The Litestar app over this gateway."""

        @contextlib.asynccontextmanager
        async def lifespan(_: Litestar) -> AsyncIterator[None]:
            async with self.serve():
                yield

        async def caller(request: Request[Any, Any, Any]) -> Principal:
            return await self.keyring.authenticate(wire.read_head(request.scope).api_key)

        async def principal(caller: NamedDependency[Principal]) -> Principal:
            # A key of an endpoint opens nothing but that.
            self.endpoints.check_plain(caller)
            return caller

        portal = open_portal(self._world())
        return Litestar(
            [
                *self.inference.routes(),
                *self.endpoint_paths.routes(),
                *models.routes(self.shelf, self.directory, self.prices, self.adapters),
                *prices.routes(self.prices),
                *catalog_models.routes(self.catalog, self._pool),
                *instance_types.routes(self._pool, self.prices),
                *requests.routes(self._pool),
                # What changes something under /api/v1 belongs in here: then keys need the role for it, the
                # audit log knows them, and Idempotency-Key is obeyed.
                self.doors.before([self.once.over(self._management())]),
                *operations.routes(self.readiness, self._settings.metrics_token),
                *portal.handlers,
            ],
            dependencies={"caller": Provide(caller), "principal": Provide(principal)},
            exception_handlers={
                Exception: failures.respond,
                MethodNotAllowedException: portal.wrong_method,
            },
            lifespan=[lifespan],
            openapi_config=None,
            logging_config=None,
            request_max_body_size=self._settings.body_bytes_max,
        )

    def _management(self) -> list[HTTPRouteHandler]:
        """The handlers of the management API."""
        return [
            *management.routes(self._pool),
            *serverless.routes(self.serverless),
            *adapters.routes(self.uploads),
            *budgets.routes(self._pool, self._changes),
            *credit.routes(self._pool),
            *limits.routes(self._pool, self._changes),
            *keys.routes(self._pool, self._settings.pepper, self._changes),
            *projects.routes(self._pool),
            *members.routes(self._pool),
            *invitations.routes(self._pool, self._settings.public_url),
            *audit.routes(self._pool),
        ]

    def _world(self) -> World:
        """What the portal's pages ask."""
        return World(
            settings=self._settings,
            pool=self._pages,
            shelf=self.shelf,
            catalog=self.catalog,
            prices=self.prices,
            directory=self.directory,
            dispatcher=self.dispatcher,
            inference=self.inference,
            adapters=self.adapters,
            serverless=self.serverless,
            wallets=self.wallets,
            changes=self._changes,
            readiness=self.readiness,
        )

    @contextlib.asynccontextmanager
    async def serve(self) -> AsyncIterator[None]:
        """Keep what is in memory true, and ship the journal, until left."""
        loops = {
            "follow": self._follow(),
            "listen": self._changes.listen(self._changed),
            "sync": self.journal.run(),
            "ship": self.shipper.run(),
            "claims": self.claims.run(),
            "credit": self.lender.run(),
            "load": self.teller.run(self.dispatcher),
            "counters": self.counters.run(),
            "rates": self.rates.run(),
            "figures": self._figures(),
            "speeds": self._measured(),
        }
        tasks = [asyncio.create_task(self._guarded(name, loop)) for name, loop in loops.items()]
        # A worker that replaces another leaves requests to the others until it can answer.
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(LOAD_WITHIN_S):
                await self._loaded.wait()
        # What lives now lives as long as the process: no collection need look at it again.
        gc.collect()
        gc.freeze()
        try:
            yield
        finally:
            await ending.end(*tasks)
            await self.claims.drain(DRAIN_CLAIMS_S)
            with contextlib.suppress(*DATABASE_AWAY):
                await self.meter.unrecorded.write(self._pool)
            try:
                self.journal.close()
            finally:
                self.progress.close()
                await self.shipper.drain(DRAIN_SHIPPING_S)
                await self.lender.drain(DRAIN_CREDIT_S)
                await self.shipper.close()
            self.directory.close()
            await self._changes.close()
            await self.counters.close()
            with contextlib.suppress(TimeoutError):
                # A statement that hangs does not keep the process: what it holds is cut.
                async with asyncio.timeout(CLOSE_POOL_S):
                    await asyncio.gather(self._pool.close(), self._pages.close())

    def readiness(self) -> Readiness:
        """What stands between this gateway and an answer."""
        named = (*self._settings.models, *self._settings.models_asleep)
        served = dict.fromkeys((*named, *self.directory.models()))
        states = {model: _in_words(self.directory.standing(model)) for model in served}
        able = self.keyring.loaded and self.journal.healthy
        return Readiness(
            # What sleeps wakes for a request, so requests may come.
            ready=able and any(state.startswith(("ready", "asleep")) for state in states.values()),
            journal="ok" if self.journal.healthy else self.journal.problem or "closed",
            keys="ok" if self.keyring.loaded else "not loaded",
            database="away" if self._database_away else "ok",
            redis="ok" if self._changes.connected else "away",
            models=states,
        )

    async def _follow(self) -> None:
        """Read what changed: every second, and at once when somebody says so."""
        while True:
            self._changed.clear()
            try:
                await self.wallets.refresh(self._pool)
                await self.budgets.refresh(self._pool)
                await self.endpoints.refresh(self._pool)
                await self.adapters.refresh(self._pool)
                await self.keyring.refresh()
                await self.prices.load(self._pool)
                # Last: with an engine known, this process says that it is ready.
                await self.directory.refresh(self._pool)
                self.dispatcher.fill_all()
                self._loaded.set()
                await self.meter.unrecorded.write(self._pool)
                self._note_database(away=False)
            except DATABASE_AWAY as error:
                self._note_database(away=True, reason=str(error))
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(FOLLOW_EVERY_S):
                    await self._changed.wait()

    def _note_database(self, *, away: bool, reason: str = "") -> None:
        if away and not self._database_away:
            logger.error("the database is away", extra={"reason": reason})
        elif self._database_away and not away:
            logger.info("the database answers")
        self._database_away = away

    async def _measured(self) -> None:
        """Read how fast models were, apart from what must be known within a second."""
        while True:
            with contextlib.suppress(*DATABASE_AWAY):
                await self.speeds.load(self._pages)
            await asyncio.sleep(SPEEDS_EVERY_S)

    async def _figures(self) -> None:
        """Show the journal's state and the queues to Prometheus."""
        shipped = conflicts = recovered = 0
        while True:
            state = self.shipper.state
            journal_metrics.SHIPPED.inc(state.frames - shipped)
            journal_metrics.DUPLICATES.inc(state.conflicts - conflicts)
            journal_metrics.RECOVERED.inc(state.recovered - recovered)
            shipped, conflicts, recovered = state.frames, state.conflicts, state.recovered
            journal_metrics.QUARANTINED.set(state.quarantined_files)
            journal_metrics.HEALTHY.set(self.journal.healthy)
            journal_metrics.BEHIND_BYTES.set(self.shipper.bytes_behind)
            journal_metrics.BEHIND_SECONDS.set(self.shipper.oldest_unshipped_s)
            for model in self.dispatcher.models:
                requests, tokens = self.dispatcher.waiting(model)
                metrics.model_figures(model).queue_requests.set(requests)
                metrics.model_figures(model).queue_tokens.set(tokens)
            await asyncio.sleep(FIGURES_EVERY_S)

    async def _guarded(self, name: str, loop: Coroutine[Any, Any, None]) -> None:
        """Run one of the loops. None of them may end: if one does, this process is drained and replaced."""
        try:
            await loop
        except asyncio.CancelledError:
            raise
        except Exception:
            logger.exception("the loop %s ended: this gateway stops", name)
            signal.raise_signal(signal.SIGTERM)


def _in_words(standing: Standing) -> str:
    return f"{standing.state} ({standing.reason})" if standing.reason else standing.state


async def open_gateway(settings: Settings) -> Gateway:
    """Make a gateway; Postgres need not answer yet. Raises CardError, JournalError."""
    pool, pages = [
        await database.pool(
            settings.database_url,
            name,
            size_max=POOL_SIZE,
            command_timeout_s=DATABASE_TIMEOUT_S,
            setup=actor.tell,
        )
        for name in ("gateway", "portal")
    ]
    started = time.monotonic()
    gateway = Gateway(settings, pool, pages)
    logger.info("gateway made in %.2f s", time.monotonic() - started)
    return gateway
