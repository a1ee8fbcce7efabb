"""Every page under `/portal`: the one place that knows them all."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from litestar import Request, Response, Router, get
from litestar.di import NamedDependency, Provide
from litestar.exceptions import NotFoundException
from litestar.handlers import HTTPRouteHandler
from litestar.params import FromPath
from litestar.response import Redirect

from penstock.access.sessions import Visitor
from penstock.edge import failures
from penstock.edge.changing import noted
from penstock.portal.frame import Frame, World
from penstock.portal.pages import (
    account,
    audit,
    billing,
    budgets,
    compare,
    endpoint,
    endpoint_settings,
    endpoint_use,
    endpoints,
    invitation,
    keys,
    members,
    models,
    operator,
    overview,
    playground,
    prices,
    projects,
    requests,
    second_factor,
    sign_in,
    top_up,
    usage,
    wallet_terms,
)

PAGES = (
    account,
    audit,
    billing,
    budgets,
    compare,
    endpoint,
    endpoint_settings,
    endpoint_use,
    endpoints,
    invitation,
    keys,
    members,
    models,
    overview,
    playground,
    prices,
    projects,
    requests,
    second_factor,
    sign_in,
    top_up,
    usage,
    wallet_terms,
    *operator.PAGES,
)
"""Each has `routes(frame)`."""


@dataclass(frozen=True)
class Portal:
    """What an application needs for the portal to be in it."""

    handlers: list[Router | HTTPRouteHandler]
    """Its pages, its files, and the way in from the bare address."""
    wrong_method: Callable[[Request[Any, Any, Any], Exception], Response[Any]]
    """For the whole application: what no handler takes is refused before it is known to be the portal's."""


def open_portal(world: World) -> Portal:
    """Make every page."""
    frame = Frame(world)

    # Plain functions: Litestar copies a router whole, and with a bound method everything that it is bound to.
    async def visitor(request: Request[Any, Any, Any]) -> Visitor:
        return await frame.guard.visitor(request)

    async def check(request: Request[Any, Any, Any]) -> None:
        await frame.guard.check_origin(request)
        await frame.guard.check_address(request)

    def harden(response: Response[Any]) -> Response[Any]:
        return frame.guard.harden(response)

    def respond(request: Request[Any, Any, Any], error: Exception) -> Response[Any]:
        return frame.guard.respond(request, error)

    def wrong_method(request: Request[Any, Any, Any], error: Exception) -> Response[Any]:
        ours = request.scope["path"].startswith("/portal/")
        return respond(request, error) if ours else failures.respond(request, error)

    @get("/", sync_to_thread=False)
    def front_door() -> Response[Any]:
        return Redirect("/portal", status_code=303)

    @get("/{rest:path}")
    async def nowhere(visitor: NamedDependency[Visitor], rest: FromPath[str]) -> None:
        raise NotFoundException(f"{visitor.name} found no page at {rest}")

    pages = Router(
        "/portal",
        route_handlers=[handler for page in PAGES for handler in page.routes(frame)] + [nowhere],
        dependencies={"visitor": Provide(visitor)},
        middleware=[noted],
        before_request=check,
        after_request=harden,
        exception_handlers={Exception: respond},
    )
    return Portal([front_door, *frame.assets.routes(), pages], wrong_method)
