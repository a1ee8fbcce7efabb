"""Budgets: what an organisation, a project or a key may spend in a UTC month, or ever.

What was spent is `billing.spend_month`, which is written in the transaction that adds the usage: a budget
goes by what requests cost, whatever they were paid from, and a refund makes no room in it. Changing a budget
ends it and begins another, so that its history stays. Gateways enforce them (`penstock.admission.budgets`).
"""

from __future__ import annotations

import enum
from datetime import UTC, date, datetime, timedelta

import asyncpg
import msgspec

from penstock_base import queries
from penstock_billing.errors import BudgetRefused, UnknownBudget

SQL = queries.load("penstock_billing", "budgets.sql")

ALERTS_DEFAULT = (50, 80, 100)
ALERTS_MAX = 10
PERCENT_MAX = 1000
LATE = timedelta(hours=1)
"""So long into a month, usage of the month before may still come in and pass a threshold."""

Database = asyncpg.Connection | asyncpg.Pool


class Period(enum.StrEnum):
    """What time a budget is for."""

    MONTH = "month"
    """A UTC calendar month; it begins anew with each."""
    TOTAL = "total"
    """All time: it never begins anew."""


class Scope(msgspec.Struct, frozen=True):
    """Whose spending: the whole organisation's, one project's, or one key's."""

    organisation_id: int
    project_id: int | None = None
    key_id: str | None = None


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """What a budget allows."""

    limit_nano_usd: int
    alert_percents: tuple[int, ...] = ALERTS_DEFAULT
    """Shares of the limit at which somebody is to be told."""
    enforced: bool = True
    """Whether requests beyond it are refused (hard); else it only alerts (soft)."""


class Budget(msgspec.Struct, frozen=True, kw_only=True):
    """A budget in force, and what was spent in its present period as far as that is shipped."""

    id: int
    scope: Scope
    period: Period
    plan: Plan
    created_at: datetime
    spent_nano_usd: int

    def resets_at(self, now: datetime) -> datetime | None:
        """When it begins anew; None for never."""
        return month_after(now) if self.period is Period.MONTH else None


class Alert(msgspec.Struct, frozen=True, kw_only=True):
    """A threshold that was passed."""

    budget_id: int
    period_start: date
    percent: int
    spent_nano_usd: int
    raised_at: datetime | None = None
    organisation_id: int | None = None


def month_of(moment: datetime) -> date:
    """The first day of its UTC month."""
    return moment.astimezone(UTC).date().replace(day=1)


def month_after(moment: datetime) -> datetime:
    """The moment the next UTC month begins."""
    first = month_of(moment)
    year, month = divmod(first.month, 12)
    return datetime(first.year + year, month + 1, 1, tzinfo=UTC)


def validate(scope: Scope, plan: Plan) -> None:
    """Raise BudgetRefused for what is no budget."""
    if scope.project_id is not None and scope.key_id is not None:
        raise BudgetRefused("a budget is for a project or for a key, not for both", "key_id")
    if plan.limit_nano_usd < 0:
        raise BudgetRefused("the limit must be 0 or more", "limit_usd")
    percents = plan.alert_percents
    if len(percents) > ALERTS_MAX or any(not 1 <= percent <= PERCENT_MAX for percent in percents):
        raise BudgetRefused(
            f"alerts are up to {ALERTS_MAX} percentages from 1 to {PERCENT_MAX}, such as 50, 80, 100",
            "alert_percents",
        )


async def live(
    connection: Database, organisation_id: int | None = None, now: datetime | None = None
) -> list[Budget]:
    """Every budget in force, or an organisation's, with what is spent."""
    rows = await connection.fetch(SQL["live"], month_of(now or datetime.now(UTC)), organisation_id)
    return [
        Budget(
            id=row["id"],
            scope=Scope(row["organisation_id"], row["project_id"], row["key_id"]),
            period=Period(row["period"]),
            plan=Plan(
                limit_nano_usd=row["limit_nano_usd"],
                alert_percents=tuple(row["alert_percents"]),
                enforced=row["enforced"],
            ),
            created_at=row["created_at"],
            spent_nano_usd=row["spent_nano_usd"],
        )
        for row in rows
    ]


async def spent_nano_usd(connection: Database, organisation_id: int, month: date) -> int:
    """What an organisation's requests cost in a UTC month, as far as they are shipped."""
    spent: int = await connection.fetchval(SQL["spent"], organisation_id, month)
    return spent


async def put(connection: asyncpg.Connection, scope: Scope, period: Period, plan: Plan) -> int:
    """Set the budget of a scope and period, in place of the one in force; returns its number.

    Setting what is in force already changes nothing. Raises BudgetRefused.
    """
    validate(scope, plan)
    plan = msgspec.structs.replace(plan, alert_percents=tuple(sorted(set(plan.alert_percents))))
    key = (scope.organisation_id, scope.project_id, scope.key_id, period.value)
    async with connection.transaction():
        await connection.execute(SQL["lock_organisation"], scope.organisation_id)
        before = await connection.fetchrow(SQL["find"], *key)
        if before is not None:
            if _plan(before) == plan:
                return int(before["id"])
            await connection.execute(SQL["end"], scope.organisation_id, before["id"])
        made: int = await connection.fetchval(
            SQL["add"], *key, plan.limit_nano_usd, list(plan.alert_percents), plan.enforced
        )
        return made


async def remove(connection: Database, organisation_id: int, budget_id: int) -> None:
    """End a budget; its history stays. Raises UnknownBudget."""
    known = 0 < budget_id < 2**63
    if not known or await connection.fetchval(SQL["end"], organisation_id, budget_id) is None:
        raise UnknownBudget(f"there is no budget {budget_id} in force here: see `penstock budgets list`")


async def alerts(connection: Database, organisation_id: int, limit: int = 100) -> list[Alert]:
    """What an organisation's budgets raised, latest first; those of ended budgets too."""
    rows = await connection.fetch(SQL["alerts"], organisation_id, limit)
    return [Alert(**dict(row), organisation_id=organisation_id) for row in rows]


async def raise_alerts(connection: Database, now: datetime | None = None) -> list[Alert]:
    """Note every threshold that was passed and not noted yet; each is returned once, however many ask."""
    now = now or datetime.now(UTC)
    months = sorted({month_of(now), month_of(now - LATE)})
    raised = await connection.fetch(SQL["raise_alerts"], months)
    owners = {
        row["id"]: row["organisation_id"]
        for row in await connection.fetch(SQL["alerted"], [row["budget_id"] for row in raised])
    }
    return [Alert(**dict(row), organisation_id=owners[row["budget_id"]]) for row in raised]


def _plan(row: asyncpg.Record) -> Plan:
    return Plan(
        limit_nano_usd=row["limit_nano_usd"],
        alert_percents=tuple(row["alert_percents"]),
        enforced=row["enforced"],
    )
