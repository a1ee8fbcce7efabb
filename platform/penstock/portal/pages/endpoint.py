"""One serverless endpoint: how it stands, how it is called, a test of it, and its keys."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from litestar import Request, Response, get, post
from litestar.di import NamedDependency
from litestar.handlers import HTTPRouteHandler
from litestar.params import FromPath, FromQuery

from penstock.access.roles import Role
from penstock.access.sessions import Visitor
from penstock.edge import openapi
from penstock.edge.refusals import NotFound
from penstock.endpoints import files, serverless
from penstock.endpoints.serverless import Endpoint, KeyShown, Slot
from penstock.endpoints.standing import standing
from penstock.portal import endpoint_figures, samples
from penstock.portal.endpoint_figures import Figures
from penstock.portal.forms import typed
from penstock.portal.frame import Frame
from penstock.portal.guard import require
from penstock.portal.pages.endpoints import fee
from penstock.portal.rendering import HEADERS
from penstock_catalog.cards import Task

TABS = (
    ("", "Overview"),
    ("test", "Test"),
    ("usage", "Usage"),
    ("latency", "Latency"),
    ("errors", "Errors"),
    ("keys", "Keys"),
    ("settings", "Settings"),
)
STOP_POLLING = 286
"""htmx's word for: this part of the page will not change any more."""


def address(endpoint: Endpoint) -> str:
    """Where an endpoint's pages begin."""
    return f"/portal/endpoints/serverless/{endpoint.name}"


async def show(
    frame: Frame,
    request: Request[Any, Any, Any],
    visitor: Visitor,
    endpoint: Endpoint,
    tab: str,
    *,
    status: int = 200,
    **context: Any,
) -> Response[str]:
    """Render one of an endpoint's tabs."""
    found = standing(endpoint, frame.world.directory.standing(endpoint.model))
    return frame.page(
        request,
        f"endpoint_{tab or 'overview'}.html",
        visitor,
        status=status,
        endpoint=endpoint,
        standing=found,
        url=frame.world.serverless.shown(endpoint)["scoring_uri"],
        tabs=TABS,
        tab=tab,
        at=address(endpoint),
        may_change=visitor.may(Role.DEVELOPER) and endpoint.deleted_at is None,
        **context,
    )


def routes(frame: Frame) -> list[HTTPRouteHandler]:
    """The handlers."""
    world = frame.world
    path = "/endpoints/serverless/{name:str}"

    @get(path)
    async def overview(
        request: Request[Any, Any, Any], visitor: NamedDependency[Visitor], name: FromPath[str]
    ) -> Response[str]:
        endpoint = await world.serverless.find(visitor.organisation_id, name)
        url = world.serverless.shown(endpoint)["scoring_uri"]
        card = world.shelf.get(endpoint.model)
        figures = await endpoint_figures.of_endpoints(
            world.pool, visitor.organisation_id, [endpoint], datetime.now(UTC)
        )
        return await show(
            frame,
            request,
            visitor,
            endpoint,
            "",
            figures=figures.get(endpoint.id, Figures()),
            fee=fee(world, visitor),
            price=world.prices.current(endpoint.model, visitor.organisation_id),
            samples=samples.of(card, url.removesuffix("/v1")) if card else [],
            yaml=files.written(endpoint),
        )

    @get(f"{path}/state")
    async def state(
        request: Request[Any, Any, Any],
        visitor: NamedDependency[Visitor],
        name: FromPath[str],
        was: FromQuery[str] = "",
    ) -> Response[Any]:
        try:
            endpoint = await world.serverless.find(visitor.organisation_id, name)
        except NotFound:
            return frame.page(request, "endpoint_gone.html", visitor, status=STOP_POLLING, name=name)
        found = standing(endpoint, world.directory.standing(endpoint.model))
        if found.told == was:
            # Nothing to read out again to those who listen to the page.
            return Response(None, status_code=204, headers=HEADERS)
        return frame.page(request, "endpoint_state.html", visitor, at=address(endpoint), standing=found)

    @get(f"{path}/swagger.json")
    async def swagger(visitor: NamedDependency[Visitor], name: FromPath[str]) -> Response[dict[str, Any]]:
        endpoint = await world.serverless.find(visitor.organisation_id, name)
        card = world.shelf.get(endpoint.model)
        if card is None:
            raise NotFound(f"the catalog has no card of {endpoint.model} any more")
        url = world.serverless.shown(endpoint)["scoring_uri"]
        return Response(openapi.describe(endpoint.name, card, url), headers=HEADERS)

    @get(f"{path}/test")
    async def test(
        request: Request[Any, Any, Any], visitor: NamedDependency[Visitor], name: FromPath[str]
    ) -> Response[str]:
        endpoint = await world.serverless.find(visitor.organisation_id, name)
        card = world.shelf.get(endpoint.model)
        task = card.task.value if card and card.task in {Task.CHAT, Task.EMBEDDING} else ""
        may_spend = visitor.may(Role.DEVELOPER)
        return await show(frame, request, visitor, endpoint, "test", task=task, may_spend=may_spend)

    @get(f"{path}/keys")
    async def keys(
        request: Request[Any, Any, Any], visitor: NamedDependency[Visitor], name: FromPath[str]
    ) -> Response[str]:
        endpoint = await world.serverless.find(visitor.organisation_id, name)
        return await _keys(frame, request, visitor, endpoint)

    @post(f"{path}/keys", status_code=201)
    async def regenerate(
        request: Request[Any, Any, Any], visitor: NamedDependency[Visitor], name: FromPath[str]
    ) -> Response[str]:
        require(visitor, Role.DEVELOPER)
        slot = (await typed(request)).get("slot", "")
        if slot not in set(Slot):
            raise NotFound("an endpoint has two keys, the primary and the secondary one")
        text = await world.serverless.regenerate(visitor.organisation_id, name, Slot(slot))
        endpoint = await world.serverless.find(visitor.organisation_id, name)
        return await _keys(frame, request, visitor, endpoint, (slot, text))

    return [overview, state, swagger, test, keys, regenerate]


async def _keys(
    frame: Frame,
    request: Request[Any, Any, Any],
    visitor: Visitor,
    endpoint: Endpoint,
    secret: tuple[str, str] | None = None,
) -> Response[str]:
    """The two keys; a new one with its text, this once."""
    pool = frame.world.pool
    found: list[KeyShown] = await serverless.credentials(pool, endpoint.id)
    used = await endpoint_figures.last_used(pool, visitor.organisation_id, endpoint, datetime.now(UTC))
    return await show(
        frame,
        request,
        visitor,
        endpoint,
        "keys",
        status=201 if secret else 200,
        keys=found,
        used=used,
        hour=endpoint_figures.HOUR,
        key_days=endpoint_figures.KEY_DAYS,
        secret=secret,
    )
