"""Budgets: what may be spent, how far each is, and an owner's way to set, change and end them."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from typing import Any

import msgspec
from litestar import Request, Response, get, post
from litestar.di import NamedDependency
from litestar.handlers import HTTPRouteHandler
from litestar.params import FromPath

from penstock.access import labels
from penstock.access.labels import Labels
from penstock.access.roles import Role
from penstock.access.sessions import Visitor
from penstock.edge.api import budgets as api
from penstock.edge.refusals import BadRequest, NotFound
from penstock.portal import billing_view, forms, guard
from penstock.portal.forms import FormError
from penstock.portal.frame import Frame, go
from penstock_base import money
from penstock_billing import budgets
from penstock_billing.budgets import Budget, Period, Scope

PATH = "/portal/billing/budgets"
ALERTS_SHOWN = 10


class Form(msgspec.Struct):
    """A budget as it is typed."""

    limit_usd: str
    whose: str = "organisation"
    """`organisation`, or `project:` or `key:` and its id."""
    period: Period = Period.MONTH
    alert_percents: str = ""
    hard: str = "yes"


def routes(frame: Frame) -> list[HTTPRouteHandler]:
    """The handlers."""
    return [*_shows(frame), *_changes(frame)]


def _shows(frame: Frame) -> list[HTTPRouteHandler]:
    pool = frame.world.pool

    @get("/billing/budgets")
    async def show(request: Request[Any, Any, Any], visitor: NamedDependency[Visitor]) -> Response[str]:
        now, owner = datetime.now(UTC), visitor.organisation_id
        live, alerts, named = await asyncio.gather(
            budgets.live(pool, owner, now), budgets.alerts(pool, owner, ALERTS_SHOWN), labels.of(pool, owner)
        )
        return frame.page(
            request,
            "budgets.html",
            visitor,
            budgets=live,
            alerts=alerts,
            whose=lambda scope: _whose(scope, named),
            by_id={each.id: each for each in live},
            percent=billing_view.percent,
            tone=billing_view.tone,
            period=billing_view.period,
            now=now,
        )

    @get("/billing/budgets/new")
    async def ask(request: Request[Any, Any, Any], visitor: NamedDependency[Visitor]) -> Response[str]:
        guard.require(visitor, Role.OWNER)
        alerts = ", ".join(f"{each}" for each in budgets.ALERTS_DEFAULT)
        values = {"period": "month", "alert_percents": alerts, "hard": "yes", "whose": "organisation"}
        return await _form(frame, request, visitor, None, values, {})

    @get("/billing/budgets/{number:int}")
    async def ask_change(
        request: Request[Any, Any, Any], visitor: NamedDependency[Visitor], number: FromPath[int]
    ) -> Response[str]:
        guard.require(visitor, Role.OWNER)
        budget = await _find(frame, visitor, number)
        values = {
            "limit_usd": f"{money.nano_to_usd(budget.plan.limit_nano_usd).rstrip('0').rstrip('.')}",
            "alert_percents": ", ".join(f"{each}" for each in budget.plan.alert_percents),
            "hard": "yes" if budget.plan.enforced else "no",
        }
        return await _form(frame, request, visitor, budget, values, {})

    return [show, ask, ask_change]


def _changes(frame: Frame) -> list[HTTPRouteHandler]:
    world = frame.world

    @post("/billing/budgets", status_code=303)
    async def create(request: Request[Any, Any, Any], visitor: NamedDependency[Visitor]) -> Response[Any]:
        guard.require(visitor, Role.OWNER)
        values = await forms.typed(request)
        try:
            form = forms.read(values, Form)
            await _check_new(frame, visitor, form, values)
            await _put(frame, await _scope(frame, visitor, form, values), form.period, form, values)
        except FormError as error:
            return await _form(frame, request, visitor, None, error.values, error.errors, status=422)
        return go(PATH, "budget-set")

    @post("/billing/budgets/{number:int}", status_code=303)
    async def change(
        request: Request[Any, Any, Any], visitor: NamedDependency[Visitor], number: FromPath[int]
    ) -> Response[Any]:
        guard.require(visitor, Role.OWNER)
        budget = await _find(frame, visitor, number)
        values = await forms.typed(request)
        try:
            form = forms.read(values, Form)
            await _put(frame, budget.scope, budget.period, form, values)
        except FormError as error:
            return await _form(frame, request, visitor, budget, error.values, error.errors, status=422)
        return go(PATH, "budget-changed")

    @post("/billing/budgets/{number:int}/delete", status_code=303)
    async def remove(visitor: NamedDependency[Visitor], number: FromPath[int]) -> Response[Any]:
        guard.require(visitor, Role.OWNER)
        await api.remove_one(world.pool, world.changes, visitor.organisation_id, number)
        return go(PATH, "budget-ended")

    return [create, change, remove]


async def _form(
    frame: Frame,
    request: Request[Any, Any, Any],
    visitor: Visitor,
    budget: Budget | None,
    values: Any,
    errors: dict[str, str],
    *,
    status: int = 200,
) -> Response[str]:
    named = await labels.of(frame.world.pool, visitor.organisation_id)
    choices = [("organisation", f"All of {visitor.organisation}")]
    choices += [(f"project:{number}", f"Project {name}") for number, name in named.projects.items()]
    choices += [(f"key:{key_id}", f"Key {name} ({key_id})") for key_id, name in named.keys.items()]
    return frame.page(
        request,
        "budget.html",
        visitor,
        status=status,
        budget=budget,
        whose=_whose(budget.scope, named) if budget else "",
        period=billing_view.period,
        percent=billing_view.percent,
        choices=choices,
        values=values,
        errors=errors,
    )


async def _find(frame: Frame, visitor: Visitor, number: int) -> Budget:
    for budget in await budgets.live(frame.world.pool, visitor.organisation_id):
        if budget.id == number:
            return budget
    raise NotFound(f"there is no budget {number} in force here")


async def _scope(frame: Frame, visitor: Visitor, form: Form, values: Any) -> Scope:
    """Whose budget was chosen; raises FormError for what is not this organisation's."""
    kind, _, chosen = form.whose.partition(":")
    named = await labels.of(frame.world.pool, visitor.organisation_id)
    if kind == "project" and chosen.isdigit() and int(chosen) in named.projects:
        return Scope(visitor.organisation_id, int(chosen))
    if kind == "key" and chosen in named.keys:
        return Scope(visitor.organisation_id, None, chosen)
    if form.whose == "organisation":
        return Scope(visitor.organisation_id)
    raise FormError({"whose": "choose one that is in the list"}, values)


async def _check_new(frame: Frame, visitor: Visitor, form: Form, values: Any) -> None:
    """Raise FormError where setting one would silently replace another."""
    scope = await _scope(frame, visitor, form, values)
    for each in await budgets.live(frame.world.pool, visitor.organisation_id):
        if (each.scope, each.period) == (scope, form.period):
            limit = money.nano_to_usd(each.plan.limit_nano_usd).rstrip("0").rstrip(".")
            raise FormError(
                {"whose": f"it has a budget of ${limit} for this period already: change that one"}, values
            )


async def _put(frame: Frame, scope: Scope, period: Period, form: Form, values: Any) -> None:
    """Set a budget, or raise FormError beside the field that is wrong."""
    try:
        alerts = tuple(int(each.strip(" %")) for each in form.alert_percents.split(",") if each.strip())
    except ValueError:
        raise FormError({"alert_percents": "write whole percentages, such as 50, 80, 100"}, values) from None
    try:
        plan = api.plan_of(form.limit_usd, alerts, hard=form.hard != "no")
        await api.put_plan(frame.world.pool, frame.world.changes, scope, period, plan)
    except BadRequest as error:
        raise FormError({error.param or "form": str(error).removeprefix("limit_usd: ")}, values) from None


def _whose(scope: Scope, named: Labels) -> str:
    if scope.key_id is not None:
        return f"Key {named.keys.get(scope.key_id, scope.key_id)}"
    if scope.project_id is not None:
        return f"Project {named.projects.get(scope.project_id, scope.project_id)}"
    return "The whole organisation"
