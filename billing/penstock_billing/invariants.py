"""What must hold in the database at any moment (DESIGN.md, invariants 2 and 6), as checks."""

from __future__ import annotations

import enum
from datetime import datetime
from typing import Any

import asyncpg
import msgspec

from penstock_base import queries

SQL = queries.load("penstock_billing", "invariants.sql")


class Check(enum.StrEnum):
    """Each is a query that finds what breaks it; its value is the query's name."""

    TRANSACTIONS_BALANCE = "unbalanced_transactions"
    """The entries of each ledger transaction sum to 0, and there are some."""
    BALANCES_ARE_SUMS = "wrong_balances"
    """Each account's balance is the sum of its entries."""
    ROLL_UPS_ARE_SUMS = "wrong_roll_ups"
    """Each roll-up row is the sum of its events, and every event is in one."""
    FILES_ARE_SUMS = "wrong_archives"
    """What files have, and what came since for their days, is what the roll-up says."""
    HOURS_ARE_SUMS = "wrong_hours"
    """Each hour before the mark is the sum of its minutes."""
    EARNED_IS_USAGE = "wrong_earned"
    """What operators' pages say was earned is the sum of all tenants' minutes."""
    DAYS_ARE_SUMS = "wrong_days"
    """Each day before the mark is the sum of its minutes."""
    SPENDING_IS_USAGE = "wrong_spending"
    """What budgets go by is what the roll-up says."""
    REVENUE_IS_USAGE = "wrong_revenue"
    """Per organisation, revenue is what its requests and minutes cost."""
    BOOKINGS_ARE_EVENTS = "wrong_bookings"
    """Each usage transaction books exactly the events that name it."""
    LEASES_ARE_HELD = "wrong_leases"
    """Each wallet's lease account is what its open leases have left."""
    MINUTES_ARE_PRICED = "wrong_minutes"
    """Each charge for minutes is their number times their price."""
    COSTS_ARE_REPRODUCED = "wrong_costs"
    """Each event's cost follows from its tokens and its price version."""


WINDOWED = frozenset(
    {
        Check.ROLL_UPS_ARE_SUMS,
        Check.HOURS_ARE_SUMS,
        Check.EARNED_IS_USAGE,
        Check.DAYS_ARE_SUMS,
        Check.BOOKINGS_ARE_EVENTS,
        Check.COSTS_ARE_REPRODUCED,
    }
)
"""Checks that can look at a part of time; the others only hold over everything."""
SAID = frozenset({"what", "found", "expected"})
"""The columns that every check has."""


class Difference(msgspec.Struct, frozen=True):
    """Something that is not as it must be."""

    check: Check
    what: str
    found: str
    expected: str
    keys: dict[str, Any] = {}
    """What names it, column by column, where there is more to say than `what`."""


async def check(
    connection: asyncpg.Connection,
    checks: frozenset[Check] = frozenset(Check),
    *,
    since: datetime | None = None,
    until: datetime | None = None,
) -> list[Difference]:
    """Run checks over everything in one snapshot, so shippers at work make no false alarm; [] when all hold.

    `since` and `until` are UTC midnights; those of `checks` that are WINDOWED look only at what happened
    between them. Reads whole tables, or all of the window: for tests and for reconciling, not for requests.
    """
    async with connection.transaction(isolation="repeatable_read", readonly=True):
        return [
            Difference(
                each,
                row["what"],
                str(row["found"]),
                str(row["expected"]),
                {name: value for name, value in row.items() if name not in SAID},
            )
            for each in Check
            if each in checks
            for row in await connection.fetch(SQL[each.value], *((since, until) if each in WINDOWED else ()))
        ]
