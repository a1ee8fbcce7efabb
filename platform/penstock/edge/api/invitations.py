"""The management API of invitations: `/api/v1/invitations`. The tenant comes from the credential only.

Only a digest of an invitation's link is kept: it is shown when it is made, and never again.
"""

from __future__ import annotations

from typing import Any, cast

import asyncpg
import msgspec
from litestar import Response, delete, get, post
from litestar.di import NamedDependency
from litestar.handlers import HTTPRouteHandler
from litestar.params import FromPath, JSONBody

from penstock.access import invitations
from penstock.access.keyring import Principal
from penstock.access.roles import Role
from penstock.edge.changing import NEEDS
from penstock.edge.refusals import NotFound

PATH = "/api/v1/invitations"
OWNERS = {NEEDS: Role.OWNER}
NO_STORE = {"cache-control": "no-store"}
NUMBER_MAX = 2**63 - 1


class Asked(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """Who is invited, to be what."""

    email: str
    role: Role


def routes(pool: asyncpg.Pool, public_url: str) -> list[HTTPRouteHandler]:
    """The handlers over this database."""

    @get(PATH)
    async def list_invitations(principal: NamedDependency[Principal]) -> dict[str, Any]:
        found = await invitations.listed(pool, principal.organisation_id)
        return {"data": [msgspec.to_builtins(each) for each in found]}

    @post(PATH, opt=OWNERS)
    async def invite(
        principal: NamedDependency[Principal], data: JSONBody[Asked]
    ) -> Response[dict[str, Any]]:
        async with pool.acquire() as taken:
            token = await invitations.create(
                cast("asyncpg.Connection", taken),
                organisation_id=principal.organisation_id,
                email=data.email,
                role=data.role,
                invited_by=None,
            )
        made = await invitations.find(pool, token)
        shown = {
            "id": made.id,
            "email": made.email,
            "role": made.role,
            "expires_at": made.expires_at,
            "link": invitations.address(public_url, token),
        }
        return Response(shown, status_code=201, headers=NO_STORE)

    @delete(f"{PATH}/{{invitation_id:int}}", opt=OWNERS)
    async def revoke_invitation(principal: NamedDependency[Principal], invitation_id: FromPath[int]) -> None:
        known = 0 < invitation_id <= NUMBER_MAX
        if not known or await invitations.revoke(pool, principal.organisation_id, invitation_id) is None:
            raise NotFound(f"no invitation {invitation_id} waits here")

    return [list_invitations, invite, revoke_invitation]
