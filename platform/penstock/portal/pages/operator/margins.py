"""Margins: what models earn against what their engines' minutes cost."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from litestar import Request, Response, get
from litestar.di import NamedDependency
from litestar.handlers import HTTPRouteHandler

from penstock.access import organisations
from penstock.access.sessions import Visitor
from penstock.edge.refusals import BadRequest
from penstock.portal.frame import Frame
from penstock.portal.rendering import require_operator
from penstock_billing import margins

DAYS = (1, 7, 30, 90)
NANO = 1e9


def routes(frame: Frame) -> list[HTTPRouteHandler]:
    """The handler."""
    world = frame.world

    def price(instance_type: str, at: datetime) -> int | None:
        found = world.prices.minute_price("instance", instance_type, at_s=at.timestamp())
        return None if found is None else found.nano_usd_per_minute

    @get("/operator/margins")
    async def show(request: Request[Any, Any, Any], visitor: NamedDependency[Visitor]) -> Response[str]:
        require_operator(visitor)
        text = request.query_params.get("days", "7")
        if text not in map(str, DAYS):
            raise BadRequest(f"days must be one of {', '.join(map(str, DAYS))}", param="days")
        days, until = int(text), datetime.now(UTC)
        today = until.replace(hour=0, minute=0, second=0, microsecond=0)
        since = today - timedelta(days=days - 1)
        by_model = await margins.by_model(world.pool, since, until, price)
        names = {each.id: each.name for each in await organisations.listed(world.pool)}
        paid = await margins.by_organisation(world.pool, since, until)
        spec = {
            "type": "bar",
            "labels": [each.model for each in by_model[:12]],
            "stacked": False,
            "unit": "usd",
            "series": [
                {"name": "Earned", "values": [each.earned_nano_usd / NANO for each in by_model[:12]]},
                {"name": "Cost of engines", "values": [each.cost_nano_usd / NANO for each in by_model[:12]]},
            ],
        }
        return frame.page(
            request,
            "operator/margins.html",
            visitor,
            days=days,
            choices=DAYS,
            since=since,
            until=until,
            margins=by_model,
            earned=sum(each.earned_nano_usd for each in by_model),
            cost=sum(each.cost_nano_usd for each in by_model),
            unpriced=sorted({name for each in by_model for name in each.unpriced}),
            payers=[(names.get(number, f"#{number}"), cost) for number, cost in paid.items()],
            spec=spec,
        )

    return [show]
