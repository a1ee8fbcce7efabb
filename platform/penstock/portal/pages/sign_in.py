"""Signing in and out: an address and a password, then a code where one is asked for."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

import msgspec
from litestar import Request, Response, get, post
from litestar.handlers import HTTPRouteHandler

from penstock.access import sessions
from penstock.access.sign_in import HalfOver, Knock
from penstock.access.sign_in_limits import TooManyTries
from penstock.portal import forms, refused
from penstock.portal.frame import Frame, go
from penstock.portal.guard import COOKIE, DEVICE_COOKIE, HALF_COOKIE, SIGN_IN, safe_next
from penstock.portal.refused import REFUSED

CODE = f"{SIGN_IN}/code"


class SignIn(msgspec.Struct):
    """Who wants in."""

    email: str
    password: str
    next: str = "/portal"


class Code(msgspec.Struct):
    """The second half."""

    code: str
    next: str = "/portal"


class _SignIn:
    """What the handlers do."""

    def __init__(self, frame: Frame) -> None:
        self._frame = frame
        self._guard = frame.guard
        self._pool = frame.world.pool

    async def password(self, request: Request[Any, Any, Any]) -> Response[Any]:
        values = await forms.typed(request)
        try:
            form = forms.read(values, SignIn)
            device = request.cookies.get(DEVICE_COOKIE, "")
            person = await self._guard.door.knock(
                Knock(form.email, form.password, self._guard.address(request), device)
            )
        except REFUSED as error:
            return self._again(request, "sign_in.html", error, "password", values)
        target = safe_next(form.next)
        if await self._guard.door.needs_code(person):
            answer = go(f"{CODE}?next={quote(target, safe='/')}")
            await self._guard.let_half_in(answer, person.id)
        else:
            answer = go(target)
            await self._guard.let_in(request, answer, person.id, person.email)
        return answer

    async def code(self, request: Request[Any, Any, Any]) -> Response[Any]:
        values = await forms.typed(request)
        try:
            form = forms.read(values, Code)
            person = await self._guard.door.code(request.cookies.get(HALF_COOKIE, ""), form.code)
        except HalfOver:
            target = quote(safe_next(values.get("next", "")), safe="/")
            return go(f"{SIGN_IN}?next={target}", "sign-in-again")
        except REFUSED as error:
            return self._again(request, "sign_in_code.html", error, "code", values)
        answer = go(safe_next(form.next))
        await self._guard.let_in(request, answer, person.id, person.email)
        return answer

    def _again(
        self,
        request: Request[Any, Any, Any],
        template: str,
        error: Exception,
        field: str,
        values: Mapping[str, str],
    ) -> Response[Any]:
        slow = isinstance(error, TooManyTries)
        status, errors = refused.in_words(error, "form" if slow else field)
        page = self._frame.page(request, template, None, status=status, values=values, errors=errors)
        if isinstance(error, TooManyTries):
            page.headers["retry-after"] = str(error.retry_after_s)
        return page


def routes(frame: Frame) -> list[HTTPRouteHandler]:
    """The handlers."""
    pool, guard = frame.world.pool, frame.guard
    does = _SignIn(frame)

    @get("/sign-in")
    async def show(request: Request[Any, Any, Any]) -> Response[Any]:
        if await guard.maybe_visitor(request):
            return go(safe_next(request.query_params.get("next", "")))
        return frame.page(request, "sign_in.html", None, values=request.query_params, errors={})

    @post("/sign-in", status_code=303, request_max_body_size=forms.BYTES_MAX)
    async def sign_in(request: Request[Any, Any, Any]) -> Response[Any]:
        return await does.password(request)

    @get("/sign-in/code")
    async def show_code(request: Request[Any, Any, Any]) -> Response[Any]:
        half = request.cookies.get(HALF_COOKIE)
        if not half or await sessions.half_person(pool, half) is None:
            return go(SIGN_IN, "sign-in-again")
        return frame.page(request, "sign_in_code.html", None, values=request.query_params, errors={})

    @post("/sign-in/code", status_code=303, request_max_body_size=forms.BYTES_MAX)
    async def give_code(request: Request[Any, Any, Any]) -> Response[Any]:
        return await does.code(request)

    @post("/sign-out", status_code=303, request_max_body_size=forms.BYTES_MAX)
    async def sign_out(request: Request[Any, Any, Any]) -> Response[Any]:
        if token := request.cookies.get(COOKIE):
            await sessions.end(pool, token)
        answer = go(SIGN_IN, "signed-out")
        answer.delete_cookie(COOKIE, path="/portal")
        return answer

    @post("/organisation", status_code=303, request_max_body_size=forms.BYTES_MAX)
    async def enter(request: Request[Any, Any, Any]) -> Response[Any]:
        values = await forms.typed(request)
        await sessions.enter(pool, request.cookies.get(COOKIE, ""), values.get("organisation", ""))
        return go("/portal")

    return [show, sign_in, show_code, give_code, sign_out, enter]
