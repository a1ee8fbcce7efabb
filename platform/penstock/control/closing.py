"""The controller's loop that closes hours and days of usage, and notes what credit was left of each day."""

from __future__ import annotations

import asyncio
import logging
from typing import cast

import asyncpg

from penstock_billing import credit_days, roll_ups
from penstock_billing.shipper import DATABASE_AWAY

logger = logging.getLogger(__name__)

EVERY_S = 60.0


async def close_hours(pool: asyncpg.Pool, every_s: float = EVERY_S) -> None:
    """Sum up what ended, for ever; while it is behind, sums are as exact and cost more to read."""
    while True:
        try:
            async with pool.acquire() as connection:
                made = await roll_ups.advance(cast("asyncpg.Connection", connection))
                await credit_days.note(cast("asyncpg.Connection", connection))
            if made.hours or made.days:
                until = made.marks.hours_until
                logger.info(
                    "usage until %s is summed up: %d rows of hours, %d of days", until, made.hours, made.days
                )
        except DATABASE_AWAY as error:
            logger.warning("hours are not closed", extra={"reason": str(error)})
        await asyncio.sleep(every_s)
