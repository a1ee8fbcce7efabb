"""What every page is made with: what the gateway knows, the templates, and the door."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

import asyncpg
from litestar import Request, Response
from litestar.response import Redirect

from penstock.access.sessions import Visitor
from penstock.adapters.book import AdapterBook
from penstock.admission.credit.wallets import Wallets
from penstock.changes import Changes
from penstock.edge.api.serverless import Serverless
from penstock.edge.catalog import Catalog
from penstock.edge.inference import Inference
from penstock.edge.operations import Readiness
from penstock.portal.assets import Assets
from penstock.portal.guard import Guard
from penstock.portal.rendering import Renderer
from penstock.routing.directory import Directory
from penstock.serving.dispatch import Dispatcher
from penstock.settings import Settings
from penstock_billing.prices import PriceBook
from penstock_catalog.shelf import Shelf


@dataclass(frozen=True, kw_only=True)
class World:
    """What pages ask: the database, and what the gateway knows in memory."""

    settings: Settings
    pool: asyncpg.Pool
    shelf: Shelf
    catalog: Catalog
    prices: PriceBook
    directory: Directory
    dispatcher: Dispatcher
    inference: Inference
    adapters: AdapterBook
    serverless: Serverless
    wallets: Wallets
    changes: Changes
    readiness: Callable[[], Readiness]


class Frame:
    """Handed to every page's file."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.assets = Assets()
        self.renderer = Renderer(self.assets)
        self.guard = Guard(world.pool, world.settings, self.renderer)

    def page(
        self,
        request: Request[Any, Any, Any],
        template: str,
        visitor: Visitor | None,
        *,
        block: str | None = None,
        status: int = 200,
        **context: Any,
    ) -> Response[str]:
        """Render a page; see Renderer.page. A form that was refused comes back with status 422."""
        return self.renderer.page(request, template, visitor, block=block, status=status, **context)


def go(path: str, notice: str = "") -> Response[Any]:
    """Send a browser on after a form was taken, so that loading again does nothing twice."""
    asked = f"{'&' if '?' in path else '?'}notice={quote(notice)}" if notice else ""
    return Redirect(path + asked, status_code=303)
