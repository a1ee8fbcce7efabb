"""`GET /v1/models` and `/v1/models/{id}`: what can be called here, as OpenAI's clients list it."""

from __future__ import annotations

from datetime import UTC, datetime, time
from typing import Any

from litestar import get
from litestar.di import NamedDependency
from litestar.handlers import HTTPRouteHandler
from litestar.params import FromPath

from penstock.access.keyring import Principal
from penstock.edge.refusals import UnknownModel
from penstock.routing.directory import Directory, Standing
from penstock_billing import price_units
from penstock_billing.prices import PriceBook, PriceVersion
from penstock_catalog.cards import ModelCard
from penstock_catalog.shelf import Shelf


def routes(shelf: Shelf, directory: Directory, prices: PriceBook) -> list[HTTPRouteHandler]:
    """The handlers over this shelf, these engines and these prices."""

    def offered() -> list[ModelCard]:
        engines = set(directory.models())
        return [card for card in shelf.cards if card.id in engines]

    def shown(card: ModelCard, principal: Principal) -> dict[str, Any]:
        price = prices.current(card.id, principal.organisation_id)
        return described(card, price) | stood(directory.standing(card.id))

    @get("/v1/models", sync_to_thread=False)
    def list_models(principal: NamedDependency[Principal]) -> dict[str, Any]:
        return {"object": "list", "data": [shown(card, principal) for card in offered()]}

    @get("/v1/models/{model:path}", sync_to_thread=False)
    def show_model(principal: NamedDependency[Principal], model: FromPath[str]) -> dict[str, Any]:
        name = str(model).removeprefix("/")
        for card in offered():
            if card.id == name:
                return shown(card, principal)
        raise UnknownModel(name, directory.models())

    return [list_models, show_model]


def described(card: ModelCard, price: PriceVersion | None) -> dict[str, Any]:
    """A model in OpenAI's shape, with what people ask for next in fields of our own.

    The prices are what the caller pays; null while there are none, and the model is not served.
    """
    return {
        "id": card.id,
        "object": "model",
        "created": int(datetime.combine(card.released, time(), UTC).timestamp()),
        "owned_by": card.publisher,
        "task": card.task.value,
        "capabilities": [capability.value for capability in card.capabilities],
        "context_length": card.context_length,
        "prices_usd_per_1m_tokens": None if price is None else price_units.token_prices(price),
    }


def stood(standing: Standing) -> dict[str, Any]:
    """How a model stands, in fields of our own: whether a request is answered at once, or wakes it first."""
    return {
        "state": "waking" if standing.state == "starting" else standing.state,
        "state_reason": standing.reason or None,
        "state_for_s": None if standing.since_s is None else round(max(standing.since_s, 0.0), 1),
        "usual_wake_s": None if standing.usually_s is None else round(standing.usually_s, 1),
    }
