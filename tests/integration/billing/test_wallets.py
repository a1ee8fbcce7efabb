"""Wallets as people see them, and wishes that are booked once."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import asyncpg
import pytest

from penstock_base.database import connect
from penstock_billing import budgets, invariants, promotions, wallets
from penstock_billing.budgets import Period, Plan, Scope
from penstock_billing.errors import LedgerRefused
from penstock_billing.leases import Wallet
from penstock_billing.record import Funding
from penstock_billing.wishes import Wish

OURS, PROJECTS = Wallet(1), Wallet(1, 5)


@pytest.fixture
async def connection(database: asyncpg.Pool) -> AsyncIterator[Any]:
    async with database.acquire() as one:
        yield one


async def test_a_top_up_asked_for_by_many_at_once_is_booked_once(database: asyncpg.Pool) -> None:
    async def one(number: int) -> tuple[int, bool]:
        async with database.acquire() as own:
            wish = Wish(ref="wire 9", amount_nano_usd=7)
            if number % 2:
                booked = await wallets.top_up(own, wish, OURS)  # type: ignore[arg-type]
            else:
                booked = await promotions.promote(own, Wish(ref="gift", amount_nano_usd=3), OURS, None)  # type: ignore[arg-type]
            return booked.id, booked.repeated

    answers = await asyncio.gather(*(one(number) for number in range(20)))
    assert sum(not repeated for _, repeated in answers) == 2
    assert len({number for number, _ in answers}) == 2
    (state,) = await wallets.states(database, 1)
    assert (state.prepaid_nano_usd, state.promotional_nano_usd) == (7, 3)
    assert [each.left_nano_usd for each in state.promotions] == [3]
    async with database.acquire() as connection:
        assert await invariants.check(connection) == []  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "ref", ["ship:a-0:1", "lease:1:1", "minutes:1:1", "promotion-expiry:1:0", "", "x" * 201]
)
async def test_a_reference_that_the_platform_may_need_is_refused(connection: Any, ref: str) -> None:
    with pytest.raises(LedgerRefused):
        await wallets.top_up(connection, Wish(ref=ref, amount_nano_usd=7), OURS)
    assert await connection.fetchval("select count(*) from billing.ledger_transaction") == 0


async def test_who_has_no_wallet_spends_the_organisations(connection: Any) -> None:
    for project, cost in ((5, 700), (6, 7_000), (7, 70_000)):
        await connection.execute(
            "insert into billing.usage_minute (organisation_id, minute, project_id, key_id, model, "
            "price_version, outcome, requests, input_tokens, cached_tokens, output_tokens, reasoning_tokens, "
            "cost_nano_usd) "
            "values (1, date_trunc('minute', now()), $1, 'k', 'm', 1, 'done', 1, 0, 0, 0, 0, $2)",
            project,
            cost,
        )
    await wallets.set_terms(connection, PROJECTS, Funding.PREPAID)
    await wallets.top_up(connection, Wish(ref="t", amount_nano_usd=1_000), PROJECTS)
    ours, projects = await wallets.states(connection, 1)
    assert (ours.burn_per_day_nano_usd, projects.burn_per_day_nano_usd) == (11_000, 100)
    assert (ours.days_left, projects.days_left) == (None, 10)


async def test_terms_replace_terms(connection: Any) -> None:
    await wallets.set_terms(connection, OURS, Funding.PREPAID, strict=True)
    await wallets.set_terms(connection, OURS, Funding.POSTPAID, owed_max_nano_usd=5)
    (state,) = await wallets.states(connection, 1)
    assert (state.funding, state.strict, state.owed_max_nano_usd) == (Funding.POSTPAID, False, 5)


async def test_running_processes_cannot_delete_what_was_given_allowed_or_told(
    database_url: str, database: asyncpg.Pool
) -> None:
    own = await connect(database_url, "test")
    try:
        await promotions.promote(own, Wish(ref="g", amount_nano_usd=3), OURS, None)
        await wallets.set_terms(own, OURS, Funding.PREPAID)
        made = await budgets.put(own, Scope(1), Period.MONTH, Plan(limit_nano_usd=5))
        await budgets.raise_alerts(own)
        await budgets.remove(own, 1, made)
        for table in ("promotion", "wallet", "budget", "budget_alert", "refund"):
            with pytest.raises(asyncpg.InsufficientPrivilegeError):
                await own.execute(f"delete from billing.{table}")
    finally:
        await own.close()
    assert await database.fetchval("select count(*) from billing.budget where ended_at is not null") == 1
