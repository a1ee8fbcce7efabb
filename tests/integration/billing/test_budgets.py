"""Budgets in the database: one in force per scope and period, alerts once, history for ever."""

from __future__ import annotations

import asyncio
from datetime import UTC, date, datetime

import asyncpg
import pytest

from penstock_billing import budgets
from penstock_billing.budgets import Period, Plan, Scope
from penstock_billing.errors import BudgetRefused, UnknownBudget

ACME = Scope(1)
NOW = datetime(2026, 11, 21, 12, tzinfo=UTC)


async def spend(
    database: asyncpg.Pool,
    nano_usd: int,
    *,
    month: date = date(2026, 11, 1),
    project: int = 1,
    key: str = "k",
) -> None:
    await database.execute(
        "insert into billing.spend_month as total values (1, $1, $2, $3, $4) "
        "on conflict on constraint spend_month_identity "
        "do update set cost_nano_usd = total.cost_nano_usd + excluded.cost_nano_usd",
        project,
        key,
        month,
        nano_usd,
    )


async def put(database: asyncpg.Pool, scope: Scope, period: Period, plan: Plan) -> int:
    async with database.acquire() as connection:
        return await budgets.put(connection, scope, period, plan)  # type: ignore[arg-type]


async def test_each_scope_sees_its_own_spending(database: asyncpg.Pool) -> None:
    await spend(database, 1)
    await spend(database, 20, project=2, key="other")
    await spend(database, 300, month=date(2026, 10, 1))
    for scope in (ACME, Scope(1, 1), Scope(1, None, "other"), Scope(2)):
        for period in Period:
            await put(database, scope, period, Plan(limit_nano_usd=5))
    spent = {
        (each.scope, each.period): each.spent_nano_usd for each in await budgets.live(database, None, NOW)
    }
    assert spent == {
        (ACME, Period.MONTH): 21,
        (ACME, Period.TOTAL): 321,
        (Scope(1, 1), Period.MONTH): 1,
        (Scope(1, 1), Period.TOTAL): 301,
        (Scope(1, None, "other"), Period.MONTH): 20,
        (Scope(1, None, "other"), Period.TOTAL): 20,
        (Scope(2), Period.MONTH): 0,
        (Scope(2), Period.TOTAL): 0,
    }


async def test_a_changed_budget_takes_the_place_of_the_old_one(database: asyncpg.Pool) -> None:
    first = await put(database, ACME, Period.MONTH, Plan(limit_nano_usd=5))
    same = await put(database, ACME, Period.MONTH, Plan(limit_nano_usd=5, alert_percents=(100, 80, 50, 50)))
    assert same == first
    second = await put(database, ACME, Period.MONTH, Plan(limit_nano_usd=6))
    assert second != first
    (found,) = await budgets.live(database)
    assert (found.id, found.plan.limit_nano_usd) == (second, 6)
    rows = await database.fetch("select id, ended_at is null as live from billing.budget order by id")
    assert [(row["id"], row["live"]) for row in rows] == [(first, False), (second, True)]


async def test_many_who_set_one_at_once_end_with_one(database: asyncpg.Pool) -> None:
    plans = [Plan(limit_nano_usd=limit) for limit in range(1, 9)]
    await asyncio.gather(*(put(database, ACME, Period.MONTH, plan) for plan in plans))
    assert len(await budgets.live(database)) == 1


async def test_a_removed_budget_is_history(database: asyncpg.Pool) -> None:
    made = await put(database, ACME, Period.MONTH, Plan(limit_nano_usd=5))
    await spend(database, 5)
    await budgets.raise_alerts(database, NOW)
    with pytest.raises(UnknownBudget):
        await budgets.remove(database, 2, made)
    await budgets.remove(database, 1, made)
    with pytest.raises(UnknownBudget, match="no budget"):
        await budgets.remove(database, 1, made)
    assert await budgets.live(database) == []
    assert len(await budgets.alerts(database, 1)) == 3


async def test_each_threshold_alerts_once_a_period_however_many_look(database: asyncpg.Pool) -> None:
    made = await put(database, ACME, Period.MONTH, Plan(limit_nano_usd=1_000))
    await spend(database, 499)
    assert await budgets.raise_alerts(database, NOW) == []
    await spend(database, 301)
    raised = await asyncio.gather(*(budgets.raise_alerts(database, NOW) for _ in range(8)))
    assert sorted((each.budget_id, each.percent) for some in raised for each in some) == [
        (made, 50),
        (made, 80),
    ]
    await spend(database, 200)
    (last,) = await budgets.raise_alerts(database, NOW)
    assert (last.percent, last.spent_nano_usd, last.organisation_id) == (100, 1_000, 1)
    assert await budgets.raise_alerts(database, NOW) == []
    await spend(database, 600, month=date(2026, 12, 1))
    (december,) = await budgets.raise_alerts(database, datetime(2026, 12, 2, tzinfo=UTC))
    assert (december.percent, december.period_start) == (50, date(2026, 12, 1))


async def test_what_is_shipped_after_midnight_still_alerts_for_its_month(database: asyncpg.Pool) -> None:
    await put(database, ACME, Period.MONTH, Plan(limit_nano_usd=10, alert_percents=(100,)))
    await spend(database, 10)
    (raised,) = await budgets.raise_alerts(database, datetime(2026, 12, 1, 0, 0, 5, tzinfo=UTC))
    assert raised.period_start == date(2026, 11, 1)


@pytest.mark.parametrize(
    ("scope", "plan", "field"),
    [
        (Scope(1, 1, "k"), Plan(limit_nano_usd=1), "key_id"),
        (ACME, Plan(limit_nano_usd=-1), "limit_usd"),
        (ACME, Plan(limit_nano_usd=1, alert_percents=(0,)), "alert_percents"),
        (ACME, Plan(limit_nano_usd=1, alert_percents=tuple(range(1, 12))), "alert_percents"),
    ],
)
async def test_what_is_no_budget_is_refused(
    database: asyncpg.Pool, scope: Scope, plan: Plan, field: str
) -> None:
    with pytest.raises(BudgetRefused) as refused:
        await put(database, scope, Period.MONTH, plan)
    assert refused.value.field == field


def test_months_end_where_the_next_begin() -> None:
    assert budgets.month_after(datetime(2026, 12, 31, 23, 59, tzinfo=UTC)) == datetime(2027, 1, 1, tzinfo=UTC)
    assert budgets.month_of(datetime(2026, 12, 31, 23, 59, tzinfo=UTC)) == date(2026, 12, 1)
