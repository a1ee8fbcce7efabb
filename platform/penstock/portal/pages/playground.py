"""The playground: a conversation with one model or two, and how alike texts are to an embedding model."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, cast
from urllib.parse import quote

import asyncpg
import msgspec
from litestar import Request, Response, get
from litestar.di import NamedDependency
from litestar.handlers import HTTPRouteHandler
from litestar.handlers.asgi_handlers import ASGIRouteHandler
from litestar.params import FromPath

from penstock.access import playground, projects
from penstock.access.roles import Role
from penstock.access.sessions import Visitor
from penstock.edge.api import request_questions
from penstock.edge.api.request_stages import MEANINGS
from penstock.portal import choices, formats, session_calls
from penstock.portal.frame import Frame, go
from penstock.portal.rendering import HEADERS
from penstock_billing import requests
from penstock_billing.requests import RecordedRequest
from penstock_catalog.cards import Task

ENVELOPE_BYTES = 256 * 1024
"""Of a request's body, kept for everything but images; of a small one a quarter."""
BASE64_GROWS = 4 / 3


def routes(frame: Frame) -> list[HTTPRouteHandler | ASGIRouteHandler]:
    """The handlers."""
    world = frame.world
    # Base64 makes four bytes of three, and they share the request's body with the conversation.
    body_bytes_max = world.settings.body_bytes_max
    image_bytes_max = int((body_bytes_max - min(ENVELOPE_BYTES, body_bytes_max // 4)) / BASE64_GROWS)

    async def page(
        request: Request[Any, Any, Any], visitor: Visitor, template: str, task: Task
    ) -> Response[str]:
        offered = await choices.listed(world, visitor, task)
        facts = {
            "choices": msgspec.to_builtins(offered),
            "may_spend": visitor.may(Role.DEVELOPER),
            "image_bytes_max": image_bytes_max,
        }
        return frame.page(
            request,
            template,
            visitor,
            facts=facts,
            offered=offered,
            projects=await _projects(world.pool, visitor),
            default_project=playground.DEFAULT_PROJECT,
            may_spend=visitor.may(Role.DEVELOPER),
            address=world.settings.public_url,
        )

    @get("/playground")
    async def chat(request: Request[Any, Any, Any], visitor: NamedDependency[Visitor]) -> Response[Any]:
        card = world.shelf.get(request.query_params.get("model", ""))
        if card is not None and card.task is Task.EMBEDDING:
            return go(f"/portal/playground/embeddings?model={quote(card.id)}")
        return await page(request, visitor, "playground.html", Task.CHAT)

    @get("/playground/embeddings")
    async def embeddings(request: Request[Any, Any, Any], visitor: NamedDependency[Visitor]) -> Response[str]:
        return await page(request, visitor, "playground_embeddings.html", Task.EMBEDDING)

    @get("/playground/requests/{name:str}")
    async def recorded(visitor: NamedDependency[Visitor], name: FromPath[str]) -> Response[dict[str, Any]]:
        found = None
        if request_questions.is_id(name):
            found = await requests.find(world.pool, visitor.organisation_id, name, datetime.now(UTC))
        return Response(_told(found), headers=HEADERS)

    return [chat, embeddings, recorded, *session_calls.routes(frame)]


async def _projects(pool: asyncpg.Pool, visitor: Visitor) -> list[str]:
    """The projects that may pay, the default one always among them."""
    async with pool.acquire() as taken:
        found = await projects.listed(cast("asyncpg.Connection", taken), visitor.organisation_id)
    return sorted({playground.DEFAULT_PROJECT, *(each.name for each in found)})


def _told(found: RecordedRequest | None) -> dict[str, Any]:
    """What a page says of a request that it made, as soon as it is recorded."""
    if found is None:
        return {"recorded": False}
    return {
        "recorded": True,
        "request_id": found.request_id,
        "cost": formats.usd(found.cost_nano_usd),
        "cost_nano_usd": found.cost_nano_usd,
        "outcome": found.outcome.value,
        "meaning": MEANINGS[found.outcome],
        "input_tokens": found.input_tokens,
        "cached_tokens": found.cached_tokens,
        "output_tokens": found.output_tokens,
        "reasoning_tokens": found.reasoning_tokens,
        "queue_us": found.queue_us,
        "first_token_us": found.first_token_us,
        "duration_us": found.duration_us,
    }
