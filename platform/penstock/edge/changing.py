"""What stands before each handler of the management API that changes something: who, may they, in whose name.

A key's role is asked here, before a body is read, so that no handler can forget it; and what a handler
changes is noted in the audit log as that key's.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

from litestar import Router
from litestar.datastructures import MutableScopeHeaders
from litestar.handlers import HTTPRouteHandler
from litestar.types import ASGIApp, HTTPScope, Message, Receive, Scope, Send

from penstock.access import roles
from penstock.access.audit import actor
from penstock.access.audit.actor import ActorKind
from penstock.access.keyring import Keyring
from penstock.access.roles import Role
from penstock.edge import wire
from penstock.edge.once import CHANGING, REQUEST_ID
from penstock_base import ids

NEEDS = "needs_role"
"""In a handler's `opt`: the role that a key needs for it. Whatever names none needs a developer's."""


class Doors:
    """Lets those keys in that may change something."""

    def __init__(self, keyring: Keyring) -> None:
        self._keyring = keyring

    def before(self, handlers: Sequence[HTTPRouteHandler | Router]) -> Router:
        """Ask a key's role before any of these handlers changes something, and note what it does."""

        def middleware(app: ASGIApp) -> ASGIApp:
            async def guarded(scope: Scope, receive: Receive, send: Send) -> None:
                if scope.get("method") in CHANGING:
                    await self._admit(cast("HTTPScope", scope))
                await app(scope, receive, send)

            return guarded

        return Router("/", route_handlers=list(handlers), middleware=[noted, middleware])

    async def _admit(self, scope: HTTPScope) -> None:
        principal = await self._keyring.authenticate(wire.read_head(scope).api_key)
        needed = scope["route_handler"].opt.get(NEEDS, Role.DEVELOPER)
        roles.check(principal.role, needed, f"{scope['method']} {scope['path'][:200]} with an API key")
        if deed := actor.current():
            deed.by(ActorKind.KEY, principal.key_id)


def noted(app: ASGIApp) -> ASGIApp:
    """Have the audit log know the requests that may change something; the answer names its request."""

    async def guarded(scope: Scope, receive: Receive, send: Send) -> None:
        if scope.get("method") not in CHANGING:
            await app(scope, receive, send)
            return
        request_id = scope["state"][REQUEST_ID] = f"req_{ids.uuid7_bytes().hex()}"
        client = scope.get("client")
        with actor.answering(request_id, client[0] if client else ""):
            await app(scope, receive, _naming(request_id, send))

    return guarded


def _naming(request_id: str, send: Send) -> Send:
    async def named(message: Message) -> None:
        if message["type"] == "http.response.start":
            MutableScopeHeaders.from_message(message).setdefault("x-request-id", request_id)
        await send(message)

    return named
