"""What becomes of deleted adapters, and of uploads that a kill cut short: a loop of the controller."""

from __future__ import annotations

import asyncio
import logging
from datetime import UTC, datetime, timedelta
from typing import cast

import asyncpg
import msgspec

from penstock.adapters import register
from penstock.adapters.register import Leaving
from penstock.adapters.store import Store
from penstock_billing.shipper import DATABASE_AWAY
from penstock_engines import client, registry
from penstock_engines.client import EngineAddress, EngineGone

logger = logging.getLogger(__name__)

LOOK_EVERY_S = 30.0
UNLOAD_AFTER = timedelta(minutes=1)
"""By then every gateway knows that the adapter is gone, also one that Redis did not tell."""
REMOVE_AFTER = timedelta(days=1)
"""Longer than any request runs: an engine may read an adapter again while a request for it runs."""
ASK_TIMEOUT_S = 10.0


class AdapterFiles:
    """Unloads deleted adapters, then removes their files."""

    def __init__(self, pool: asyncpg.Pool, store: Store) -> None:
        self._pool = pool
        self._store = store
        self._unloaded: set[tuple[str, str]] = set()
        """Engine and digest."""

    async def run(self) -> None:
        """Look every now and then, from the start, until cancelled."""
        while True:
            try:
                await self.look(datetime.now(UTC))
            except DATABASE_AWAY as error:
                logger.warning("adapters not looked after", extra={"reason": str(error)})
            except OSError as error:
                logger.error("adapters not looked after", extra={"reason": str(error)})
            await asyncio.sleep(LOOK_EVERY_S)

    async def look(self, now: datetime) -> None:
        """Do what is due."""
        if left := await asyncio.to_thread(self._store.tidy):
            logger.info("%d uploads that were cut short are removed", left)
        leaving = await register.leaving(self._pool)
        for each in leaving:
            if each.deleted_at + UNLOAD_AFTER <= now:
                await self._unload(each)
            if each.deleted_at + REMOVE_AFTER <= now:
                await self._remove(each.digest)
        self._unloaded = {pair for pair in self._unloaded if pair[1] in {each.digest for each in leaving}}
        for digest in await asyncio.to_thread(self._store.older_than, REMOVE_AFTER.total_seconds()):
            # Kept by an upload whose transaction failed afterwards: nobody knows of it.
            if not await register.is_known(self._pool, digest):
                await self._remove(digest)

    async def _unload(self, leaving: Leaving) -> None:
        request = client.post(b"/v1/unload_lora_adapter", msgspec.json.encode({"lora_name": leaving.digest}))
        for engine in await registry.listed(self._pool):
            done = (engine.id, leaving.digest)
            if engine.model not in leaving.base_models or engine.state != "ready" or done in self._unloaded:
                continue
            address = EngineAddress(engine.socket)
            try:
                # 404: it had not loaded it, or does so no more.
                await client.ask(address, request, ASK_TIMEOUT_S)
                self._unloaded.add(done)
            except (EngineGone, TimeoutError) as error:
                logger.warning("adapter not unloaded", extra={"replica": engine.id, "reason": str(error)})
            finally:
                address.close()

    async def _remove(self, digest: str) -> None:
        async with self._pool.acquire() as taken:
            if await register.remove(cast("asyncpg.Connection", taken), self._store, digest):
                logger.info("the files of a deleted adapter are removed", extra={"digest": digest})
