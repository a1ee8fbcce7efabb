"""The hardware: what engines can be placed on, slices of it with their prices, and which models fit."""

from __future__ import annotations

import time
from typing import Any

from litestar import Request, Response, get
from litestar.di import NamedDependency
from litestar.handlers import HTTPRouteHandler

from penstock.access.sessions import Visitor
from penstock.portal.frame import Frame
from penstock.portal.rendering import require_operator
from penstock_engines import instance_types, placing, pools
from penstock_engines.inventory import Inventory
from penstock_engines.placing import DoesNotFit


def routes(frame: Frame) -> list[HTTPRouteHandler]:
    """The handler."""
    world = frame.world

    @get("/operator/hardware")
    async def show(request: Request[Any, Any, Any], visitor: NamedDependency[Visitor]) -> Response[str]:
        require_operator(visitor)
        hardware = await pools.hardware(world.pool)
        types = instance_types.offered(hardware) if hardware is not None else []
        prices = {
            each.name: world.prices.minute_price("instance", each.name, at_s=time.time()) for each in types
        }
        return frame.page(
            request,
            "operator/hardware.html",
            visitor,
            hardware=hardware,
            types=types,
            prices=prices,
            engines=await pools.running(world.pool),
            fits=[(card, *_fit(hardware, card)) for card in world.shelf.cards]
            if hardware is not None
            else [],
        )

    return [show]


def _fit(hardware: Inventory, card: Any) -> tuple[str, str]:
    """What an engine of a model would take of an empty machine, or why it does not fit; one is empty."""
    try:
        claim = placing.place(hardware, [], card)
    except DoesNotFit as reason:
        return "", str(reason)
    return f"{claim.memory_gib:.1f} GiB", ""
