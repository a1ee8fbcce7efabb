from __future__ import annotations

from collections.abc import Callable

import asyncpg
import pytest

from penstock_billing import invariants
from penstock_billing.invariants import Check
from penstock_billing.journal import Journal
from penstock_billing.record import Outcome, UsageRecord
from penstock_billing.shipper import Shipper

ONE_ENTRY = "(transaction_id, account_id) = (select min(transaction_id), min(account_id) from billing.entry)"

TAMPERING = {
    f"update billing.entry set amount_nano_usd = amount_nano_usd + 1 where {ONE_ENTRY}": {
        Check.TRANSACTIONS_BALANCE,
        Check.BALANCES_ARE_SUMS,
    },
    "delete from billing.entry": {
        Check.TRANSACTIONS_BALANCE,
        Check.BALANCES_ARE_SUMS,
        Check.REVENUE_IS_USAGE,
        Check.BOOKINGS_ARE_EVENTS,
    },
    "update billing.account set posted_nano_usd = posted_nano_usd - 1": {Check.BALANCES_ARE_SUMS},
    "update billing.usage_minute set output_tokens = output_tokens + 1": {Check.ROLL_UPS_ARE_SUMS},
    "delete from billing.usage_minute": {
        Check.ROLL_UPS_ARE_SUMS,
        Check.SPENDING_IS_USAGE,
        Check.REVENUE_IS_USAGE,
    },
    "update billing.spend_month set cost_nano_usd = cost_nano_usd + 1": {Check.SPENDING_IS_USAGE},
    "delete from billing.usage_event": {Check.ROLL_UPS_ARE_SUMS, Check.BOOKINGS_ARE_EVENTS},
    "update billing.usage_event set cost_nano_usd = cost_nano_usd + 1": {
        Check.ROLL_UPS_ARE_SUMS,
        Check.BOOKINGS_ARE_EVENTS,
        Check.COSTS_ARE_REPRODUCED,
    },
    "update billing.usage_event set ledger_transaction_id = 0": {Check.BOOKINGS_ARE_EVENTS},
    "update billing.price_version set output_pico_usd = output_pico_usd + 1000000": {
        Check.COSTS_ARE_REPRODUCED
    },
    "update billing.price_version set model = 'another'": {Check.COSTS_ARE_REPRODUCED},
}


@pytest.fixture
async def honest(
    database: asyncpg.Pool, journal: Journal, shipper: Shipper, make: Callable[..., UsageRecord]
) -> asyncpg.Pool:
    for outcome in Outcome:
        for _ in range(10):
            journal.append(make(outcome=outcome))
    await shipper.ship_once()
    async with database.acquire() as connection:
        assert await invariants.check(connection) == []
    return database


@pytest.mark.parametrize(("tampering", "broken"), list(TAMPERING.items()))
async def test_whatever_is_changed_behind_our_back_is_found(
    honest: asyncpg.Pool, tampering: str, broken: set[Check]
) -> None:
    async with honest.acquire() as connection:
        # Only so can a superuser get past the triggers.
        await connection.execute("set session_replication_role = replica")
        await connection.execute(tampering)
        await connection.execute("reset session_replication_role")
        found = await invariants.check(connection)
    assert {each.check for each in found} >= broken
    assert {each.check for each in found} <= broken | {Check.BOOKINGS_ARE_EVENTS, Check.REVENUE_IS_USAGE}
    assert all(each.found != each.expected for each in found)
