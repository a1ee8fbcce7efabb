"""The management API of budgets: `/api/v1/budgets`. The tenant comes from the credential only."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, cast

import asyncpg
import msgspec
from litestar import delete, get, put
from litestar.di import NamedDependency
from litestar.handlers import HTTPRouteHandler
from litestar.params import FromPath, JSONBody

from penstock.access import keys
from penstock.access.keyring import Principal
from penstock.changes import Change, Changes
from penstock.edge.refusals import BadRequest, NotFound
from penstock_base import money
from penstock_billing import budgets
from penstock_billing.budgets import Budget, Period, Plan, Scope
from penstock_billing.errors import BudgetRefused, UnknownBudget

LIMIT_MAX_NANO_USD = 2**62


class Asked(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """A budget as it is set: of the organisation, or of one of its projects or keys."""

    limit_usd: str
    """US dollars as text, such as "25.00"."""
    period: Period = Period.MONTH
    project: str | None = None
    key_id: str | None = None
    alert_percents: tuple[int, ...] = budgets.ALERTS_DEFAULT
    hard: bool = True


def routes(pool: asyncpg.Pool, changes: Changes) -> list[HTTPRouteHandler]:
    """The handlers over this database."""

    async def one(organisation_id: int, budget_id: int) -> dict[str, Any]:
        found = await budgets.live(pool, organisation_id)
        (budget,) = (each for each in found if each.id == budget_id)
        return (await shown(pool, [budget]))[0]

    @get("/api/v1/budgets")
    async def show_budgets(principal: NamedDependency[Principal]) -> dict[str, Any]:
        found = await budgets.live(pool, principal.organisation_id)
        alerts = await budgets.alerts(pool, principal.organisation_id)
        told = [msgspec.to_builtins(alert) for alert in alerts]
        for alert in told:
            del alert["organisation_id"]
        return {"data": await shown(pool, found), "alerts": told}

    @put("/api/v1/budgets")
    async def set_budget(principal: NamedDependency[Principal], data: JSONBody[Asked]) -> dict[str, Any]:
        made = await put_one(pool, changes, principal.organisation_id, data)
        return await one(principal.organisation_id, made)

    @delete("/api/v1/budgets/{budget_id:int}")
    async def remove_budget(principal: NamedDependency[Principal], budget_id: FromPath[int]) -> None:
        await remove_one(pool, changes, principal.organisation_id, budget_id)

    return [show_budgets, set_budget, remove_budget]


async def put_one(pool: asyncpg.Pool, changes: Changes, organisation_id: int, asked: Asked) -> int:
    """Set a budget as it is asked for; returns its number. Raises BadRequest naming the field."""
    plan = plan_of(asked.limit_usd, asked.alert_percents, hard=asked.hard)
    async with pool.acquire() as connection:
        scope = await _scope(cast("asyncpg.Connection", connection), organisation_id, asked)
    return await put_plan(pool, changes, scope, asked.period, plan)


def plan_of(limit_usd: str, alert_percents: tuple[int, ...], *, hard: bool) -> Plan:
    """Understand what a budget allows; raises BadRequest."""
    try:
        limit_nano_usd = money.usd_to_nano(limit_usd)
    except ValueError as error:
        raise BadRequest(f"limit_usd: {error}", param="limit_usd") from None
    if limit_nano_usd > LIMIT_MAX_NANO_USD:
        raise BadRequest("limit_usd: that is more than an account can hold", param="limit_usd")
    return Plan(limit_nano_usd=limit_nano_usd, alert_percents=alert_percents, enforced=hard)


async def put_plan(pool: asyncpg.Pool, changes: Changes, scope: Scope, period: Period, plan: Plan) -> int:
    """Set the budget of a scope, and tell the gateways. Raises BadRequest."""
    async with pool.acquire() as connection:
        try:
            made = await budgets.put(cast("asyncpg.Connection", connection), scope, period, plan)
        except BudgetRefused as error:
            raise BadRequest(str(error), param=error.field) from None
    await changes.tell(Change.BUDGETS)
    return made


async def remove_one(pool: asyncpg.Pool, changes: Changes, organisation_id: int, budget_id: int) -> None:
    """End a budget and tell the gateways; raises NotFound."""
    try:
        await budgets.remove(pool, organisation_id, budget_id)
    except UnknownBudget:
        raise NotFound(f"there is no budget {budget_id} in force here") from None
    await changes.tell(Change.BUDGETS)


async def shown(pool: asyncpg.Pool, found: list[Budget]) -> list[dict[str, Any]]:
    """Budgets as JSON shows them, projects by name."""
    projects = {each.scope.project_id for each in found if each.scope.project_id is not None}
    _, names = await keys.names(pool, set(), projects)
    now = datetime.now(UTC)
    return [
        {
            "id": each.id,
            "scope": "key" if each.scope.key_id else "project" if each.scope.project_id else "organisation",
            "project": names.get(each.scope.project_id) if each.scope.project_id else None,
            "key_id": each.scope.key_id,
            "period": each.period.value,
            "hard": each.plan.enforced,
            "alert_percents": each.plan.alert_percents,
            "limit_usd": money.nano_to_usd(each.plan.limit_nano_usd),
            "limit_nano_usd": each.plan.limit_nano_usd,
            "spent_usd": money.nano_to_usd(each.spent_nano_usd),
            "spent_nano_usd": each.spent_nano_usd,
            "left_usd": money.nano_to_usd(max(0, each.plan.limit_nano_usd - each.spent_nano_usd)),
            "resets_at": each.resets_at(now),
            "created_at": each.created_at,
        }
        for each in found
    ]


async def _scope(connection: asyncpg.Connection, organisation_id: int, data: Asked) -> Scope:
    """Whose budget it is; raises BadRequest for a project or key that the organisation does not have."""
    project_id = None
    if data.project is not None:
        try:
            project_id = await keys.find_project(connection, organisation_id, data.project)
        except keys.UnknownProject as error:
            raise BadRequest(str(error), param="project") from None
    if data.key_id is not None:
        own = await keys.listed(connection, organisation_id)
        if all(key.id != data.key_id for key in own):
            raise BadRequest(f"the organisation has no key {data.key_id[:40]!r}", param="key_id")
    return Scope(organisation_id, project_id, data.key_id)
