"""The management API of keys: `/api/v1/keys`. The tenant comes from the credential only.

A secret is shown when its key is made, and never again.
"""

from __future__ import annotations

from typing import Any, cast

import asyncpg
import msgspec
from litestar import Response, delete, get, patch, post
from litestar.di import NamedDependency
from litestar.handlers import HTTPRouteHandler
from litestar.params import FromPath, JSONBody

from penstock.access import issuing, keys, limits
from penstock.access.issuing import Change as KeyChange
from penstock.access.issuing import Wanted
from penstock.access.keyring import Principal
from penstock.access.keys import ListedKey
from penstock.access.limits import NONE, RateLimits
from penstock.access.roles import Role
from penstock.changes import Change, Changes
from penstock.edge.refusals import BadRequest, Forbidden, NotFound
from penstock_base import money
from penstock_billing import key_use
from penstock_billing.key_use import Use

PATH = "/api/v1/keys"
NO_STORE = {"cache-control": "no-store"}


class Asked(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """A key as it is asked for."""

    name: str
    project: str = "default"
    role: Role = Role.DEVELOPER
    limits: RateLimits = limits.NONE


class Changed(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """What is to be another; what is not named stays. Limits are under `/api/v1/limits`."""

    name: str | None = None
    role: Role | None = None


class Keys:
    """What is done with keys, over the API and in the portal."""

    def __init__(self, pool: asyncpg.Pool, pepper: bytes, changes: Changes) -> None:
        self._pool = pool
        self._pepper = pepper
        self._changes = changes

    async def issue(self, organisation_id: int, wanted: Wanted, by: Role) -> tuple[ListedKey, str]:
        """Make a key; it, and its text. Raises as `issuing.issue`, and BadRequest for an unknown project."""
        async with self._pool.acquire() as taken:
            connection = cast("asyncpg.Connection", taken)
            try:
                made = await issuing.issue(connection, self._pepper, organisation_id, wanted, by)
            except keys.UnknownProject as error:
                raise BadRequest(str(error), param="project") from None
        await self._changes.tell(Change.KEYS)
        return made

    async def change(self, organisation_id: int, key_id: str, wanted: KeyChange, by: Role) -> ListedKey:
        """Rename a key or give it another role. Raises as `issuing.change`, NotFound for an unknown key."""
        async with self._pool.acquire() as taken:
            connection = cast("asyncpg.Connection", taken)
            try:
                changed = await issuing.change(connection, organisation_id, key_id, wanted, by)
            except keys.UnknownKey as error:
                raise NotFound(str(error)) from None
        await self._changes.tell(Change.KEYS)
        return changed

    async def revoke(self, organisation_id: int, key_id: str, by: Role) -> ListedKey:
        """End a key. Raises as `issuing.revoke`, NotFound for an unknown key."""
        async with self._pool.acquire() as taken:
            connection = cast("asyncpg.Connection", taken)
            try:
                revoked = await issuing.revoke(connection, organisation_id, key_id, by)
            except keys.UnknownKey as error:
                raise NotFound(str(error)) from None
        await self._changes.tell(Change.KEYS)
        return revoked

    async def listed(self, organisation_id: int) -> tuple[list[ListedKey], dict[str, RateLimits], Use]:
        """Every key of an organisation, the limits of those that have any, and what they did."""
        async with self._pool.acquire() as taken:
            connection = cast("asyncpg.Connection", taken)
            found = await keys.listed(connection, organisation_id)
            limited = {
                each.id: each.limits for each in await limits.limited_keys(connection, organisation_id)
            }
        return found, limited, await key_use.of_organisation(self._pool, organisation_id)


def routes(pool: asyncpg.Pool, pepper: bytes, changes: Changes) -> list[HTTPRouteHandler]:
    """The handlers over this database."""
    api = Keys(pool, pepper, changes)

    async def one(principal: Principal, key_id: str) -> dict[str, Any]:
        found, limited, use = await api.listed(principal.organisation_id)
        for key in found:
            if key.id == key_id:
                return shown(key, limited, use)
        raise NotFound(f"the organisation has no key {key_id[:40]!r}")

    @get(PATH)
    async def list_keys(principal: NamedDependency[Principal]) -> dict[str, Any]:
        found, limited, use = await api.listed(principal.organisation_id)
        return {"data": [shown(key, limited, use) for key in found]}

    @post(PATH)
    async def create_key(
        principal: NamedDependency[Principal], data: JSONBody[Asked]
    ) -> Response[dict[str, Any]]:
        _may_make(principal)
        wanted = Wanted(name=data.name, project=data.project, role=data.role, limits=data.limits)
        made, text = await api.issue(principal.organisation_id, wanted, principal.role)
        answer = await one(principal, made.id) | {"api_key": text}
        return Response(answer, status_code=201, headers=NO_STORE)

    @get(f"{PATH}/{{key_id:str}}")
    async def show_key(principal: NamedDependency[Principal], key_id: FromPath[str]) -> dict[str, Any]:
        return await one(principal, key_id)

    @patch(f"{PATH}/{{key_id:str}}")
    async def change_key(
        principal: NamedDependency[Principal], key_id: FromPath[str], data: JSONBody[Changed]
    ) -> dict[str, Any]:
        wanted = KeyChange(name=data.name, role=data.role)
        await api.change(principal.organisation_id, key_id, wanted, principal.role)
        return await one(principal, key_id)

    @delete(f"{PATH}/{{key_id:str}}")
    async def revoke_key(principal: NamedDependency[Principal], key_id: FromPath[str]) -> None:
        await api.revoke(principal.organisation_id, key_id, principal.role)

    return [list_keys, create_key, show_key, change_key, revoke_key]


def shown(key: ListedKey, limited: dict[str, RateLimits], use: Use) -> dict[str, Any]:
    """A key as people see it."""
    cost_nano_usd = use.key_cost_nano_usd.get(key.id, 0)
    fields: dict[str, Any] = msgspec.to_builtins(key)
    return fields | {
        "limits": msgspec.to_builtins(limited.get(key.id, NONE)),
        "last_used_at": use.last_used_at.get(key.id),
        "month_cost_nano_usd": cost_nano_usd,
        "month_cost_usd": money.nano_to_usd(cost_nano_usd),
    }


def _may_make(principal: Principal) -> None:
    """Refuse a key that is limited itself: it could make one that is not."""
    if principal.key_limits != NONE:
        raise Forbidden("this key has limits of its own, so it may not make keys: use another key")
