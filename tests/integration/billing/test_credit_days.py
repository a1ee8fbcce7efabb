"""Credit at the ends of days: what the entries say, noted once, whenever somebody gets to it."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import asyncpg

from penstock_billing import credit_days
from penstock_billing.leases import Wallet
from penstock_billing.testing import credit_nano_usd, fund, in_the_past

OWN = Wallet(7, 0)
TEN = datetime.now(UTC).replace(hour=10, minute=0, second=0, microsecond=0)


async def moved_days_ago(connection: asyncpg.Connection, days: int, nano_usd: int) -> None:
    """Add to a wallet's credit, as if it had been some days ago."""
    await fund(connection, OWN, nano_usd)
    booked = await connection.fetchval("select max(id) from billing.ledger_transaction")
    async with in_the_past(connection):
        await connection.execute(
            "update billing.ledger_transaction set booked_at = $2 where id = $1",
            booked,
            TEN - timedelta(days=days),
        )


async def test_each_day_has_what_its_entries_left(database: asyncpg.Pool) -> None:
    async with database.acquire() as connection:
        for days, amount in ((5, 100), (5, 11), (3, 20), (0, 1000)):
            await moved_days_ago(connection, days, amount)
        assert await credit_days.note(connection) == 2
        today = datetime.now(UTC).date()
        found = await credit_days.of_wallet(connection, 7, 0, today - timedelta(days=4))
        # The day before the first is there, because until the next the credit stayed so.
        assert found == {today - timedelta(days=5): 111, today - timedelta(days=3): 131}
        assert await credit_nano_usd(connection, OWN) == 1131
        assert await credit_days.of_wallet(connection, 8, 0, today - timedelta(days=9)) == {}


async def test_noting_again_changes_nothing_and_days_off_are_caught_up(database: asyncpg.Pool) -> None:
    async with database.acquire() as connection:
        await moved_days_ago(connection, 3, 5)
        assert await credit_days.note(connection, datetime.now(UTC) - timedelta(days=1)) == 1
        assert await credit_days.note(connection, datetime.now(UTC) - timedelta(days=1)) == 0
        await moved_days_ago(connection, 1, 7)
        assert await credit_days.note(connection) == 1
        today = datetime.now(UTC).date()
        assert await credit_days.of_wallet(connection, 7, 0, today - timedelta(days=9)) == {
            today - timedelta(days=3): 5,
            today - timedelta(days=1): 12,
        }
