"""Reconciliation: what the comparisons of engines, journals, events, roll-ups and ledger have found."""

from __future__ import annotations

from typing import Any

from litestar import Request, Response, get
from litestar.di import NamedDependency
from litestar.handlers import HTTPRouteHandler
from litestar.params import FromPath

from penstock.access.sessions import Visitor
from penstock.edge.refusals import NotFound
from penstock.portal.frame import Frame
from penstock.portal.rendering import require_operator
from penstock_billing.reconcile import run

RUNS = 48


def routes(frame: Frame) -> list[HTTPRouteHandler]:
    """The handlers."""
    pool = frame.world.pool

    @get("/operator/reconciliation")
    async def show(request: Request[Any, Any, Any], visitor: NamedDependency[Visitor]) -> Response[str]:
        require_operator(visitor)
        runs = await run.latest(pool, RUNS)
        report = await run.report_of(pool, runs[0].id) if runs else None
        return frame.page(
            request,
            "operator/reconciliation.html",
            visitor,
            runs=runs,
            report=report,
            shown=runs[0].id if runs else 0,
        )

    @get("/operator/reconciliation/{number:int}")
    async def show_one(
        request: Request[Any, Any, Any], visitor: NamedDependency[Visitor], number: FromPath[int]
    ) -> Response[str]:
        require_operator(visitor)
        report = await run.report_of(pool, number)
        if report is None:
            raise NotFound(f"there is no comparison {number}")
        runs = await run.latest(pool, RUNS)
        return frame.page(
            request, "operator/reconciliation.html", visitor, runs=runs, report=report, shown=number
        )

    return [show, show_one]
