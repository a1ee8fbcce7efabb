"""`GET /v1/models` and `/v1/models/{id}`: what can be called here, as OpenAI's clients list it."""

from __future__ import annotations

from datetime import UTC, datetime, time
from typing import Any

from litestar import get
from litestar.di import NamedDependency
from litestar.handlers import HTTPRouteHandler
from litestar.params import FromPath

from penstock.access.keyring import Principal
from penstock.adapters.book import AdapterBook
from penstock.adapters.register import Live
from penstock.edge.refusals import UnknownModel
from penstock.routing.directory import Directory, Standing
from penstock_billing import price_units
from penstock_billing.prices import PriceBook, PriceVersion
from penstock_catalog.cards import ModelCard
from penstock_catalog.shelf import Shelf


def routes(
    shelf: Shelf, directory: Directory, prices: PriceBook, adapters: AdapterBook
) -> list[HTTPRouteHandler]:
    """The handlers over this shelf, these engines, these prices and these adapters."""

    def offered() -> list[ModelCard]:
        engines = set(directory.models())
        return [card for card in shelf.cards if card.id in engines]

    def shown(card: ModelCard, principal: Principal) -> dict[str, Any]:
        price = prices.current(card.id, principal.organisation_id)
        return described(card, price) | stood(directory.standing(card.id))

    def described_adapter(adapter: Live, principal: Principal) -> dict[str, Any] | None:
        """The caller's own adapter; None while its base is not offered."""
        base = next((card for card in offered() if card.id == adapter.base_model), None)
        if base is None:
            return None
        return shown(base, principal) | {
            "id": f"{adapter.base_model}:{adapter.name}",
            "created": int(adapter.created_at.timestamp()),
            "owned_by": "your organisation",
            "parent": base.id,
            "version": adapter.number,
        }

    @get("/v1/models", sync_to_thread=False)
    def list_models(principal: NamedDependency[Principal]) -> dict[str, Any]:
        data = [shown(card, principal) for card in offered()]
        for adapter in adapters.of(principal.organisation_id):
            if (found := described_adapter(adapter, principal)) is not None:
                data.append(found)
        return {"object": "list", "data": data}

    @get("/v1/models/{model:path}", sync_to_thread=False)
    def show_model(principal: NamedDependency[Principal], model: FromPath[str]) -> dict[str, Any]:
        name = str(model).removeprefix("/")
        for card in offered():
            if card.id == name:
                return shown(card, principal)
        adapter = adapters.find(principal.organisation_id, name)
        if adapter is not None and (found := described_adapter(adapter, principal)) is not None:
            return found | {"id": name}
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
