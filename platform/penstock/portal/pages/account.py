"""One's own account: name, password, second factor, where one is signed in, and the theme."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import msgspec
from litestar import Request, Response, get, post
from litestar.datastructures import Cookie
from litestar.di import NamedDependency
from litestar.handlers import HTTPRouteHandler

from penstock.access import people, sessions
from penstock.access.passwords import WeakPassword
from penstock.access.people import Person
from penstock.access.sessions import Visitor
from penstock.portal import callers, forms, refused
from penstock.portal.forms import FormError
from penstock.portal.frame import Frame, go
from penstock.portal.guard import ACCOUNT, COOKIE
from penstock.portal.refused import REFUSED
from penstock.portal.rendering import THEME_COOKIE, THEMES

THEME_LASTS_S = 365 * 24 * 3600


class Name(msgspec.Struct):
    """What to be called."""

    name: str


class NewPassword(msgspec.Struct):
    """Another password, typed twice, and the one there is."""

    current: str
    new: str
    again: str


class Theme(msgspec.Struct):
    """How pages look in this browser."""

    theme: Literal["system", "light", "dark"]


class Ended(msgspec.Struct):
    """A browser to be signed out."""

    session: int


class _Account:
    """What the handlers do."""

    def __init__(self, frame: Frame) -> None:
        self._frame = frame
        self._guard = frame.guard
        self._pool = frame.world.pool

    async def page(
        self,
        request: Request[Any, Any, Any],
        visitor: Visitor,
        *,
        status: int = 200,
        values: Mapping[str, str] | None = None,
        errors: Mapping[str, str] | None = None,
    ) -> Response[Any]:
        return self._frame.page(
            request,
            "account.html",
            visitor,
            status=status,
            account=await people.account(self._pool, visitor.person_id),
            second_factor=await self._guard.door.second_factors.standing(visitor.person_id),
            sessions=await sessions.listed(self._pool, visitor.person_id, request.cookies.get(COOKIE, "")),
            browser=callers.browser,
            values={"name": visitor.name, "theme": _theme(request)} | dict(values or {}),
            errors=errors or {},
        )

    async def rename(self, request: Request[Any, Any, Any], visitor: Visitor) -> Response[Any]:
        values = await forms.typed(request)
        try:
            await people.rename(self._pool, visitor.person_id, forms.read(values, Name).name)
        except REFUSED as error:
            status, errors = refused.in_words(error, "name")
            return await self.page(request, visitor, status=status, values=values, errors=errors)
        return go(ACCOUNT, "name-changed")

    async def change_password(self, request: Request[Any, Any, Any], visitor: Visitor) -> Response[Any]:
        values = await forms.typed(request)
        person = person_of(visitor)
        try:
            form = forms.read(values, NewPassword)
            if form.new != form.again:
                raise FormError({"again": "These two are not the same."}, values)
            await self._guard.door.ask_password(person, form.current)
            await people.set_password(self._pool, person, form.new)
        except REFUSED as error:
            status, errors = refused.in_words(error, "new" if isinstance(error, WeakPassword) else "current")
            return await self.page(request, visitor, status=status, errors=errors)
        answer = go(ACCOUNT, "password-changed")
        token = await self._guard.let_in(request, answer, person.id, person.email)
        await sessions.enter(self._pool, token, visitor.organisation)
        return answer

    async def change_theme(self, request: Request[Any, Any, Any], visitor: Visitor) -> Response[Any]:
        values = await forms.typed(request)
        try:
            theme = forms.read(values, Theme).theme
        except FormError as error:
            return await self.page(request, visitor, status=422, errors=error.errors)
        answer = go(ACCOUNT, "theme-changed")
        if theme == "system":
            answer.delete_cookie(THEME_COOKIE, path="/portal")
        else:
            # Not only for servers: the page's own script writes it too.
            cookie = Cookie(THEME_COOKIE, value=theme, path="/portal", samesite="lax", max_age=THEME_LASTS_S)
            answer.set_cookie(cookie)
        return answer

    async def end_session(self, request: Request[Any, Any, Any], visitor: Visitor) -> Response[Any]:
        values = await forms.typed(request)
        try:
            asked = forms.read(values, Ended).session
        except FormError:
            return go(ACCOUNT)
        if 0 < asked < 2**63:
            await sessions.end_one(self._pool, visitor.person_id, asked)
        return go(ACCOUNT, "session-ended-there")


def routes(frame: Frame) -> list[HTTPRouteHandler]:
    """The handlers."""
    does = _Account(frame)

    @get("/account")
    async def show(request: Request[Any, Any, Any], visitor: NamedDependency[Visitor]) -> Response[Any]:
        return await does.page(request, visitor)

    @post("/account/name", status_code=303, request_max_body_size=forms.BYTES_MAX)
    async def rename(request: Request[Any, Any, Any], visitor: NamedDependency[Visitor]) -> Response[Any]:
        return await does.rename(request, visitor)

    @post("/account/password", status_code=303, request_max_body_size=forms.BYTES_MAX)
    async def password(request: Request[Any, Any, Any], visitor: NamedDependency[Visitor]) -> Response[Any]:
        return await does.change_password(request, visitor)

    @post("/account/theme", status_code=303, request_max_body_size=forms.BYTES_MAX)
    async def theme(request: Request[Any, Any, Any], visitor: NamedDependency[Visitor]) -> Response[Any]:
        return await does.change_theme(request, visitor)

    @post("/account/sessions/end", status_code=303, request_max_body_size=forms.BYTES_MAX)
    async def end_one(request: Request[Any, Any, Any], visitor: NamedDependency[Visitor]) -> Response[Any]:
        return await does.end_session(request, visitor)

    @post("/account/sessions/end-others", status_code=303, request_max_body_size=forms.BYTES_MAX)
    async def end_others(request: Request[Any, Any, Any], visitor: NamedDependency[Visitor]) -> Response[Any]:
        await sessions.end_others(frame.world.pool, visitor.person_id, request.cookies.get(COOKIE, ""))
        return go(ACCOUNT, "sessions-ended")

    # A form that was refused leaves its address behind: who loads that anew, or comes back to it, is led on.
    @get(
        [f"/account/{form}" for form in ("name", "password", "theme", "sessions/end", "sessions/end-others")],
        sync_to_thread=False,
    )
    def back() -> Response[Any]:
        return go(ACCOUNT)

    return [show, back, rename, password, theme, end_one, end_others]


def person_of(visitor: Visitor) -> Person:
    """The account behind a session."""
    return Person(visitor.person_id, visitor.name, visitor.email, visitor.operator)


def _theme(request: Request[Any, Any, Any]) -> str:
    found = request.cookies.get(THEME_COOKIE, "")
    return found if found in THEMES else "system"
