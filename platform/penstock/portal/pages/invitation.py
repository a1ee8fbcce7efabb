"""An invitation's link: make an account and join, or join with the account there is."""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

import msgspec
from litestar import Request, Response, get, post
from litestar.handlers import HTTPRouteHandler
from litestar.params import FromPath

from penstock.access import invitations, sessions
from penstock.access.invitations import InvitationOver
from penstock.portal import forms, refused
from penstock.portal.frame import Frame, go
from penstock.portal.guard import COOKIE, HOME, SIGN_IN
from penstock.portal.pages.account import person_of
from penstock.portal.refused import REFUSED

GONE = 410
"""The status of a link that was good once, and of one that never was: who guesses learns nothing."""


class NewPerson(msgspec.Struct):
    """Who joins for the first time."""

    name: str
    password: str


def routes(frame: Frame) -> list[HTTPRouteHandler]:
    """The handlers."""
    pool, guard = frame.world.pool, frame.guard

    async def page(
        request: Request[Any, Any, Any],
        token: str,
        *,
        values: dict[str, str] | None = None,
        errors: dict[str, str] | None = None,
    ) -> Response[Any]:
        visitor = await guard.maybe_visitor(request)
        return frame.page(
            request,
            "invitation.html",
            # Without the navigation: it is a question with one answer.
            None,
            status=422 if errors else 200,
            invitation=await invitations.find(pool, token),
            person=visitor,
            token=token,
            sign_in=f"{SIGN_IN}?next={quote(f'{HOME}/invitation/{token}', safe='/')}",
            values=values or {},
            errors=errors or {},
        )

    def over(request: Request[Any, Any, Any], error: InvitationOver) -> Response[Any]:
        return frame.page(request, "error.html", None, status=GONE, title=error.title, text=f"{error}")

    @get("/invitation/{token:str}")
    async def show(request: Request[Any, Any, Any], token: FromPath[str]) -> Response[Any]:
        try:
            return await page(request, token)
        except InvitationOver as error:
            return over(request, error)

    @post("/invitation/{token:str}", status_code=303, request_max_body_size=forms.BYTES_MAX)
    async def accept(request: Request[Any, Any, Any], token: FromPath[str]) -> Response[Any]:
        values = await forms.typed(request)
        try:
            form = forms.read(values, NewPerson)
            joined, person_id = await invitations.accept_new(
                pool, token, name=form.name, password=form.password
            )
        except InvitationOver as error:
            return over(request, error)
        except REFUSED as error:
            _, errors = refused.in_words(error, "password")
            return await page(request, token, values=values, errors=errors)
        answer = go(HOME, "welcome")
        await guard.let_in(request, answer, person_id, joined.email)
        return answer

    @post("/invitation/{token:str}/join", status_code=303, request_max_body_size=forms.BYTES_MAX)
    async def join(request: Request[Any, Any, Any], token: FromPath[str]) -> Response[Any]:
        visitor = await guard.visitor(request)
        try:
            joined = await invitations.accept(pool, token, person_of(visitor))
        except InvitationOver as error:
            return over(request, error)
        await sessions.enter(pool, request.cookies.get(COOKIE, ""), joined.organisation)
        return go(HOME, "joined")

    return [show, accept, join]
