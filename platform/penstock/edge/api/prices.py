"""`GET /api/v1/prices`: what the caller's organisation pays now, and will by what is scheduled."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from litestar import get
from litestar.di import NamedDependency
from litestar.handlers import HTTPRouteHandler
from litestar.params import FromQuery

from penstock.access.keyring import Principal
from penstock.edge.refusals import NotFound
from penstock_billing import price_history
from penstock_billing.price_changes import near
from penstock_billing.price_history import Asked, Status
from penstock_billing.price_units import UNITS
from penstock_billing.prices import PriceBook

PER = {unit.name: unit.per for unit in UNITS}
"""What each price in dollars is for."""


def routes(book: PriceBook) -> list[HTTPRouteHandler]:
    """The handlers over what the gateway has in memory."""

    @get("/api/v1/prices", sync_to_thread=False)
    def show_prices(
        principal: NamedDependency[Principal], model: FromQuery[str | None] = None
    ) -> dict[str, Any]:
        now = datetime.now(UTC)
        asked = Asked(organisation_id=principal.organisation_id)
        offered = price_history.models(book, asked)
        if model is not None and model not in offered:
            raise NotFound(f"there is no price for the model {model[:100]!r}{near(model, offered)}")
        minutes = price_history.minutes(book, asked) if model is None else []
        return {
            "list": price_history.list_name(book, book.list_id(principal.organisation_id)),
            "usd_per": PER,
            "data": [
                price_history.told(held, book)
                for each in price_history.of_models(
                    book, asked, now, None if model is None else {model}
                ).values()
                for held in each
                if held.status is not Status.PAST
            ],
            "minutes": [
                price_history.minute_told(held, book)
                for kind, subject in minutes
                for held in price_history.of_minutes(book, asked, kind, subject, now)
                if held.status is not Status.PAST
            ],
        }

    return [show_prices]
