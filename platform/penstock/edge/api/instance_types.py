"""`GET /api/v1/instance-types`: the slices of hardware there are, and what an hour of each costs."""

from __future__ import annotations

import time
from typing import Any

import asyncpg
from litestar import get
from litestar.di import NamedDependency
from litestar.handlers import HTTPRouteHandler

from penstock.access.keyring import Principal
from penstock_base import money
from penstock_billing.prices import PriceBook
from penstock_engines import instance_types, pools

MINUTES_PER_HOUR = 60


def routes(pool: asyncpg.Pool, book: PriceBook) -> list[HTTPRouteHandler]:
    """The handler."""

    @get("/api/v1/instance-types")
    async def show_instance_types(principal: NamedDependency[Principal]) -> dict[str, Any]:
        hardware = await pools.hardware(pool)
        types = instance_types.offered(hardware) if hardware is not None else []
        prices = {
            each.name: book.minute_price("instance", each.name, principal.organisation_id, time.time())
            for each in types
        }
        return {
            "data": [
                {
                    "name": each.name,
                    "device": each.device.value,
                    "gpus": each.gpus,
                    "memory_gib": round(each.memory_gib, 1),
                    "usd_per_hour": money.nano_to_usd(price.nano_usd_per_minute * MINUTES_PER_HOUR)
                    if (price := prices[each.name]) is not None
                    else None,
                }
                for each in types
            ]
        }

    return [show_instance_types]
