"""The management API of limits: `/api/v1/limits`. The tenant comes from the credential only.

An organisation limits its own keys and projects; its plan is the operator's.
"""

from __future__ import annotations

from typing import Any, cast

import asyncpg
from litestar import delete, get, put
from litestar.di import NamedDependency
from litestar.handlers import HTTPRouteHandler
from litestar.params import FromPath, JSONBody

from penstock.access import keys, limits, plans
from penstock.access.keyring import Principal
from penstock.access.limits import NONE, RateLimits
from penstock.changes import Change, Changes
from penstock.edge.refusals import Forbidden, NotFound

PATH = "/api/v1/limits"


class Limits:
    """What the handlers share: the database, and telling gateways what changed."""

    def __init__(self, pool: asyncpg.Pool, changes: Changes) -> None:
        self._pool = pool
        self._changes = changes

    async def every(self, organisation_id: int) -> dict[str, Any]:
        """All that an organisation is limited to, and by."""
        async with self._pool.acquire() as taken:
            connection = cast("asyncpg.Connection", taken)
            plan = await plans.of_organisation(connection, organisation_id)
            projects = await limits.limited_projects(connection, organisation_id)
            own = await limits.limited_keys(connection, organisation_id)
        return {
            "organisation": {"plan": plan.name, "weight": plan.weight, "limits": shown(plan.limits)},
            "projects": [{"project": each.name, "limits": shown(each.limits)} for each in projects],
            "keys": [{"key_id": each.id, "name": each.name, "limits": shown(each.limits)} for each in own],
        }

    async def of_key(self, principal: Principal, key_id: str) -> dict[str, Any]:
        """What a key is limited to; raises NotFound."""
        async with self._pool.acquire() as taken:
            connection = cast("asyncpg.Connection", taken)
            try:
                return shown(await limits.of_key(connection, principal.organisation_id, key_id))
            except keys.UnknownKey:
                raise _no_key(key_id) from None

    async def of_project(self, principal: Principal, project: str) -> dict[str, Any]:
        """What a project is limited to; raises NotFound."""
        async with self._pool.acquire() as taken:
            connection = cast("asyncpg.Connection", taken)
            try:
                return shown(await limits.of_project(connection, principal.organisation_id, project))
            except keys.UnknownProject as error:
                raise NotFound(str(error)) from None

    async def limit_key(self, principal: Principal, key_id: str, wanted: RateLimits) -> dict[str, Any]:
        """Limit a key to exactly this; raises NotFound, Forbidden."""
        _may_limit(principal)
        async with self._pool.acquire() as taken:
            connection = cast("asyncpg.Connection", taken)
            try:
                await limits.limit_key(connection, principal.organisation_id, key_id, wanted)
            except keys.UnknownKey:
                raise _no_key(key_id) from None
        await self._changes.tell(Change.KEYS)
        return shown(wanted)

    async def limit_project(self, principal: Principal, project: str, wanted: RateLimits) -> dict[str, Any]:
        """Limit a project to exactly this; raises NotFound, Forbidden."""
        _may_limit(principal)
        async with self._pool.acquire() as taken:
            connection = cast("asyncpg.Connection", taken)
            try:
                await limits.limit_project(connection, principal.organisation_id, project, wanted)
            except keys.UnknownProject as error:
                raise NotFound(str(error)) from None
        await self._changes.tell(Change.KEYS)
        return shown(wanted)


def routes(pool: asyncpg.Pool, changes: Changes) -> list[HTTPRouteHandler]:
    """The handlers over this database."""
    api = Limits(pool, changes)

    @get(PATH)
    async def show_limits(principal: NamedDependency[Principal]) -> dict[str, Any]:
        return await api.every(principal.organisation_id)

    @get(f"{PATH}/keys/{{key_id:str}}")
    async def show_key(principal: NamedDependency[Principal], key_id: FromPath[str]) -> dict[str, Any]:
        return await api.of_key(principal, key_id)

    @put(f"{PATH}/keys/{{key_id:str}}")
    async def limit_key(
        principal: NamedDependency[Principal], key_id: FromPath[str], data: JSONBody[RateLimits]
    ) -> dict[str, Any]:
        return await api.limit_key(principal, key_id, data)

    @delete(f"{PATH}/keys/{{key_id:str}}")
    async def free_key(principal: NamedDependency[Principal], key_id: FromPath[str]) -> None:
        await api.limit_key(principal, key_id, NONE)

    @get(f"{PATH}/projects/{{project:str}}")
    async def show_project(principal: NamedDependency[Principal], project: FromPath[str]) -> dict[str, Any]:
        return await api.of_project(principal, project)

    @put(f"{PATH}/projects/{{project:str}}")
    async def limit_project(
        principal: NamedDependency[Principal], project: FromPath[str], data: JSONBody[RateLimits]
    ) -> dict[str, Any]:
        return await api.limit_project(principal, project, data)

    @delete(f"{PATH}/projects/{{project:str}}")
    async def free_project(principal: NamedDependency[Principal], project: FromPath[str]) -> None:
        await api.limit_project(principal, project, NONE)

    return [show_limits, show_key, limit_key, free_key, show_project, limit_project, free_project]


def shown(found: RateLimits) -> dict[str, Any]:
    """Every limit by name; null is none."""
    return {name: getattr(found, name) for name in RateLimits.__struct_fields__}


def _may_limit(principal: Principal) -> None:
    """Refuse a key that is limited itself: it could free itself."""
    if principal.key_limits != NONE:
        raise Forbidden("this key has limits of its own, so it may not change limits: use another key")


def _no_key(key_id: str) -> NotFound:
    return NotFound(f"the organisation has no live key {key_id[:40]!r}")
