# ruff: noqa: ARG001 - a handler demands a key by asking for the principal
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
from penstock.routing.directory import Directory
from penstock_catalog.cards import ModelCard
from penstock_catalog.shelf import Shelf


def routes(shelf: Shelf, directory: Directory) -> list[HTTPRouteHandler]:
    """The handlers over this shelf and these engines."""

    def offered() -> list[ModelCard]:
        engines = set(directory.models())
        return [card for card in shelf.cards if card.id in engines]

    @get("/v1/models", sync_to_thread=False)
    def list_models(principal: NamedDependency[Principal]) -> dict[str, Any]:
        return {"object": "list", "data": [described(card) for card in offered()]}

    @get("/v1/models/{model:path}", sync_to_thread=False)
    def show_model(principal: NamedDependency[Principal], model: FromPath[str]) -> dict[str, Any]:
        name = str(model).removeprefix("/")
        for card in offered():
            if card.id == name:
                return described(card)
        raise UnknownModel(name, directory.models())

    return [list_models, show_model]


def described(card: ModelCard) -> dict[str, Any]:
    """A model in OpenAI's shape, with what people ask for next in fields of our own."""
    return {
        "id": card.id,
        "object": "model",
        "created": int(datetime.combine(card.released, time(), UTC).timestamp()),
        "owned_by": card.publisher,
        "task": card.task.value,
        "capabilities": [capability.value for capability in card.capabilities],
        "context_length": card.context_length,
        "prices_usd_per_1m_tokens": {
            "input": card.prices.input,
            "cached_input": card.prices.cached_input,
            "output": card.prices.output,
        },
    }
