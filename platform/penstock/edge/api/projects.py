"""The management API of projects: `/api/v1/projects`. The tenant comes from the credential only."""

from __future__ import annotations

from typing import Any, cast

import asyncpg
import msgspec
from litestar import Response, get, patch, post
from litestar.di import NamedDependency
from litestar.handlers import HTTPRouteHandler
from litestar.params import FromPath, JSONBody

from penstock.access import projects
from penstock.access.keyring import Principal
from penstock.access.keys import UnknownProject
from penstock.access.projects import Project
from penstock.edge.api import limits
from penstock.edge.refusals import NotFound
from penstock_base import money
from penstock_billing import key_use
from penstock_billing.key_use import Use

PATH = "/api/v1/projects"


class Named(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """A project as it is asked for. Its limits are under `/api/v1/limits`."""

    name: str


def routes(pool: asyncpg.Pool) -> list[HTTPRouteHandler]:
    """The handlers over this database."""

    async def one(principal: Principal, name: str) -> dict[str, Any]:
        try:
            found = await projects.find(pool, principal.organisation_id, name)
        except UnknownProject as error:
            raise NotFound(str(error)) from None
        return shown(found, await key_use.of_organisation(pool, principal.organisation_id))

    @get(PATH)
    async def list_projects(principal: NamedDependency[Principal]) -> dict[str, Any]:
        use = await key_use.of_organisation(pool, principal.organisation_id)
        found = await projects.listed(pool, principal.organisation_id)
        return {"data": [shown(project, use) for project in found]}

    @post(PATH)
    async def create_project(
        principal: NamedDependency[Principal], data: JSONBody[Named]
    ) -> Response[dict[str, Any]]:
        async with pool.acquire() as taken:
            made = await projects.create(
                cast("asyncpg.Connection", taken), principal.organisation_id, data.name
            )
        return Response(await one(principal, made.name), status_code=201)

    @get(f"{PATH}/{{name:str}}")
    async def show_project(principal: NamedDependency[Principal], name: FromPath[str]) -> dict[str, Any]:
        return await one(principal, name)

    @patch(f"{PATH}/{{name:str}}")
    async def rename_project(
        principal: NamedDependency[Principal], name: FromPath[str], data: JSONBody[Named]
    ) -> dict[str, Any]:
        async with pool.acquire() as taken:
            connection = cast("asyncpg.Connection", taken)
            try:
                made = await projects.rename(connection, principal.organisation_id, name, data.name)
            except UnknownProject as error:
                raise NotFound(str(error)) from None
        return await one(principal, made.name)

    return [list_projects, create_project, show_project, rename_project]


def shown(project: Project, use: Use) -> dict[str, Any]:
    """A project as people see it."""
    cost_nano_usd = use.project_cost_nano_usd.get(project.id, 0)
    return {
        "name": project.name,
        "keys": project.keys,
        "limits": limits.shown(project.limits),
        "created_at": project.created_at,
        "month_cost_nano_usd": cost_nano_usd,
        "month_cost_usd": money.nano_to_usd(cost_nano_usd),
    }
