"""Every organisation: who they are, what they use this month, what they have left, and their plan."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, cast

import asyncpg
import msgspec
from litestar import Request, Response, get, post
from litestar.di import NamedDependency
from litestar.handlers import HTTPRouteHandler

from penstock.access import keys, organisations, plans
from penstock.access.limits import LimitError
from penstock.access.sessions import Visitor
from penstock.changes import Change
from penstock.portal import forms
from penstock.portal.forms import FormError
from penstock.portal.frame import Frame, go
from penstock.portal.rendering import require_operator
from penstock_billing import books, margins
from penstock_billing.ledger import AccountKind

PATH = "/portal/operator/organisations"
SHOWN_MAX = 200
"""Of more, a part of the name is asked for."""
CREDIT = {AccountKind.PREPAID, AccountKind.PROMOTIONAL, AccountKind.LEASE}


class New(msgspec.Struct):
    """An organisation that is to be made."""

    name: str


class Assigned(msgspec.Struct):
    """Which plan an organisation is to have."""

    organisation: str
    plan: str


def routes(frame: Frame) -> list[HTTPRouteHandler]:
    """The handlers."""
    pool, changes = frame.world.pool, frame.world.changes

    @get("/operator/organisations")
    async def show_all(request: Request[Any, Any, Any], visitor: NamedDependency[Visitor]) -> Response[str]:
        require_operator(visitor)
        return await _page(frame, request, visitor)

    @post("/operator/organisations", status_code=303)
    async def create(request: Request[Any, Any, Any], visitor: NamedDependency[Visitor]) -> Response[Any]:
        require_operator(visitor)
        values = await forms.typed(request)
        try:
            form = forms.read(values, New)
            async with pool.acquire() as taken:
                connection = cast("asyncpg.Connection", taken)
                if not await organisations.create(connection, form.name):
                    raise FormError({"name": "there is an organisation of this name already"}, values)
        except organisations.NameRefused as refused:
            return await _page(frame, request, visitor, 422, {"name": str(refused)}, values)
        except FormError as error:
            return await _page(frame, request, visitor, 422, error.errors, error.values)
        return go(PATH, "organisation-made")

    @post("/operator/organisations/plan", status_code=303)
    async def assign(request: Request[Any, Any, Any], visitor: NamedDependency[Visitor]) -> Response[Any]:
        require_operator(visitor)
        values = await forms.typed(request)
        try:
            form = forms.read(values, Assigned)
            async with pool.acquire() as taken:
                await plans.assign(cast("asyncpg.Connection", taken), form.organisation, form.plan)
        except (LimitError, keys.UnknownOrganisation) as error:
            return await _page(frame, request, visitor, 422, {"plan": str(error)}, values)
        except FormError as error:
            return await _page(frame, request, visitor, 422, error.errors, error.values)
        await changes.tell(Change.KEYS)
        return go(PATH, "plan-assigned")

    return [show_all, create, assign]


async def _page(
    frame: Frame,
    request: Request[Any, Any, Any],
    visitor: Visitor,
    status: int = 200,
    errors: dict[str, str] | None = None,
    values: Any = None,
) -> Response[str]:
    """Render the list."""
    pool = frame.world.pool
    now = datetime.now(UTC)
    month = now.replace(day=1, hour=0, minute=0, second=0, microsecond=0)
    credit: dict[int, int] = {}
    for balance in await books.balances(pool):
        if balance.kind in CREDIT:
            had = credit.get(balance.organisation_id, 0)
            # What we owe stands in the books below zero.
            credit[balance.organisation_id] = had - balance.posted_nano_usd
    query = request.query_params.get("q", "").strip()
    listed = await organisations.listed(pool)
    found = [each for each in listed if query.casefold() in each.name.casefold()]
    async with pool.acquire() as taken:
        offered = await plans.listed(cast("asyncpg.Connection", taken))
    return frame.page(
        request,
        "operator/organisations.html",
        visitor,
        status=status,
        block="found" if request.headers.get("hx-target") == "found" else None,
        organisations=found[:SHOWN_MAX],
        found=len(found),
        all=len(listed),
        q=query,
        spent=await margins.by_organisation(pool, month, now),
        credit=credit,
        plans=[plan.name for plan in offered],
        month=f"{month:%B %Y}",
        errors=errors or {},
        values=values or {},
    )
