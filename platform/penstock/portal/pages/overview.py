"""The first page: what goes on in this organisation, at a glance."""

from __future__ import annotations

from typing import Any

from litestar import Request, Response, get
from litestar.di import NamedDependency
from litestar.handlers import HTTPRouteHandler

from penstock.access.sessions import Visitor
from penstock.portal.frame import Frame


def routes(frame: Frame) -> list[HTTPRouteHandler]:
    """The handlers."""

    @get("/")
    async def overview(request: Request[Any, Any, Any], visitor: NamedDependency[Visitor]) -> Response[str]:
        return frame.page(request, "overview.html", visitor)

    return [overview]
