"""What credit a wallet had at the end of each day: noted once a day, so that a chart reads few rows.

Noted from the ledger's own entries shortly after a day ended, for the wallets whose credit moved on it. It is
derived, and only for charts: what counts are the accounts.
"""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta

import asyncpg

from penstock_base import queries

SQL = queries.load("penstock_billing", "credit_days.sql")

DAYS_BACK = 62
"""Noted at most when nobody has for long: more is in no chart."""
SETTLE = timedelta(minutes=5)
"""After a day's end, so that what was being booked then is."""
NOTE_TIMEOUT_S = 300.0


async def note(connection: asyncpg.Connection, now: datetime | None = None) -> int:
    """Note the days that ended and are not noted; returns how many wallets' days that were.

    Any number of processes may do it at once.
    """
    today = ((now or datetime.now(UTC)) - SETTLE).astimezone(UTC).date()
    mark: date = await connection.fetchval(SQL["mark"])
    since = max(mark, today - timedelta(days=DAYS_BACK))
    if since >= today:
        return 0
    async with connection.transaction():
        done = await connection.execute(SQL["note"], since, today, timeout=NOTE_TIMEOUT_S)
        await connection.execute(SQL["move_mark"], today)
    return int(done.rpartition(" ")[2])


async def of_wallet(
    connection: asyncpg.Connection | asyncpg.Pool, organisation_id: int, project_id: int, since: date
) -> dict[date, int]:
    """Credit in nano-dollars at the end of days from `since` on, for the days on which it moved.

    The last day before comes first, where there is one: until the next it stayed so.
    """
    rows = await connection.fetch(SQL["between"], organisation_id, project_id, since)
    return {row["day"]: row["credit_nano_usd"] for row in rows}
