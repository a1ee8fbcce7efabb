"""`/portal/playground/v1/…`: requests to models from a browser that is signed in, with no key.

They go the very way of a key's requests, for a principal made of the session: admitted, queued, metered and
billed alike. Plain ASGI handlers, which no hook of Litestar's stands before: the door is opened here.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from typing import Any, cast

from litestar import Request, asgi
from litestar.handlers.asgi_handlers import ASGIRouteHandler
from litestar.types import HTTPScope, Receive, Scope, Send

from penstock.access import playground
from penstock.access.keyring import Principal
from penstock.access.keys import UnknownProject
from penstock.access.roles import Role
from penstock.edge import problems, wire
from penstock.edge.inference import PATHS
from penstock.edge.problems import Problem
from penstock.portal.frame import Frame
from penstock.portal.guard import AWAY, Forbidden, NotSignedIn, require
from penstock.serving.call import Surface
from penstock_base import ids

logger = logging.getLogger(__name__)

BASE = "/playground"
SURFACES = (Surface.CHAT, Surface.EMBEDDINGS)
ENDED = Problem(401, "session_ended", "your session has ended: sign in again")
AWAY_PROBLEM = Problem(
    503,
    "database_away",
    "the database does not answer, so nobody knows who asks; requests with API keys go on",
    headers=problems.retry_after(5),
)


def routes(frame: Frame) -> list[ASGIRouteHandler]:
    """The handlers, below `/portal`."""
    return [asgi(BASE + PATHS[surface], copy_scope=False)(_handler(frame, surface)) for surface in SURFACES]


def _handler(frame: Frame, surface: Surface) -> Callable[[Scope, Receive, Send], Awaitable[None]]:
    async def handle(scope: Scope, receive: Receive, send: Send) -> None:
        request: Request[Any, Any, Any] = Request(scope)
        try:
            caller = await _caller(frame, request)
        except Exception as error:  # the edge is where everything unforeseen ends, in words
            problem = _problem(error)
            if problem is None:
                logger.exception("unforeseen error in the playground")
                problem = problems.INTERNAL
            await wire.send_problem(send, problem, f"req_{ids.uuid7_bytes().hex()}")
            return
        # An endpoint of the organisation is called with its own rules, as with any of its keys.
        endpoint = request.query_params.get("endpoint") or None
        called = cast("HTTPScope", scope)
        await frame.world.inference.answer(surface, called, receive, send, endpoint=endpoint, caller=caller)

    return handle


async def _caller(frame: Frame, request: Request[Any, Any, Any]) -> Principal:
    """Who pays; raises BadRequest, Forbidden, NotSignedIn, UnknownProject."""
    await frame.guard.check_origin(request)
    await frame.guard.check_address(request)
    visitor = await frame.guard.visitor(request)
    require(visitor, Role.DEVELOPER)
    project = request.query_params.get("project") or playground.DEFAULT_PROJECT
    return await playground.principal(frame.world.pool, visitor.organisation_id, project)


def _problem(error: Exception) -> Problem | None:
    if isinstance(error, NotSignedIn):
        return ENDED
    if isinstance(error, Forbidden):
        return Problem(403, "forbidden", str(error))
    if isinstance(error, UnknownProject):
        return Problem(404, "project_not_found", str(error))
    if isinstance(error, AWAY):
        logger.warning("the database did not answer a request from a page: %s", error)
        return AWAY_PROBLEM
    return problems.of(error)
