"""Setting up a second factor, its recovery codes, and removing it."""

from __future__ import annotations

from typing import Any

import msgspec
import segno
from litestar import Request, Response, get, post
from litestar.di import NamedDependency
from litestar.handlers import HTTPRouteHandler

from penstock.access.second_factor import AlreadyOn
from penstock.access.sessions import Visitor
from penstock.portal import forms, refused
from penstock.portal.frame import Frame, go
from penstock.portal.guard import ACCOUNT
from penstock.portal.pages.account import person_of
from penstock.portal.refused import REFUSED

PAGE = f"{ACCOUNT}/second-factor"
GROUP = 4
"""Characters of the secret that stand together, for who types it."""


class Password(msgspec.Struct):
    """Asked before anything about the second factor changes."""

    password: str


class Code(msgspec.Struct):
    """The first code."""

    code: str


class _SecondFactor:
    """What the handlers do."""

    def __init__(self, frame: Frame) -> None:
        self._frame = frame
        self._door = frame.guard.door
        self._factors = frame.guard.door.second_factors

    async def page(
        self,
        request: Request[Any, Any, Any],
        visitor: Visitor,
        *,
        status: int = 200,
        errors: dict[str, str] | None = None,
    ) -> Response[Any]:
        setup = await self._factors.setup(person_of(visitor))
        return self._frame.page(
            request,
            "second_factor.html",
            visitor,
            status=status,
            standing=await self._factors.standing(visitor.person_id),
            setup=setup,
            picture=_picture(setup.address) if setup else "",
            secret=_in_groups(setup.secret) if setup else "",
            errors=errors or {},
        )

    async def begin(self, request: Request[Any, Any, Any], visitor: Visitor) -> Response[Any]:
        try:
            await self._ask_password(request, visitor)
            await self._factors.begin(person_of(visitor))
        except AlreadyOn:
            pass  # the page says so
        except REFUSED as error:
            return await self._again(request, visitor, error, "password")
        return go(PAGE)

    async def confirm(self, request: Request[Any, Any, Any], visitor: Visitor) -> Response[Any]:
        try:
            form = forms.read(await forms.typed(request), Code)
            codes = await self._door.ask_code(person_of(visitor), form.code)
        except AlreadyOn:
            return go(PAGE)
        except REFUSED as error:
            return await self._again(request, visitor, error, "code")
        return self._frame.page(request, "recovery_codes.html", visitor, codes=codes, first=True)

    async def renew(self, request: Request[Any, Any, Any], visitor: Visitor) -> Response[Any]:
        try:
            await self._ask_password(request, visitor)
        except REFUSED as error:
            return await self._again(request, visitor, error, "renew")
        if not (await self._factors.standing(visitor.person_id)).on:
            return go(PAGE)
        codes = await self._factors.renew(visitor.person_id)
        return self._frame.page(request, "recovery_codes.html", visitor, codes=codes, first=False)

    async def remove(self, request: Request[Any, Any, Any], visitor: Visitor) -> Response[Any]:
        try:
            await self._ask_password(request, visitor)
        except REFUSED as error:
            return await self._again(request, visitor, error, "remove")
        await self._factors.remove(visitor.person_id)
        return go(ACCOUNT, "second-factor-removed")

    async def _ask_password(self, request: Request[Any, Any, Any], visitor: Visitor) -> None:
        form = forms.read(await forms.typed(request), Password)
        await self._door.ask_password(person_of(visitor), form.password)

    async def _again(
        self, request: Request[Any, Any, Any], visitor: Visitor, error: Exception, field: str
    ) -> Response[Any]:
        """The page with what went wrong beside its field; each form of it has one."""
        status, errors = refused.in_words(error, field)
        return await self.page(request, visitor, status=status, errors={field: next(iter(errors.values()))})


def routes(frame: Frame) -> list[HTTPRouteHandler]:
    """The handlers."""
    does = _SecondFactor(frame)

    @get("/account/second-factor")
    async def show(request: Request[Any, Any, Any], visitor: NamedDependency[Visitor]) -> Response[Any]:
        return await does.page(request, visitor)

    @post("/account/second-factor/begin", status_code=303, request_max_body_size=forms.BYTES_MAX)
    async def begin(request: Request[Any, Any, Any], visitor: NamedDependency[Visitor]) -> Response[Any]:
        return await does.begin(request, visitor)

    @post("/account/second-factor/confirm", status_code=200, request_max_body_size=forms.BYTES_MAX)
    async def confirm(request: Request[Any, Any, Any], visitor: NamedDependency[Visitor]) -> Response[Any]:
        return await does.confirm(request, visitor)

    @post("/account/second-factor/recovery-codes", status_code=200, request_max_body_size=forms.BYTES_MAX)
    async def renew(request: Request[Any, Any, Any], visitor: NamedDependency[Visitor]) -> Response[Any]:
        return await does.renew(request, visitor)

    @post("/account/second-factor/remove", status_code=303, request_max_body_size=forms.BYTES_MAX)
    async def remove(request: Request[Any, Any, Any], visitor: NamedDependency[Visitor]) -> Response[Any]:
        return await does.remove(request, visitor)

    # As for the account: these are addresses of forms.
    @get(
        [f"/account/second-factor/{form}" for form in ("begin", "confirm", "recovery-codes", "remove")],
        sync_to_thread=False,
    )
    def back() -> Response[Any]:
        return go(PAGE)

    return [show, back, begin, confirm, renew, remove]


def _picture(address: str) -> str:
    """The QR code as a data address: dark on light in every theme, as scanners want it, with a quiet zone."""
    return str(segno.make(address, error="m").svg_data_uri(scale=5, border=4, light="#fff", dark="#000"))


def _in_groups(secret: str) -> str:
    return " ".join(secret[at : at + GROUP] for at in range(0, len(secret), GROUP))
