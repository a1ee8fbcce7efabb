"""What one serverless endpoint used, how long its requests took, and which of them failed."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from litestar import Request, Response, get
from litestar.di import NamedDependency
from litestar.handlers import HTTPRouteHandler
from litestar.params import FromPath, FromQuery

from penstock.access.sessions import Visitor
from penstock.edge.api.request_stages import MEANINGS
from penstock.endpoints import serverless
from penstock.portal import endpoint_figures
from penstock.portal.endpoint_figures import SPANS, Span
from penstock.portal.frame import Frame
from penstock.portal.pages.endpoint import show
from penstock_billing import failures, latency, requests
from penstock_billing.errors import SearchTookTooLong
from penstock_billing.latency import Quantiles, Taken
from penstock_billing.record import Outcome
from penstock_billing.requests import Wanted

FAILED_SHOWN = 25
NOT_DONE: tuple[Outcome, ...] = tuple(outcome for outcome in Outcome if outcome is not Outcome.DONE)
HOURS, DAYS = (timedelta(hours=1), 24), (timedelta(hours=6), 28)
"""Into which parts a day and a week are cut."""
SHORT_SPANS = SPANS[:2]


def routes(frame: Frame) -> list[HTTPRouteHandler]:
    """The handlers."""
    world = frame.world
    path = "/endpoints/serverless/{name:str}"

    @get(f"{path}/usage")
    async def usage(
        request: Request[Any, Any, Any],
        visitor: NamedDependency[Visitor],
        name: FromPath[str],
        window: FromQuery[str] = "",
    ) -> Response[str]:
        endpoint = await world.serverless.find(visitor.organisation_id, name)
        over = endpoint_figures.span(window)
        used = await endpoint_figures.of_span(
            world.pool, visitor.organisation_id, endpoint, over, datetime.now(UTC)
        )
        drawn = endpoint_figures.charts(used)
        return await show(
            frame, request, visitor, endpoint, "usage", span=over, spans=SPANS, used=used, charts=drawn
        )

    @get(f"{path}/latency")
    async def speed(
        request: Request[Any, Any, Any],
        visitor: NamedDependency[Visitor],
        name: FromPath[str],
        window: FromQuery[str] = "",
    ) -> Response[str]:
        endpoint = await world.serverless.find(visitor.organisation_id, name)
        over = Span.WEEK if window == Span.WEEK else Span.DAY
        parts = latency.window(datetime.now(UTC), *(HOURS if over is Span.DAY else DAYS))
        took = await latency.of_endpoint(
            world.pool, visitor.organisation_id, endpoint.name, parts, endpoint.created_at
        )
        return await show(
            frame,
            request,
            visitor,
            endpoint,
            "latency",
            span=over,
            spans=SHORT_SPANS,
            took=took,
            charts={
                "first_token": _chart(took.window, [part.first_token for part in took.parts]),
                "whole": _chart(took.window, [part.whole for part in took.parts]),
            },
            sampled=_sampled(took.parts),
            sample_max=latency.SAMPLE_MAX,
        )

    @get(f"{path}/errors")
    async def errors(
        request: Request[Any, Any, Any],
        visitor: NamedDependency[Visitor],
        name: FromPath[str],
        window: FromQuery[str] = "",
    ) -> Response[str]:
        endpoint = await world.serverless.find(visitor.organisation_id, name)
        over = Span.WEEK if window == Span.WEEK else Span.DAY
        until = datetime.now(UTC) + timedelta(minutes=1)
        since = max(until - timedelta(days=7 if over is Span.WEEK else 1), endpoint.created_at)
        failed = await failures.of_endpoint(world.pool, visitor.organisation_id, endpoint.name, since, until)
        wanted = Wanted(
            organisation_id=visitor.organisation_id,
            since=since,
            until=until,
            endpoint=endpoint.name,
            outcomes=list(NOT_DONE),
            limit=FAILED_SHOWN,
        )
        try:
            latest = await requests.latest(world.pool, wanted) if failed.kinds else []
        except SearchTookTooLong:
            latest = None
        return await show(
            frame,
            request,
            visitor,
            endpoint,
            "errors",
            span=over,
            spans=SHORT_SPANS,
            failed=failed,
            latest=latest,
            meanings=MEANINGS,
            keys={key.id: key.slot.value for key in await serverless.credentials(world.pool, endpoint.id)},
            counted_max=failures.COUNTED_MAX,
        )

    return [usage, speed, errors]


def _chart(over: latency.Window, parts: Sequence[Quantiles | None]) -> dict[str, Any]:
    """What js/charts.js draws of quantiles."""
    form = "%H:%M" if over.part < timedelta(hours=2) else "%d %b %H:%M"
    names = ("p50_us", "p90_us", "p99_us")
    return {
        "type": "bar",
        "labels": [begins.strftime(form) for begins in over.begins],
        "stacked": False,
        "unit": "ms",
        "series": [
            {
                "name": name.removesuffix("_us"),
                "values": [None if part is None else getattr(part, name) / 1000 for part in parts],
            }
            for name in names
        ],
    }


def _sampled(parts: list[Taken]) -> bool:
    """Whether there were more requests than were read."""
    return any(part.read >= latency.SAMPLE_MAX for part in parts)
