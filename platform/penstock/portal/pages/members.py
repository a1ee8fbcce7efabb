"""Members: who belongs to the organisation, as what; who is invited; and how somebody leaves."""

from __future__ import annotations

from typing import Any, cast

import asyncpg
import msgspec
from litestar import Request, Response, get, post
from litestar.di import NamedDependency
from litestar.handlers import HTTPRouteHandler
from litestar.params import FromPath

from penstock.access import invitations, members
from penstock.access.members import LastOwner, Member, UnknownMember
from penstock.access.people import PersonError
from penstock.access.roles import Role
from penstock.access.sessions import Visitor
from penstock.edge.refusals import NotFound
from penstock.portal import forms, guard
from penstock.portal.forms import FormError
from penstock.portal.frame import Frame, go

PATH = "/portal/members"
NUMBER_MAX = 2**63 - 1


class Invited(msgspec.Struct):
    """Who is invited, to be what."""

    email: str
    role: Role


class Changed(msgspec.Struct):
    """What a member is to be."""

    role: Role


def routes(frame: Frame) -> list[HTTPRouteHandler]:
    """The handlers."""
    return [*_of_members(frame), *_of_invitations(frame)]


def _of_members(frame: Frame) -> list[HTTPRouteHandler]:
    pool = frame.world.pool

    @get("/members")
    async def list_members(
        request: Request[Any, Any, Any], visitor: NamedDependency[Visitor]
    ) -> Response[str]:
        return await _all(frame, request, visitor)

    @get("/members/{person_id:int}")
    async def show_member(
        request: Request[Any, Any, Any], visitor: NamedDependency[Visitor], person_id: FromPath[int]
    ) -> Response[str]:
        return await _one(frame, request, visitor, person_id)

    @post("/members/{person_id:int}", status_code=303)
    async def change_member(
        request: Request[Any, Any, Any], visitor: NamedDependency[Visitor], person_id: FromPath[int]
    ) -> Response[Any]:
        guard.require(visitor, Role.OWNER)
        await _find(frame, visitor, person_id)
        values = await forms.typed(request)
        try:
            form = forms.read(values, Changed)
            async with pool.acquire() as taken:
                connection = cast("asyncpg.Connection", taken)
                await members.change_role(connection, visitor.organisation_id, person_id, form.role)
        except FormError as error:
            return await _one(frame, request, visitor, person_id, errors=error.errors)
        except LastOwner as error:
            return await _one(frame, request, visitor, person_id, errors={"role": forms.sentence(error)})
        return go(PATH, "role-changed")

    @post("/members/{person_id:int}/remove", status_code=303)
    async def remove_member(
        request: Request[Any, Any, Any], visitor: NamedDependency[Visitor], person_id: FromPath[int]
    ) -> Response[Any]:
        # Everybody may leave; only owners make others leave.
        if person_id != visitor.person_id:
            guard.require(visitor, Role.OWNER)
        await _find(frame, visitor, person_id)
        async with pool.acquire() as taken:
            try:
                await members.remove(cast("asyncpg.Connection", taken), visitor.organisation_id, person_id)
            except LastOwner as error:
                return await _one(
                    frame, request, visitor, person_id, errors={"remove": forms.sentence(error)}
                )
        return go("/portal/account", "left") if person_id == visitor.person_id else go(PATH, "member-removed")

    return [list_members, show_member, change_member, remove_member]


def _of_invitations(frame: Frame) -> list[HTTPRouteHandler]:
    pool = frame.world.pool

    @post("/members/invitations", status_code=201)
    async def invite(request: Request[Any, Any, Any], visitor: NamedDependency[Visitor]) -> Response[str]:
        guard.require(visitor, Role.OWNER)
        values = await forms.typed(request)
        try:
            form = forms.read(values, Invited)
            async with pool.acquire() as taken:
                token = await invitations.create(
                    cast("asyncpg.Connection", taken),
                    organisation_id=visitor.organisation_id,
                    email=form.email,
                    role=form.role,
                    invited_by=visitor.person_id,
                )
        except FormError as error:
            return await _all(frame, request, visitor, values=values, errors=error.errors)
        except PersonError as error:
            return await _all(
                frame, request, visitor, values=values, errors={error.field: forms.sentence(error)}
            )
        link = invitations.address(frame.world.settings.public_url, token)
        return await _all(frame, request, visitor, link=link, invited=form.email)

    @post("/members/invitations/{invitation_id:int}/revoke", status_code=303)
    async def revoke_invitation(
        visitor: NamedDependency[Visitor], invitation_id: FromPath[int]
    ) -> Response[Any]:
        guard.require(visitor, Role.OWNER)
        known = 0 < invitation_id <= NUMBER_MAX
        if not known or await invitations.revoke(pool, visitor.organisation_id, invitation_id) is None:
            raise NotFound("This invitation was accepted or taken back already")
        return go(PATH, "invitation-revoked")

    return [invite, revoke_invitation]


async def _find(frame: Frame, visitor: Visitor, person_id: int) -> Member:
    try:
        if 0 < person_id <= NUMBER_MAX:
            return await members.find(frame.world.pool, visitor.organisation_id, person_id)
    except UnknownMember:
        pass
    raise NotFound("Nobody of this number belongs to this organisation")


async def _all(
    frame: Frame,
    request: Request[Any, Any, Any],
    visitor: Visitor,
    *,
    values: dict[str, str] | None = None,
    errors: dict[str, str] | None = None,
    link: str = "",
    invited: str = "",
) -> Response[str]:
    pool = frame.world.pool
    return frame.page(
        request,
        "members.html",
        visitor,
        status=422 if errors else 201 if link else 200,
        members=await members.listed(pool, visitor.organisation_id),
        invitations=await invitations.listed(pool, visitor.organisation_id),
        days=invitations.LASTS.days,
        values=values or {"role": Role.DEVELOPER.value},
        errors=errors or {},
        link=link,
        invited=invited,
    )


async def _one(
    frame: Frame,
    request: Request[Any, Any, Any],
    visitor: Visitor,
    person_id: int,
    errors: dict[str, str] | None = None,
) -> Response[str]:
    member = await _find(frame, visitor, person_id)
    found = await members.listed(frame.world.pool, visitor.organisation_id)
    owners = [each for each in found if each.role is Role.OWNER and not each.disabled]
    return frame.page(
        request,
        "member.html",
        visitor,
        status=422 if errors else 200,
        member=member,
        last_owner=[each.person_id for each in owners] == [member.person_id],
        values={"role": member.role.value},
        errors=errors or {},
    )
