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
from penstock_billing import intervals
from penstock_billing.errors import IntervalRefused
from penstock_billing.intervals import IntervalKind, Subject
from penstock_billing.shipper import DATABASE_AWAY
from penstock_catalog.cards import ModelCard
from penstock_engines import pools
from penstock_engines.pools import PoolError, PoolSettings

logger = logging.getLogger(__name__)

EVERY_S = 1.0
PRICED_AS = "serverless"
"""What the fee for an endpoint's minutes is called among minute prices."""


class ServerlessEndpoints:
    """Follows the endpoints that organisations made."""

    def __init__(self, pool: asyncpg.Pool, card: Callable[[str], ModelCard | None]) -> None:
        """`card` finds a model of the catalog."""
        self._pool = pool
        self._card = card
        self._directory = Directory()
        self._online: dict[str, Live] | None = None
        """Endpoints whose minutes are recorded; None before it was read what is."""
        self._refused: set[str] = set()
        """Models that could not be given a pool, so that it is said once."""

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
        live = await serverless.live(self._pool)
        async with self._pool.acquire() as taken:
            connection = cast("asyncpg.Connection", taken)
            await self._make_pools(connection, {each.model for each in live if each.suspended is None})
            await self._directory.refresh(self._pool)
            if self._online is None:
                self._online = await self._recorded(connection, live)
            await self._record(connection, live)

    async def _make_pools(self, connection: asyncpg.Connection, models: set[str]) -> None:
        """Give every model that has an endpoint a pool, which sleeps until it is asked for."""
        known = {pool.model for pool in await pools.listed(connection)}
        for model in sorted(models - known - self._refused):
            card = self._card(model)
            try:
                if card is None:
                    raise PoolError("the catalog has no card of it any more")
                await pools.create(connection, card, PoolSettings())
                logger.info("%s has a pool: an endpoint wants it", model)
            except PoolError as error:
                self._refused.add(model)
                logger.warning("no pool for an endpoint", extra={"model": model, "reason": str(error)})

    async def _recorded(self, connection: asyncpg.Connection, live: list[Live]) -> dict[str, Live]:
        """Which endpoints a controller before this one left open."""
        open_now = await intervals.open_subjects(connection, IntervalKind.ENDPOINT)
        by_id = {str(each.id): each for each in live}
        for gone in open_now - by_id.keys():
            await intervals.close_interval(
                connection, IntervalKind.ENDPOINT, gone, datetime.now(UTC), holder=None
            )
        return {endpoint_id: by_id[endpoint_id] for endpoint_id in open_now & by_id.keys()}

    async def _record(self, connection: asyncpg.Connection, live: list[Live]) -> None:
        """Write down who came online and who went; each is known by its id, whatever its name was."""
        assert self._online is not None
        online = {
            str(each.id): each
            for each in live
            if standing_of(each.suspended, self._directory.standing(each.model)).state is State.ONLINE
        }
        now = datetime.now(UTC)
        for endpoint_id in self._online.keys() - online.keys():
            await intervals.close_interval(connection, IntervalKind.ENDPOINT, endpoint_id, now, holder=None)
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
