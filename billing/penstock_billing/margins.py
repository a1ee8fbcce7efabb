"""What shared pools earn and what they cost: tokens charged, against minutes of their instances."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from datetime import datetime

import asyncpg
import msgspec

from penstock_base import queries

SQL = queries.load("penstock_billing", "margins.sql")
SECONDS_PER_MINUTE = 60

MinutePrice = Callable[[str, datetime], int | None]
"""Nano-dollars per minute of an instance type at a moment; None where it has no price."""


class Margin(msgspec.Struct, frozen=True, kw_only=True):
    """One model over a window."""

    model: str
    requests: int = 0
    tokens: int = 0
    earned_nano_usd: int = 0
    """Charged for requests; endpoints' own minutes are not in it."""
    instance_s: int = 0
    """Seconds that its pool's engines ran, all together."""
    cost_nano_usd: int = 0
    """Of those seconds, at the instance types' prices; without the types in `unpriced`."""
    unpriced: tuple[str, ...] = ()
    """Instance types without a price, whose cost is unknown."""

    @property
    def margin_nano_usd(self) -> int:
        """What is left."""
        return self.earned_nano_usd - self.cost_nano_usd


async def by_organisation(pool: asyncpg.Pool, since: datetime, until: datetime) -> dict[int, int]:
    """Nano-dollars that each organisation was charged for requests in [since, until), most first.

    `since` begins a UTC hour.
    """
    rows = await pool.fetch(SQL["earned"], since, until, True)
    return {row["organisation_id"]: row["cost_nano_usd"] for row in rows}


async def by_model(pool: asyncpg.Pool, since: datetime, until: datetime, price: MinutePrice) -> list[Margin]:
    """Earnings against the cost of the installation's own engines, by model, the best earner first.

    `since` begins a UTC hour.
    """
    found: defaultdict[str, Margin] = defaultdict(lambda: Margin(model=""))
    for row in await pool.fetch(SQL["earned"], since, until, False):
        found[row["model"]] = Margin(
            model=row["model"],
            requests=row["requests"],
            tokens=row["tokens"],
            earned_nano_usd=row["cost_nano_usd"],
        )
    for row in await pool.fetch(SQL["own_instances"], since, until):
        found[row["model"]] = _with(found[row["model"]], row, price)
    return sorted(found.values(), key=lambda each: (-each.earned_nano_usd, each.model))


def _with(margin: Margin, row: asyncpg.Record, price: MinutePrice) -> Margin:
    """Add an engine's time."""
    seconds = max(0, int((row["ended_at"] - row["began_at"]).total_seconds()))
    per_minute = price(row["priced_as"], row["began_at"])
    unpriced = set(margin.unpriced) | ({row["priced_as"]} if per_minute is None else set())
    return msgspec.structs.replace(
        margin,
        model=row["model"],
        instance_s=margin.instance_s + seconds,
        cost_nano_usd=margin.cost_nano_usd + seconds * (per_minute or 0) // SECONDS_PER_MINUTE,
        unpriced=tuple(sorted(unpriced)),
    )
