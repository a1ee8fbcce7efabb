"""Minutes are summed up to hours, and hours to days, behind a mark that only moves forward.

An hour is closed once, some minutes after it ended. What still comes for it, however late, the shipper adds
to minute, hour and day in one transaction (`sql/shipping.sql`): so the sums are exact at any moment, and
closing is only about how few rows a question has to read.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import asyncpg
import msgspec

from penstock_base import queries

SQL = queries.load("penstock_billing", "roll_ups.sql")

SETTLE = timedelta(minutes=5)
"""After an hour's end until it is closed. Nothing depends on it but how many records come late."""
HOURS_A_STEP = 6
"""Closed in one transaction, during which nothing is shipped: a fraction of a second each."""
STEPS_MAX = 2000
"""In one call: more than a year of absence."""
CLOSE_TIMEOUT_S = 300.0
HOUR = timedelta(hours=1)
DAY = timedelta(days=1)


class Marks(msgspec.Struct, frozen=True):
    """How far usage is summed up; what lies behind a mark is in the sums whenever it is in the minutes."""

    hours_until: datetime
    days_until: datetime


class Progress(msgspec.Struct, frozen=True):
    """What one step did."""

    marks: Marks
    hours: int
    """Rows of hours that were written."""
    days: int
    """Rows of days that were written."""
    finished: bool
    """Nothing is left that could be closed."""


async def marks(connection: asyncpg.Connection | asyncpg.Pool) -> Marks:
    """Read how far hours and days are summed up."""
    row = await connection.fetchrow(SQL["marks"])
    assert row is not None
    return Marks(row["hours_until"], row["days_until"])


async def advance(connection: asyncpg.Connection, now: datetime | None = None) -> Progress:
    """Close every hour and day that ended long enough before `now` (the database's clock, by default).

    One step after the other, so shippers get their turns and what is done stays done; any number of processes
    may call it at once. Raises asyncpg.LockNotAvailableError when a shipper is in the way for 2 s: try later.
    """
    hours = days = 0
    for _ in range(STEPS_MAX):
        made = await step(connection, now)
        hours += made.hours
        days += made.days
        if made.finished:
            break
    return Progress(made.marks, hours, days, made.finished)


async def step(connection: asyncpg.Connection, now: datetime | None = None) -> Progress:
    """Close at most HOURS_A_STEP hours, and the days that are whole then, in one transaction."""
    async with connection.transaction():
        await connection.execute(SQL["limit_waiting"])
        await connection.execute(SQL["stop_shippers"])
        row = await connection.fetchrow(SQL["marks"])
        assert row is not None
        target = whole(((now or row["now"]) - SETTLE).astimezone(UTC), HOUR)
        since: datetime = row["hours_until"]
        until = max(since, min(target, since + HOURS_A_STEP * HOUR))
        hours = await _close(connection, "hour", since, until)
        if hours:
            await connection.execute(SQL["close_earned"], since, until, timeout=CLOSE_TIMEOUT_S)
        if not hours and until < target:
            # Empty years take no steps.
            following: datetime | None = await connection.fetchval(SQL["next_minute"], until)
            until = min(target, whole(following.astimezone(UTC), HOUR)) if following else target
            await connection.execute(SQL["move_mark"], "hour", until)
        days_since: datetime = row["days_until"]
        days_until = max(days_since, whole(until, DAY))
        days = await _close(connection, "day", days_since, days_until)
    return Progress(Marks(until, days_until), hours, days, until >= target)


async def _close(connection: asyncpg.Connection, level: str, since: datetime, until: datetime) -> int:
    """Sum up [since, until) and move the mark; returns the rows."""
    done = "INSERT 0 0"
    if since < until:
        done = await connection.execute(SQL[f"close_{level}s"], since, until, timeout=CLOSE_TIMEOUT_S)
    await connection.execute(SQL["move_mark"], level, until)
    return int(done.rpartition(" ")[2])


def whole(moment: datetime, unit: timedelta) -> datetime:
    """Round down to a whole hour or day, UTC."""
    epoch = datetime(1970, 1, 1, tzinfo=UTC)
    return moment - (moment - epoch) % unit
