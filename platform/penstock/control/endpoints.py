"""What serverless endpoints need of a controller: a pool for their model, and their minutes recorded."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from datetime import UTC, datetime
from typing import cast

import asyncpg

from penstock.endpoints import serverless
from penstock.endpoints.serverless import Live
from penstock.endpoints.standing import State, standing_of
from penstock.routing.directory import Directory
from penstock_billing import intervals, prices
from penstock_billing.errors import IntervalRefused
from penstock_billing.intervals import IntervalKind, Subject
from penstock_billing.shipper import DATABASE_AWAY
from penstock_catalog.cards import ModelCard
from penstock_engines import pools
from penstock_engines.pool_settings import PoolSettings
from penstock_engines.pools import PoolError

logger = logging.getLogger(__name__)

EVERY_S = 1.0
PRICED_AS = "serverless"
"""What the fee for an endpoint's minutes is called among minute prices."""
FEE_NANO_USD = 100_000
"""Of a minute, where nobody set a price: 0.0001 dollars, some 4 dollars a month."""


class ServerlessEndpoints:
    """Follows the endpoints that organisations made."""

    def __init__(self, pool: asyncpg.Pool, card: Callable[[str], ModelCard | None]) -> None:
        """`card` finds a model of the catalog."""
        self._pool = pool
        self._card = card
        self._directory = Directory()
        self._online: dict[str, Live] | None = None
        """Endpoints whose minutes are recorded; None before it was read what is."""
        self._refused: dict[str, str] = {}
        """Why models could not be given a pool, so that it is said once."""

    async def set_first_fee(self, connection: asyncpg.Connection) -> None:
        """Give an endpoint's minutes a price, where they never had one."""
        note = "the first fee; change it by `penstock prices minute`"
        if await prices.set_first_minute(connection, "endpoint", PRICED_AS, FEE_NANO_USD, note):
            logger.info("a minute of a serverless endpoint costs %d nano-dollars", FEE_NANO_USD)

    async def run(self) -> None:
        """Follow, until cancelled."""
        while True:
            try:
                await self.follow()
            except DATABASE_AWAY as error:
                logger.warning("endpoints are followed later", extra={"reason": str(error)})
            await asyncio.sleep(EVERY_S)

    async def follow(self) -> None:
        """Make pools that are missing, and record which endpoints are online from now on."""
        async with self._pool.acquire() as taken:
            connection = cast("asyncpg.Connection", taken)
            # In this order: one that is deleted in between is in neither, and ends now; it leaves next time.
            leaving = await serverless.leaving(connection)
            live = await serverless.live(connection)
            await self._make_pools(connection, {each.model for each in live if each.suspended is None})
            await self._directory.refresh(self._pool)
            if self._online is None:
                self._online = await self._recorded(connection, live, leaving)
            await self._record(connection, live, leaving)
            if leaving:
                await serverless.ended(connection, list(leaving))

    async def _make_pools(self, connection: asyncpg.Connection, models: set[str]) -> None:
        """Give every model that has an endpoint a pool, which sleeps until it is asked for."""
        known = {pool.model for pool in await pools.listed(connection)}
        for model in sorted(models - known):
            problem = await self._make_pool(connection, model)
            if problem is not None and self._refused.get(model) != problem:
                logger.warning("no pool for an endpoint", extra={"model": model, "reason": problem})
            # Always: an endpoint that was made since is told, too.
            await serverless.note_problem(connection, model, problem)
            if problem is None:
                self._refused.pop(model, None)
            else:
                self._refused[model] = problem

    async def _make_pool(self, connection: asyncpg.Connection, model: str) -> str | None:
        """Make one; says why it could not be made."""
        card = self._card(model)
        if card is None:
            return "the catalog has no card of it any more"
        try:
            await pools.create(connection, card, PoolSettings())
        except PoolError as error:
            return str(error)
        logger.info("%s has a pool: an endpoint wants it", model)
        return None

    async def _recorded(
        self, connection: asyncpg.Connection, live: list[Live], leaving: dict[int, datetime]
    ) -> dict[str, Live]:
        """Which endpoints a controller before this one left open."""
        open_now = await intervals.open_subjects(connection, IntervalKind.ENDPOINT)
        by_id = {str(each.id): each for each in live}
        for gone in open_now - by_id.keys():
            await self._close(connection, gone, leaving.get(int(gone)))
        return {endpoint_id: by_id[endpoint_id] for endpoint_id in open_now & by_id.keys()}

    async def _close(self, connection: asyncpg.Connection, endpoint_id: str, at: datetime | None) -> None:
        """End an endpoint's minutes when it was stopped, however late that is seen; by default now."""
        await intervals.close_interval(
            connection, IntervalKind.ENDPOINT, endpoint_id, at or datetime.now(UTC), holder=None
        )

    async def _record(
        self, connection: asyncpg.Connection, live: list[Live], leaving: dict[int, datetime]
    ) -> None:
        """Write down who came online and who went; each is known by its id, whatever its name was."""
        assert self._online is not None
        online = {
            str(each.id): each
            for each in live
            if standing_of(each.suspended, self._directory.standing(each.model)).state is State.ONLINE
        }
        suspended = {each.id: each.suspended_at for each in live if each.suspended_at is not None}
        stopped = leaving | suspended
        now = datetime.now(UTC)
        for endpoint_id in self._online.keys() - online.keys():
            await self._close(connection, endpoint_id, stopped.get(int(endpoint_id)))
            del self._online[endpoint_id]
        for endpoint_id in online.keys() - self._online.keys():
            endpoint = online[endpoint_id]
            subject = Subject(
                kind=IntervalKind.ENDPOINT,
                id=endpoint_id,
                priced_as=PRICED_AS,
                organisation_id=endpoint.organisation_id,
                project_id=endpoint.project_id,
                model=endpoint.model,
                endpoint=endpoint.name,
            )
            try:
                await intervals.open_interval(connection, subject, now, holder=None)
            except IntervalRefused as error:
                logger.error("not recorded: %s", error)
            self._online[endpoint_id] = endpoint
