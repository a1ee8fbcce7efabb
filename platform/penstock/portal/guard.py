"""The door of the portal: who visits, the way to sign in, and what went wrong as a page."""

from __future__ import annotations

import logging
import re
from typing import Any
from urllib.parse import quote, urlsplit

import asyncpg
from litestar import Request, Response
from litestar.datastructures import Cookie
from litestar.exceptions import HTTPException, MethodNotAllowedException, NotAuthorizedException
from litestar.response import Redirect

from penstock.access import sessions
from penstock.access.audit import actor
from penstock.access.audit.actor import ActorKind
from penstock.access.passwords import Busy
from penstock.access.roles import Role
from penstock.access.sessions import Visitor
from penstock.access.sign_in import Door
from penstock.access.sign_in_limits import TooManyTries
from penstock.edge.refusals import BadRequest, NotFound
from penstock.portal import callers, forms, origin
from penstock.portal.rendering import HEADERS, Renderer
from penstock.settings import Settings

logger = logging.getLogger(__name__)

COOKIE = "penstock_session"
HALF_COOKIE = "penstock_half"
"""Of a browser that gave the password and owes the code."""
DEVICE_COOKIE = "penstock_device"
"""Of a browser that was signed in before; see Door.device."""
DEVICE_LASTS_S = 365 * 24 * 3600
SIGN_IN = "/portal/sign-in"
HOME = "/portal"
ACCOUNT = "/portal/account"
HSTS = {"strict-transport-security": "max-age=31536000"}
NEXT = re.compile(r"/portal(?:[/?][^\x00-\x20\x7f-\xa0\\]*)?")
"""A page of the portal and nothing else: no other site, no backslash, nothing that ends a header."""
NEXT_MAX = 2000
NUL = b"%00"
AWAY = (OSError, TimeoutError, asyncpg.PostgresConnectionError, asyncpg.InterfaceError)
NOWHERE = (
    "Nobody has made you a member yet, or you are one no more. An owner of an organisation can send you a "
    "link that lets you in."
)
NO_ROLE = "Your role in this organisation does not allow that: ask one of its owners."

PROBLEM = {"hx-retarget": "#flash", "hx-reswap": "innerHTML"}
"""What went wrong while a part of a page was fetched stands at the page's top."""
AWAY_TEXT = "Requests to models go on. Load this page again shortly."
SAID: dict[type[Exception], tuple[int, str]] = {
    NotFound: (404, "Not here"),
    BadRequest: (400, "That cannot be shown"),
    TooManyTries: (429, "Not so fast"),
    Busy: (503, "Just a moment"),
}
"""Errors whose message is for people."""
HTTP = {
    404: ("Not here", "There is no page at this address."),
    405: ("Not here", "This address takes a form of another page, and shows none itself."),
    413: ("Too large", "What was sent is larger than this page takes."),
}


class NotSignedIn(Exception):
    """Nobody is signed in, or no more."""


class Forbidden(Exception):
    """The visitor may look, and not do this."""


class NoOrganisation(Forbidden):
    """The visitor belongs nowhere: there is nothing that they may look at but their account."""


class Guard:
    """Tells who visits, lets them in, and makes pages of what goes wrong."""

    def __init__(self, pool: asyncpg.Pool, settings: Settings, renderer: Renderer) -> None:
        self._pool = pool
        self._renderer = renderer
        self._proxies = settings.proxies
        self._secure = urlsplit(settings.public_url).scheme == "https"
        self.door = Door(pool, settings.pepper)

    async def visitor(self, request: Request[Any, Any, Any]) -> Visitor:
        """Who looks at this page; raises NotSignedIn, NoOrganisation."""
        found = await self.maybe_visitor(request)
        if found is None:
            raise NotSignedIn
        if not found.organisation_id and not found.operator and not request.scope["path"].startswith(ACCOUNT):
            raise NoOrganisation(NOWHERE)
        return found

    async def maybe_visitor(self, request: Request[Any, Any, Any]) -> Visitor | None:
        """Who looks at a page that is for everybody; None for who is not signed in."""
        token = request.cookies.get(COOKIE)
        found = await sessions.visitor(self._pool, token) if token else None
        if found is not None:
            request.scope["state"]["visitor"] = found
            if deed := actor.current():
                deed.by(ActorKind.PERSON, str(found.person_id), f"{found.name} <{found.email}>")
        return found

    async def let_in(
        self, request: Request[Any, Any, Any], answer: Response[Any], person_id: int, email: str
    ) -> str:
        """Sign the browser in with `answer`, under a new token; what it was signed in as before ends."""
        token = await sessions.start(
            self._pool,
            person_id,
            address=self.address(request),
            browser=request.headers.get("user-agent", ""),
            instead_of=request.cookies.get(COOKIE, ""),
        )
        answer.set_cookie(self._cookie(COOKIE, token, int(sessions.LASTS.total_seconds())))
        answer.set_cookie(self._cookie(DEVICE_COOKIE, self.door.device(email), DEVICE_LASTS_S, SIGN_IN))
        if HALF_COOKIE in request.cookies:
            answer.delete_cookie(HALF_COOKIE, path=SIGN_IN)
        return token

    async def let_half_in(self, answer: Response[Any], person_id: int) -> None:
        """Note with `answer` that this browser gave the password: it may give the code, and nothing else."""
        token = await sessions.start_half(self._pool, person_id)
        lasts_s = int(sessions.HALF_LASTS.total_seconds())
        answer.set_cookie(self._cookie(HALF_COOKIE, token, lasts_s, SIGN_IN))

    def address(self, request: Request[Any, Any, Any]) -> str:
        """The machine that asks."""
        return callers.address(request, self._proxies)

    def _cookie(self, name: str, value: str, lasts_s: int, path: str = HOME) -> Cookie:
        """One that no script reads and no other site sends."""
        return Cookie(
            name,
            value=value,
            path=path,
            httponly=True,
            samesite="lax",
            secure=self._secure,
            max_age=lasts_s,
        )

    async def check_origin(self, request: Request[Any, Any, Any]) -> None:
        """Raise Forbidden for a change that another site's page asks for."""
        if not origin.is_ours(request.method, request.headers):
            raise Forbidden("This was asked for by a page of another site, so nothing was done.")

    async def check_address(self, request: Request[Any, Any, Any]) -> None:
        """Raise BadRequest for an address with NUL, which Postgres would not take from any page."""
        if NUL in request.scope["query_string"] or "\0" in request.scope["path"]:
            raise BadRequest("there are characters in this address that are no text")

    def harden(self, response: Response[Any]) -> Response[Any]:
        """Give every answer of the portal the headers that keep others out; redirects have none yet."""
        for name, value in (HEADERS | HSTS if self._secure else HEADERS).items():
            response.headers.setdefault(name, value)
        return response

    def respond(self, request: Request[Any, Any, Any], error: Exception) -> Response[Any]:
        """Make a page of what went wrong; of an ended session the way to sign in and back."""
        if isinstance(error, NotSignedIn):
            return self.harden(self._to_sign_in(request))
        status, title, text = self._in_words(error)
        visitor = request.scope["state"].get("visitor")
        way = (ACCOUNT, "To your account") if isinstance(error, NoOrganisation) else (HOME, "To the overview")
        part = "hx-request" in request.headers
        template = "problem.html" if part else "error.html"
        answer = self._renderer.page(
            request, template, visitor, status=status, title=title, text=text, way=way
        )
        answer.headers.update(PROBLEM if part else {})
        if isinstance(error, TooManyTries):
            answer.headers["retry-after"] = str(error.retry_after_s)
        if isinstance(error, MethodNotAllowedException):
            answer.headers.update(error.headers or {})
        return self.harden(answer)

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
        if isinstance(error, NoOrganisation):
            return 403, "You belong to no organisation", str(error)
        if isinstance(error, Forbidden | NotAuthorizedException):
            return 403, "Not allowed", str(error.args[0] if error.args else NO_ROLE)
        for kind, (status, title) in SAID.items():
            if isinstance(error, kind):
                return status, title, forms.sentence(error)
        if isinstance(error, AWAY):
            logger.warning("the database did not answer a page: %s", error)
            return 503, "The database does not answer", AWAY_TEXT
        if isinstance(error, HTTPException) and error.status_code < 500:
            title, text = HTTP.get(error.status_code, ("Not here", error.detail))
            return error.status_code, title, text
        logger.error("unforeseen error in the portal", exc_info=error)
        return 500, "Something broke on our side", "It was written to the log. Nothing was changed half-way."


def safe_next(text: str) -> str:
    """Where to go after signing in: a page of the portal, never another site."""
    return text if len(text) <= NEXT_MAX and NEXT.fullmatch(text) else HOME


def require(visitor: Visitor, needed: Role) -> None:
    """Raise Forbidden when the visitor's role is not enough."""
    if not visitor.may(needed):
        raise Forbidden(NO_ROLE)
