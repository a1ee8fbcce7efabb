"""The first page: what goes on in this organisation, at a glance."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from litestar import Request, Response, get, post
from litestar.datastructures import Cookie
from litestar.di import NamedDependency
from litestar.handlers import HTTPRouteHandler

from penstock.access import labels
from penstock.access.sessions import Visitor
from penstock.endpoints import serverless
from penstock.portal import at_a_glance, request_rows
from penstock.portal.frame import Frame, go

STEPS_COOKIE = "penstock_steps"
"""Who has put the first steps away; of each organisation, by its number."""
YEAR_S = 31_536_000
KEPT_MAX = 20


def routes(frame: Frame) -> list[HTTPRouteHandler]:
    """The handlers."""
    world, pool = frame.world, frame.world.pool

    @get("/")
    async def overview(request: Request[Any, Any, Any], visitor: NamedDependency[Visitor]) -> Response[str]:
        at, organisation_id = datetime.now(UTC), visitor.organisation_id
        part = request.query_params.get("part", "") if "hx-request" in request.headers else ""
        context: dict[str, Any] = {}
        if part != "now":
            context |= {"steps": await _steps(frame, request, visitor), "snippet": at_a_glance.snippet(world)}
        if part != "steps":
            now = await at_a_glance.now(pool, organisation_id, at)
            context |= {"now": now, "credit": at_a_glance.credit(now.wallet)}
        if part in {"now", "steps"}:
            return frame.page(request, "overview.html", visitor, block=part, **context)
        named = await labels.of(pool, organisation_id)
        endpoints = [world.serverless.shown(each) for each in await serverless.listed(pool, organisation_id)]
        endpoints.sort(key=lambda each: (at_a_glance.BY_URGENCY.index(each["state"]), each["name"]))
        states, models = at_a_glance.models(world)
        hours = await at_a_glance.day(pool, organisation_id, at)
        failed = await at_a_glance.failures(pool, organisation_id, at)
        return frame.page(
            request,
            "overview.html",
            visitor,
            hours=hours,
            busy=any(hour.requests or hour.failed for hour in hours),
            charts=at_a_glance.charts(hours),
            endpoints=endpoints[: at_a_glance.SHOWN_MAX],
            endpoints_count=len(endpoints),
            states=states,
            models=models,
            failed=[request_rows.row(one, named) for one in failed],
            failed_since=at - timedelta(days=at_a_glance.FAILED_DAYS),
            failed_outcomes=",".join(request_rows.OURS),
            budgets=await at_a_glance.near_budgets(pool, organisation_id, named, at),
            health=at_a_glance.health(world, world.readiness()) if visitor.operator else [],
            **context,
        )

    @post("/first-steps", status_code=303)
    async def put_away(request: Request[Any, Any, Any], visitor: NamedDependency[Visitor]) -> Response[Any]:
        kept = [*_put_away(request), str(visitor.organisation_id)][-KEPT_MAX:]
        answer = go("/portal")
        answer.set_cookie(
            Cookie(
                STEPS_COOKIE,
                value=".".join(kept),
                path="/portal",
                max_age=YEAR_S,
                samesite="lax",
                httponly=True,
            )
        )
        return answer

    return [overview, put_away]


async def _steps(
    frame: Frame, request: Request[Any, Any, Any], visitor: Visitor
) -> list[tuple[str, bool, bool]]:
    """The first steps, as long as one of them is to be done and they were not put away."""
    if not visitor.organisation_id or str(visitor.organisation_id) in _put_away(request):
        return []
    steps = await at_a_glance.steps(frame.world.pool, visitor)
    asked_for_part = request.query_params.get("part") == "steps"
    return steps if asked_for_part or not all(done for _, done, _ in steps) else []


def _put_away(request: Request[Any, Any, Any]) -> list[str]:
    return [each for each in request.cookies.get(STEPS_COOKIE, "").split(".") if each.isdigit()]
