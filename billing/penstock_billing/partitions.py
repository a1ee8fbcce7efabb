"""Daily partitions of usage events, made ahead of time."""

from __future__ import annotations

import asyncpg

from penstock_base import queries

SQL = queries.load("penstock_billing", "partitions.sql")
DAYS_AHEAD = 7


async def ensure(connection: asyncpg.Connection, days: int = DAYS_AHEAD) -> int:
    """Make the partitions from yesterday until `days` ahead (UTC) that are missing; returns how many.

    Rows that meanwhile went to the default partition move to their day's. Raises
    asyncpg.LockNotAvailableError when a long reader (or another process at the same work) is in the way for
    2 s: try again later; until then the default partition takes what has no other.
    """
    async with connection.transaction():
        await connection.execute(SQL["limit_waiting"])
        await connection.execute(SQL["lock"])
        made: int = await connection.fetchval(SQL["ensure"], days)
        return made


async def settle(connection: asyncpg.Connection, days_max: int = DAYS_AHEAD) -> int:
    """Give the oldest days that have events and no partition one, so that retention finds them; how many.

    A gateway that was cut off for days brings such. Raises as `ensure`.
    """
    async with connection.transaction():
        await connection.execute(SQL["limit_waiting"])
        await connection.execute(SQL["lock"])
        days = await connection.fetch(SQL["strayed_days"], days_max)
        return sum([await connection.fetchval(SQL["ensure_day"], row["day"]) for row in days])


async def strayed(connection: asyncpg.Connection | asyncpg.Pool) -> int:
    """Count events in the default partition: an alarm when not 0, as retention goes by partition."""
    count: int = await connection.fetchval(SQL["strayed"])
    return count
