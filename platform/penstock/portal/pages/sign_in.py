"""Signing in and out, and what a browser remembers about looks."""

from __future__ import annotations

from typing import Any

import msgspec
from litestar import Request, Response, get, post
from litestar.handlers import HTTPRouteHandler

from penstock.access import people, sessions
from penstock.portal import forms
from penstock.portal.forms import FormError
from penstock.portal.frame import Frame, go
from penstock.portal.guard import COOKIE, SIGN_IN, safe_next

WRONG = "This address and password do not belong together."


class SignIn(msgspec.Struct):
    """Who wants in."""

    email: str
    password: str
    next: str = "/portal"


def routes(frame: Frame) -> list[HTTPRouteHandler]:
    """The handlers."""
    world = frame.world

    @get("/sign-in")
    async def show(request: Request[Any, Any, Any]) -> Response[Any]:
        token = request.cookies.get(COOKIE)
        if token and await sessions.visitor(world.pool, token):
            return go(safe_next(request.query_params.get("next", "")))
        return frame.page(request, "sign_in.html", None, values=request.query_params, errors={})

    @post("/sign-in", status_code=303)
    async def sign_in(request: Request[Any, Any, Any]) -> Response[Any]:
        values = await forms.typed(request)
        try:
            form = forms.read(values, SignIn)
            person = await people.recognise(world.pool, form.email, form.password)
            if person is None:
                raise FormError({"password": WRONG}, values)
        except FormError as error:
            return frame.page(
                request, "sign_in.html", None, status=422, values=error.values, errors=error.errors
            )
        address = request.client.host if request.client else ""
        browser = request.headers.get("user-agent", "")
        token = await sessions.start(world.pool, person.id, address=address, browser=browser)
        answer = go(safe_next(form.next))
        answer.set_cookie(frame.guard.cookie(token))
        return answer

    @post("/sign-out", status_code=303)
    async def sign_out(request: Request[Any, Any, Any]) -> Response[Any]:
        if token := request.cookies.get(COOKIE):
            await sessions.end(world.pool, token)
        answer = go(SIGN_IN, "signed-out")
        answer.delete_cookie(COOKIE, path="/portal")
        return answer

    @post("/organisation", status_code=303)
    async def enter(request: Request[Any, Any, Any]) -> Response[Any]:
        values = await forms.typed(request)
        token = request.cookies.get(COOKIE, "")
        await sessions.enter(world.pool, token, values.get("organisation", ""))
        return go("/portal")

    return [show, sign_in, sign_out, enter]
