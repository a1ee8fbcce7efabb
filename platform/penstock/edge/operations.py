"""What operators and load balancers ask: `/healthz`, `/readyz`, `/metrics`."""

from __future__ import annotations

import hmac
import ipaddress
from collections.abc import Callable
from typing import Any

import msgspec
from litestar import Request, Response, get
from litestar.handlers import HTTPRouteHandler
from litestar.params import FromQuery

from penstock.observe import exposition


class Readiness(msgspec.Struct):
    """Whether this gateway can answer, and what stands in the way."""

    ready: bool
    journal: str
    """"ok", or why usage cannot be recorded."""
    keys: str
    """"ok", or "not loaded": the database was not reached since the start."""
    database: str
    """"ok", or "away": what is in memory is served, records wait in the journal."""
    redis: str
    """"ok", or "away": changes arrive a second later."""
    models: dict[str, str]
    """Each model's best engine state."""


def routes(readiness: Callable[[], Readiness], metrics_token: str) -> list[HTTPRouteHandler]:
    """The handlers over one gateway's state."""

    @get("/healthz", sync_to_thread=False)
    def health() -> dict[str, str]:
        # It answers, so its event loop turns; everything else is readiness.
        return {"status": "ok"}

    @get("/readyz", sync_to_thread=False)
    def ready(model: FromQuery[list[str] | None] = None) -> Response[Readiness]:
        state = readiness()
        for asked in model or []:
            state.ready = state.ready and state.models.get(asked, "").startswith("ready")
        return Response(state, status_code=200 if state.ready else 503)

    @get("/metrics", sync_to_thread=True)
    def expose(request: Request[Any, Any, Any]) -> Response[bytes]:
        if not may_scrape(request, metrics_token):
            return Response(
                b"metrics are for loopback, or for the bearer token PENSTOCK_METRICS_TOKEN\n",
                status_code=403,
                media_type="text/plain; charset=utf-8",
            )
        return Response(exposition.text(), media_type="text/plain; version=0.0.4; charset=utf-8")

    return [health, ready, expose]


def may_scrape(request: Request[Any, Any, Any], token: str) -> bool:
    """With a token set, the token alone counts; without one, the caller must be on this machine."""
    if token:
        given = request.headers.get("authorization", "").removeprefix("Bearer ")
        return hmac.compare_digest(given.encode(), token.encode())
    return request.client is not None and ipaddress.ip_address(request.client.host).is_loopback
