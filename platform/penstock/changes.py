"""Telling other processes at once that something changed, over Redis.

Only speed hangs on it: whoever listens also asks Postgres every second, so a lost message costs a second.
"""

from __future__ import annotations

import asyncio
import logging
from enum import StrEnum

import redis.asyncio as redis
from redis.exceptions import RedisError

logger = logging.getLogger(__name__)

CHANNEL = "penstock:changes"
TIMEOUT_S = 2.0
PAUSE_S = 1.0
REDIS_AWAY = (RedisError, OSError, TimeoutError, RuntimeError)
"""What asking Redis raises while it is away; the last is uvloop's word for a connection that was just cut."""


class Change(StrEnum):
    """What changed; listeners read it anew."""

    KEYS = "keys"
    """A key was made or revoked."""
    REPLICAS = "replicas"
    """An engine changed its state."""
    PRICES = "prices"
    """A price version was added."""
    BUDGETS = "budgets"
    """A budget was set or removed."""
    POOLS = "pools"
    """A pool is to be another."""
    ENDPOINTS = "endpoints"
    """An endpoint was made, changed or deleted."""
    ADAPTERS = "adapters"
    """An adapter was uploaded, changed or deleted."""
    LOAD = "load"
    """Somebody waits for a model that sleeps."""


class Changes:
    """One process's end of the channel."""

    def __init__(self, url: str) -> None:
        self._redis = redis.Redis.from_url(
            url, socket_timeout=None, socket_connect_timeout=TIMEOUT_S, health_check_interval=10
        )
        self.connected = False
        self._told = True
        """Whether the last change could be announced: trouble is said once."""

    async def tell(self, change: Change) -> None:
        """Say it; a Redis that is away is no error, since listeners also ask."""
        try:
            async with asyncio.timeout(TIMEOUT_S):
                await self._redis.publish(CHANNEL, change.value)
            self._told = True
        except REDIS_AWAY as error:
            if self._told:
                logger.warning("changes are not announced", extra={"reason": str(error)})
            self._told = False

    async def listen(self, heard: asyncio.Event) -> None:
        """Set `heard` on every message, until cancelled; reconnects, and then sets it too."""
        while True:
            try:
                async with self._redis.pubsub() as channel:
                    await channel.subscribe(CHANNEL)
                    self.connected = True
                    heard.set()
                    async for message in channel.listen():
                        if message["type"] == "message":
                            heard.set()
            except REDIS_AWAY as error:
                if self.connected:
                    logger.warning("Redis is away", extra={"reason": str(error)})
            self.connected = False
            await asyncio.sleep(PAUSE_S)

    async def close(self) -> None:
        """Close the connections."""
        await self._redis.aclose()
