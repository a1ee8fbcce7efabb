"""The door of the portal: who visits, the way to sign in, and what went wrong as a page."""

from __future__ import annotations

import logging
from typing import Any
from urllib.parse import quote, urlsplit

import asyncpg
from litestar import Request, Response
from litestar.datastructures import Cookie
from litestar.exceptions import HTTPException, NotAuthorizedException
from litestar.response import Redirect

from penstock.access import sessions
from penstock.access.audit import actor
from penstock.access.audit.actor import ActorKind
from penstock.access.roles import Role
from penstock.access.sessions import Visitor
from penstock.edge.refusals import BadRequest, NotFound
from penstock.portal import origin
from penstock.portal.rendering import HEADERS, Renderer

logger = logging.getLogger(__name__)

COOKIE = "penstock_session"
SIGN_IN = "/portal/sign-in"
HOME = "/portal"
AWAY = (OSError, TimeoutError, asyncpg.PostgresConnectionError, asyncpg.InterfaceError)
NO_ROLE = "Your role in this organisation does not allow that: ask one of its owners."


class NotSignedIn(Exception):
    """Nobody is signed in, or no more."""


class Forbidden(Exception):
    """The visitor may look, and not do this."""


class Guard:
    """Tells who visits, and makes pages of what goes wrong."""

    def __init__(self, pool: asyncpg.Pool, renderer: Renderer, *, secure: bool) -> None:
        self._pool = pool
        self._renderer = renderer
        self._secure = secure

    async def visitor(self, request: Request[Any, Any, Any]) -> Visitor:
        """Who looks at this page; raises NotSignedIn."""
        token = request.cookies.get(COOKIE)
        found = await sessions.visitor(self._pool, token) if token else None
        if found is None:
            raise NotSignedIn
        request.scope["state"]["visitor"] = found
        if deed := actor.current():
            deed.by(ActorKind.PERSON, str(found.person_id), f"{found.name} <{found.email}>")
        return found

    def cookie(self, token: str) -> Cookie:
        """What keeps a browser signed in: no script reads it, no other site sends it."""
        return Cookie(
            COOKIE,
            value=token,
            path="/portal",
            httponly=True,
            samesite="lax",
            secure=self._secure,
            max_age=int(sessions.LASTS.total_seconds()),
        )

    async def check_origin(self, request: Request[Any, Any, Any]) -> None:
        """Raise Forbidden for a change that another site's page asks for."""
        if not origin.is_ours(request.method, request.headers):
            raise Forbidden("This was asked for by a page of another site, so nothing was done.")

    def respond(self, request: Request[Any, Any, Any], error: Exception) -> Response[Any]:
        """Make a page of what went wrong; of an ended session the way to sign in and back."""
        if isinstance(error, NotSignedIn):
            return self._to_sign_in(request)
        status, title, text = self._in_words(error)
        visitor = request.scope["state"].get("visitor")
        if "hx-request" in request.headers:
            headers = HEADERS | {"hx-retarget": "#flash", "hx-reswap": "innerHTML"}
            page = self._renderer.page(request, "problem.html", visitor, title=title, text=text)
            return Response(page.content, media_type=page.media_type, status_code=status, headers=headers)
        return self._renderer.page(request, "error.html", visitor, status=status, title=title, text=text)

    def _to_sign_in(self, request: Request[Any, Any, Any]) -> Response[Any]:
        here = request.headers.get("hx-current-url", "")
        path = urlsplit(here).path if here else request.url.path
        asked = f"?{query}" if not here and (query := request.url.query) else ""
        back = quote(path + asked if request.method == "GET" or here else HOME, safe="/")
        ended = "&notice=session-ended" if COOKIE in request.cookies else ""
        target = f"{SIGN_IN}?next={back}{ended}"
        if "hx-request" in request.headers:
            return Response(b"", status_code=200, headers={"hx-redirect": target})
        return Redirect(target, status_code=303)

    def _in_words(self, error: Exception) -> tuple[int, str, str]:
        if isinstance(error, Forbidden | NotAuthorizedException):
            return 403, "Not allowed", str(error.args[0] if error.args else NO_ROLE)
        if isinstance(error, NotFound):
            return 404, "Not here", f"{error}."
        if isinstance(error, BadRequest):
            return 400, "That cannot be shown", f"{error}."
        if isinstance(error, AWAY):
            logger.warning("the database did not answer a page: %s", error)
            return (
                503,
                "The database does not answer",
                "Requests to models go on. Load this page again shortly.",
            )
        if isinstance(error, HTTPException) and error.status_code < 500:
            words = {404: "There is no page at this address.", 405: "This page cannot be used like that."}
            return error.status_code, "Not here", words.get(error.status_code, error.detail)
        logger.error("unforeseen error in the portal", exc_info=error)
        return 500, "Something broke on our side", "It was written to the log. Nothing was changed half-way."


def safe_next(text: str) -> str:
    """Where to go after signing in: a page of the portal, never another site."""
    return text if text.startswith("/portal") and "\\" not in text and not text.startswith("//") else HOME


def require(visitor: Visitor, needed: Role) -> None:
    """Raise Forbidden when the visitor's role is not enough."""
    if not visitor.may(needed):
        raise Forbidden(NO_ROLE)
