"""The controller's loops over spending: thresholds of budgets are told, promotional credit expires."""

from __future__ import annotations

import asyncio
import logging
from typing import cast

import asyncpg

from penstock.observe import budget_metrics
from penstock_base import money
from penstock_billing import budgets, promotions
from penstock_billing.shipper import DATABASE_AWAY

logger = logging.getLogger(__name__)

EVERY_S = 5.0
EXPIRE_EVERY_S = 60.0


async def watch_budgets(pool: asyncpg.Pool, every_s: float = EVERY_S) -> None:
    """Note what was passed, for ever: a row, a log line and a count, once per threshold and period."""
    while True:
        try:
            await tell(pool)
        except DATABASE_AWAY as error:
            logger.warning("budgets are not watched", extra={"reason": str(error)})
        await asyncio.sleep(every_s)


async def tell(pool: asyncpg.Pool) -> None:
    """Note and tell what was passed since the last time."""
    for alert in await budgets.raise_alerts(pool):
        budget_metrics.ALERTS.labels(str(alert.percent)).inc()
        logger.warning(
            "%d %% of a budget are spent",
            alert.percent,
            extra={
                "organisation_id": alert.organisation_id,
                "budget": alert.budget_id,
                "percent": alert.percent,
            },
        )


async def expire_promotions(pool: asyncpg.Pool, every_s: float = EXPIRE_EVERY_S) -> None:
    """Book what is left of promotions whose time is over, for ever; each part once, whoever else does so."""
    while True:
        try:
            async with pool.acquire() as connection:
                expired = await promotions.expire_due(cast("asyncpg.Connection", connection))
            budget_metrics.EXPIRED.inc(expired)
            if expired:
                logger.info("promotional credit of %s US dollars expired", money.nano_to_usd(expired))
        except DATABASE_AWAY as error:
            logger.warning("promotions do not expire", extra={"reason": str(error)})
        await asyncio.sleep(every_s)
