"""`/serverless/NAME/…`: what an endpoint answers under its own URL."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any, cast

from litestar import asgi
from litestar.handlers.asgi_handlers import ASGIRouteHandler
from litestar.types import HTTPScope, Receive, Scope, Send

from penstock.access.keyring import Keyring, Principal
from penstock.edge import models, openapi, problems, wire
from penstock.edge.inference import PATHS, Inference
from penstock.edge.problems import Problem
from penstock.edge.refusals import NotFound, UnknownModel
from penstock.endpoints.book import EndpointBook
from penstock.endpoints.serverless import Live
from penstock_base import ids
from penstock_billing.prices import PriceBook
from penstock_catalog.cards import ModelCard
from penstock_catalog.shelf import Shelf

logger = logging.getLogger(__name__)

SURFACES = {path.removeprefix("/"): surface for surface, path in PATHS.items()}
DESCRIPTION = "swagger.json"
MODELS = "v1/models"
WRONG_METHOD = Problem(405, "method_not_allowed", "use GET here", headers=((b"allow", b"GET, HEAD"),))


class EndpointPaths:
    """Hands requests for inference on, and answers what an endpoint says of itself."""

    def __init__(
        self,
        inference: Inference,
        keyring: Keyring,
        endpoints: EndpointBook,
        shelf: Shelf,
        prices: PriceBook,
        base_url: str,
    ) -> None:
        self._inference = inference
        self._keyring = keyring
        self._endpoints = endpoints
        self._shelf = shelf
        self._prices = prices
        self._base_url = base_url

    def routes(self) -> list[ASGIRouteHandler]:
        """The handler to mount: Litestar finds no ASGI handler behind a path parameter."""
        return [asgi("/serverless", is_mount=True, copy_scope=False)(self._answer)]

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        name, _, rest = scope["path"].strip("/").partition("/")
        asked = cast("HTTPScope", scope)
        surface = SURFACES.get(rest)
        if surface is not None:
            await self._inference.answer(surface, asked, receive, send, endpoint=name)
            return
        request_id = f"req_{ids.uuid7_bytes().hex()}"
        try:
            body = await self._about(name, rest, asked)
        except Exception as error:  # the edge is where everything unforeseen ends, in words
            problem = WRONG_METHOD if isinstance(error, _WrongMethod) else problems.of(error)
            if problem is None:
                logger.exception("unforeseen error", extra={"request_id": request_id})
                problem = problems.INTERNAL
            await wire.send_problem(send, problem, request_id)
            return
        await wire.send_json(send, body, request_id, head_only=asked["method"] == "HEAD")

    async def _about(self, name: str, rest: str, scope: HTTPScope) -> dict[str, Any]:
        """What an endpoint says of itself; raises what the key or the path is refused for."""
        answer = self._page(rest)
        if scope["method"] not in {"GET", "HEAD"}:
            raise _WrongMethod
        principal = await self._keyring.authenticate(wire.read_head(scope).api_key)
        endpoint = self._endpoints.find(principal, name)
        card = self._shelf.get(endpoint.model)
        if card is None:
            raise UnknownModel(endpoint.model, [])
        return answer(principal, endpoint, card)

    def _page(self, rest: str) -> Callable[[Principal, Live, ModelCard], dict[str, Any]]:
        """What is to be shown under a path; raises NotFound."""
        if rest == DESCRIPTION:
            return self._describe
        if rest == MODELS:
            return self._models
        if rest.startswith(f"{MODELS}/"):
            model = rest.removeprefix(f"{MODELS}/")
            return lambda principal, _, card: self._model(principal, model, card)
        paths = ", ".join((*SURFACES, MODELS, DESCRIPTION))
        raise NotFound(f"there is nothing here; an endpoint answers {paths} below /serverless/NAME/")

    def _describe(self, _: Principal, endpoint: Live, card: ModelCard) -> dict[str, Any]:
        url = f"{self._base_url}/serverless/{endpoint.name}/v1"
        return openapi.describe(endpoint.name, card, url)

    def _models(self, principal: Principal, _: Live, card: ModelCard) -> dict[str, Any]:
        return {"object": "list", "data": [self._model(principal, card.id, card)]}

    def _model(self, principal: Principal, asked: str, card: ModelCard) -> dict[str, Any]:
        if asked != card.id:
            raise UnknownModel(asked, [card.id])
        return models.described(card, self._prices.current(card.id, principal.organisation_id))


class _WrongMethod(Exception):
    """The path is there, for another method."""
