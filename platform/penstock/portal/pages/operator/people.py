"""Everybody with an account: invited, helped when they cannot sign in, and let in no more."""

from __future__ import annotations

from typing import Any, Literal, cast

import asyncpg
import msgspec
from litestar import Request, Response, get, post
from litestar.di import NamedDependency
from litestar.handlers import HTTPRouteHandler
from litestar.params import FromPath

from penstock.access import invitations, keys, organisations, passwords, people, second_factor
from penstock.access.people import ListedPerson, Person, UnknownPerson
from penstock.access.roles import Role
from penstock.access.sessions import Visitor
from penstock.edge.refusals import NotFound
from penstock.portal import forms, refused
from penstock.portal.forms import FormError
from penstock.portal.frame import Frame, go
from penstock.portal.refused import REFUSED
from penstock.portal.rendering import require_operator

PATH = "/portal/operator/people"
SHOWN_MAX = 200
ID_MAX = 2**63 - 1
OWN = "You cannot do this to yourself: another operator can, so that one is always left."


class Invited(msgspec.Struct):
    """Who is to join which organisation."""

    email: str
    organisation: str
    role: Role = Role.OWNER


class Changed(msgspec.Struct):
    """What is done to an account."""

    do: Literal["disable", "enable", "make-operator", "no-operator", "remove-second-factor"]


class _People:
    """What the handlers do."""

    def __init__(self, frame: Frame) -> None:
        self._frame = frame
        self._pool = frame.world.pool

    async def page(
        self,
        request: Request[Any, Any, Any],
        visitor: Visitor,
        *,
        status: int = 200,
        block: str | None = None,
        **more: Any,
    ) -> Response[Any]:
        part = request.query_params.get("q", "")[:100]
        found = await people.listed(self._pool, part=part, limit=SHOWN_MAX + 1)
        context = {"values": {}, "errors": {}, "link": "", "invited": ""} | more
        return self._frame.page(
            request,
            "operator/people.html",
            visitor,
            status=status,
            block=block,
            people=found[:SHOWN_MAX],
            more=len(found) > SHOWN_MAX,
            part=part,
            organisations=[(each.name, each.name) for each in await organisations.listed(self._pool)],
            **context,
        )

    async def person(
        self, request: Request[Any, Any, Any], visitor: Visitor, person_id: int, **more: Any
    ) -> Response[Any]:
        person = await self._find(person_id)
        context: dict[str, Any] = {"status": 200, "problem": "", "password": ""} | more
        return self._frame.page(request, "operator/person.html", visitor, person=person, **context)

    async def invite(self, request: Request[Any, Any, Any], visitor: Visitor) -> Response[Any]:
        values = await forms.typed(request)
        try:
            form = forms.read(values, Invited)
            async with self._pool.acquire() as taken:
                connection = cast("asyncpg.Connection", taken)
                token = await invitations.create(
                    connection,
                    organisation_id=await keys.find_organisation(connection, form.organisation),
                    email=form.email,
                    role=form.role,
                    invited_by=visitor.person_id,
                )
        except keys.UnknownOrganisation as error:
            errors = {"organisation": forms.sentence(error)}
            return await self.page(request, visitor, status=422, values=values, errors=errors)
        except REFUSED as error:
            status, errors = refused.in_words(error, "email")
            return await self.page(request, visitor, status=status, values=values, errors=errors)
        link = invitations.address(self._frame.world.settings.public_url, token)
        return await self.page(request, visitor, link=link, invited=form.email)

    async def change(
        self, request: Request[Any, Any, Any], visitor: Visitor, person_id: int
    ) -> Response[Any]:
        values = await forms.typed(request)
        try:
            wanted = forms.read(values, Changed).do
        except FormError:
            return go(f"{PATH}/{person_id}")
        person = _as_person(await self._find(person_id))
        if person_id == visitor.person_id and wanted in {"disable", "no-operator"}:
            return await self.person(request, visitor, person_id, status=422, problem=OWN)
        async with self._pool.acquire() as taken, taken.transaction():
            connection = cast("asyncpg.Connection", taken)
            if wanted == "disable":
                await people.disable(connection, person)
            elif wanted == "enable":
                await people.enable(connection, person)
            elif wanted == "remove-second-factor":
                await second_factor.remove(connection, person.id)
            else:
                await people.set_operator(connection, person, operator=wanted == "make-operator")
        return go(f"{PATH}/{person_id}", f"person-{wanted}")

    async def new_password(
        self, request: Request[Any, Any, Any], visitor: Visitor, person_id: int
    ) -> Response[Any]:
        if person_id == visitor.person_id:
            return go("/portal/account")
        person, password = _as_person(await self._find(person_id)), passwords.random()
        await people.set_password(self._pool, person, password)
        return await self.person(request, visitor, person_id, password=password)

    async def _find(self, person_id: int) -> ListedPerson:
        try:
            if 0 < person_id <= ID_MAX:
                return await people.one(self._pool, person_id)
        except UnknownPerson:
            pass
        raise NotFound("Nobody has an account of this number")


def routes(frame: Frame) -> list[HTTPRouteHandler]:
    """The handlers."""
    does = _People(frame)

    @get("/operator/people")
    async def show_all(request: Request[Any, Any, Any], visitor: NamedDependency[Visitor]) -> Response[Any]:
        require_operator(visitor)
        # Typing in the search loads the rows alone.
        typed = request.headers.get("hx-target") == "people"
        return await does.page(request, visitor, block="rows" if typed else None)

    @post("/operator/people", status_code=200, request_max_body_size=forms.BYTES_MAX)
    async def invite(request: Request[Any, Any, Any], visitor: NamedDependency[Visitor]) -> Response[Any]:
        require_operator(visitor)
        return await does.invite(request, visitor)

    @get("/operator/people/{person_id:int}")
    async def show(
        request: Request[Any, Any, Any], visitor: NamedDependency[Visitor], person_id: FromPath[int]
    ) -> Response[Any]:
        require_operator(visitor)
        return await does.person(request, visitor, person_id)

    @post("/operator/people/{person_id:int}", status_code=303, request_max_body_size=forms.BYTES_MAX)
    async def change(
        request: Request[Any, Any, Any], visitor: NamedDependency[Visitor], person_id: FromPath[int]
    ) -> Response[Any]:
        require_operator(visitor)
        return await does.change(request, visitor, person_id)

    @post("/operator/people/{person_id:int}/password", status_code=200, request_max_body_size=forms.BYTES_MAX)
    async def password(
        request: Request[Any, Any, Any], visitor: NamedDependency[Visitor], person_id: FromPath[int]
    ) -> Response[Any]:
        require_operator(visitor)
        return await does.new_password(request, visitor, person_id)

    @get("/operator/people/{person_id:int}/password", sync_to_thread=False)
    def back(person_id: FromPath[int]) -> Response[Any]:
        return go(f"{PATH}/{person_id}")

    return [show_all, invite, show, change, password, back]


def _as_person(found: ListedPerson) -> Person:
    return Person(found.id, found.name, found.email, found.operator)
