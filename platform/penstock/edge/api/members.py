"""The management API of members: `/api/v1/members`. The tenant comes from the credential only."""

from __future__ import annotations

from typing import Any, cast

import asyncpg
import msgspec
from litestar import delete, get, patch
from litestar.di import NamedDependency
from litestar.handlers import HTTPRouteHandler
from litestar.params import FromPath, JSONBody

from penstock.access import members
from penstock.access.keyring import Principal
from penstock.access.members import Member, UnknownMember
from penstock.access.roles import Role
from penstock.edge.changing import NEEDS
from penstock.edge.refusals import NotFound

PATH = "/api/v1/members"
OWNERS = {NEEDS: Role.OWNER}


class Changed(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """What a member is to be."""

    role: Role


def routes(pool: asyncpg.Pool) -> list[HTTPRouteHandler]:
    """The handlers over this database."""

    @get(PATH)
    async def list_members(principal: NamedDependency[Principal]) -> dict[str, Any]:
        return {"data": [shown(each) for each in await members.listed(pool, principal.organisation_id)]}

    @get(f"{PATH}/{{person_id:int}}")
    async def show_member(principal: NamedDependency[Principal], person_id: FromPath[int]) -> dict[str, Any]:
        try:
            return shown(await members.find(pool, principal.organisation_id, person_id))
        except UnknownMember as error:
            raise NotFound(str(error)) from None

    @patch(f"{PATH}/{{person_id:int}}", opt=OWNERS)
    async def change_member(
        principal: NamedDependency[Principal], person_id: FromPath[int], data: JSONBody[Changed]
    ) -> dict[str, Any]:
        async with pool.acquire() as taken:
            connection = cast("asyncpg.Connection", taken)
            try:
                changed = await members.change_role(
                    connection, principal.organisation_id, person_id, data.role
                )
            except UnknownMember as error:
                raise NotFound(str(error)) from None
        return shown(changed)

    @delete(f"{PATH}/{{person_id:int}}", opt=OWNERS)
    async def remove_member(principal: NamedDependency[Principal], person_id: FromPath[int]) -> None:
        async with pool.acquire() as taken:
            try:
                await members.remove(cast("asyncpg.Connection", taken), principal.organisation_id, person_id)
            except UnknownMember as error:
                raise NotFound(str(error)) from None

    return [list_members, show_member, change_member, remove_member]


def shown(member: Member) -> dict[str, Any]:
    """A member as people see it."""
    fields: dict[str, Any] = msgspec.to_builtins(member)
    return fields
