"""Events, roll-ups, ledger, leases and minutes against each other; each difference with its requests."""

from __future__ import annotations

from collections import Counter
from datetime import UTC, datetime, timedelta

import asyncpg

from penstock_base import queries
from penstock_billing import invariants, minutes
from penstock_billing.invariants import Check
from penstock_billing.prices import PriceBook
from penstock_billing.reconcile.report import Compared, Difference, difference

SQL = queries.load("penstock_billing", "reconcile.sql")

DAY = timedelta(days=1)
BEGINNING = datetime(1970, 1, 1, tzinfo=UTC)
END = datetime(2100, 1, 1, tzinfo=UTC)


def midnight(moment: datetime) -> datetime:
    """The beginning of a moment's UTC day."""
    return moment.astimezone(UTC).replace(hour=0, minute=0, second=0, microsecond=0)


async def compare(
    connection: asyncpg.Connection, since: datetime | None, until: datetime
) -> list[Difference]:
    """Compare the books; days that the window touches are looked at whole, the ledger always is."""
    first = None if since is None else midnight(since)
    last = None if since is None else midnight(until) + DAY
    return [
        difference(found.check, found.what, found.found, found.expected, await _explain(connection, found))
        for found in await invariants.check(connection, since=first, until=last)
    ]


async def _explain(connection: asyncpg.Connection, found: invariants.Difference) -> list[str]:
    """Name the requests behind a difference, as far as journals and events can tell."""
    keys = found.keys
    match found.check:
        case Check.ROLL_UPS_ARE_SUMS:
            names = (
                *("organisation_id", "minute", "project_id", "key_id"),
                *("model", "price_version", "outcome", "endpoint"),
            )
            rows = await connection.fetch(SQL["explain_roll_up"], *(keys[name] for name in names))
        case Check.BOOKINGS_ARE_EVENTS:
            rows = await connection.fetch(
                SQL["explain_booking"], keys["ledger_transaction_id"], keys["organisation_id"], BEGINNING, END
            )
        case Check.REVENUE_IS_USAGE:
            rows = await connection.fetch(SQL["explain_organisation"], keys["organisation_id"])
        case _:
            return [keys["request_id"]] if "request_id" in keys else []
    return [row["request_id"] for row in rows]


async def compare_minutes(
    connection: asyncpg.Connection, since: datetime, until: datetime
) -> tuple[list[Difference], int]:
    """Charge every interval that touches the window again, in mind; also how many there were."""
    book = PriceBook()
    await book.load(connection)
    differences = []
    rows = await connection.fetch(SQL["charged_intervals"], since, until)
    for row in rows:
        charged = Counter(dict(zip(row["versions"], row["minutes"], strict=True)))
        due: Counter[int] = Counter()
        parts = minutes.rate(
            *(book, row["kind"], row["priced_as"], row["organisation_id"]),
            *(row["started_at"], row["accrued_until"]),
        )
        for part in parts:
            if part.price is not None:
                due[part.price.id] += part.minutes
        if charged != due:
            what = f"{row['kind']} {row['subject']}, interval {row['id']}, by price version"
            differences.append(difference(Compared.MINUTES_ARE_INTERVALS, what, dict(charged), dict(due)))
    differences += [
        difference(
            Compared.INTERVALS_ARE_APART,
            f"{row['kind']} {row['subject']}",
            f"intervals {row['earlier']} and {row['later']} at once",
            "one after the other",
        )
        for row in await connection.fetch(SQL["overlapping_intervals"], since)
    ]
    differences += [
        difference(
            Compared.MINUTES_ARE_BOOKED,
            f"transaction {row['ledger_transaction_id']}, organisation {row['organisation_id']}",
            row["found"],
            row["expected"],
        )
        for row in await connection.fetch(SQL["wrong_minute_bookings"])
    ]
    return differences, len(rows)
