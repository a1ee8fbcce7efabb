"""Projects: what each has and costs, a new one, its name and its limits."""

from __future__ import annotations

from typing import Any, cast

import asyncpg
import msgspec
from litestar import Request, Response, get, post
from litestar.di import NamedDependency
from litestar.handlers import HTTPRouteHandler
from litestar.params import FromPath

from penstock.access import limits, projects
from penstock.access.names import NameRefused
from penstock.access.projects import Project, ProjectExists
from penstock.access.roles import Role
from penstock.access.sessions import Visitor
from penstock.changes import Change
from penstock.edge.api.keys import Keys
from penstock.edge.refusals import NotFound
from penstock.portal import forms, guard
from penstock.portal.forms import FormError
from penstock.portal.frame import Frame, go
from penstock.portal.pages import limit_fields
from penstock_billing import key_use

PATH = "/portal/projects"


class Named(msgspec.Struct):
    """What a project is to be called."""

    name: str


def routes(frame: Frame) -> list[HTTPRouteHandler]:
    """The handlers."""
    world = frame.world

    @get("/projects")
    async def list_projects(
        request: Request[Any, Any, Any], visitor: NamedDependency[Visitor]
    ) -> Response[str]:
        return await _all(frame, request, visitor, None)

    @post("/projects", status_code=303)
    async def create_project(
        request: Request[Any, Any, Any], visitor: NamedDependency[Visitor]
    ) -> Response[Any]:
        guard.require(visitor, Role.DEVELOPER)
        values = await forms.typed(request)
        try:
            form = forms.read(values, Named)
            async with world.pool.acquire() as taken:
                connection = cast("asyncpg.Connection", taken)
                await _named(projects.create(connection, visitor.organisation_id, form.name), values)
        except FormError as error:
            return await _all(frame, request, visitor, error)
        return go(PATH, "project-made")

    @get("/projects/{project_id:int}")
    async def show_project(
        request: Request[Any, Any, Any], visitor: NamedDependency[Visitor], project_id: FromPath[int]
    ) -> Response[str]:
        return await _one(frame, request, visitor, project_id, None)

    @post("/projects/{project_id:int}", status_code=303)
    async def rename_project(
        request: Request[Any, Any, Any], visitor: NamedDependency[Visitor], project_id: FromPath[int]
    ) -> Response[Any]:
        guard.require(visitor, Role.DEVELOPER)
        now = await _find(frame, visitor, project_id)
        values = await forms.typed(request)
        try:
            form = forms.read(values, Named)
            async with world.pool.acquire() as taken:
                connection = cast("asyncpg.Connection", taken)
                await _named(
                    projects.rename(connection, visitor.organisation_id, now.name, form.name), values
                )
        except FormError as error:
            return await _one(frame, request, visitor, project_id, error)
        return go(f"{PATH}/{project_id}", "saved")

    @post("/projects/{project_id:int}/limits", status_code=303)
    async def limit_project(
        request: Request[Any, Any, Any], visitor: NamedDependency[Visitor], project_id: FromPath[int]
    ) -> Response[Any]:
        guard.require(visitor, Role.DEVELOPER)
        now = await _find(frame, visitor, project_id)
        values = await forms.typed(request)
        try:
            wanted = limit_fields.read(values)
        except FormError as error:
            return await _one(frame, request, visitor, project_id, error)
        async with world.pool.acquire() as taken:
            connection = cast("asyncpg.Connection", taken)
            await limits.limit_project(connection, visitor.organisation_id, now.name, wanted)
        await world.changes.tell(Change.KEYS)
        return go(f"{PATH}/{project_id}", "limits-saved")

    return [list_projects, create_project, show_project, rename_project, limit_project]


async def _named(work: Any, values: dict[str, str]) -> None:
    try:
        await work
    except (NameRefused, ProjectExists) as error:
        raise FormError({"name": str(error)}, values) from None


async def _find(frame: Frame, visitor: Visitor, project_id: int) -> Project:
    for project in await projects.listed(frame.world.pool, visitor.organisation_id):
        if project.id == project_id:
            return project
    raise NotFound("There is no such project in this organisation")


async def _all(
    frame: Frame, request: Request[Any, Any, Any], visitor: Visitor, error: FormError | None
) -> Response[str]:
    pool = frame.world.pool
    return frame.page(
        request,
        "projects.html",
        visitor,
        status=422 if error else 200,
        projects=await projects.listed(pool, visitor.organisation_id),
        use=await key_use.of_organisation(pool, visitor.organisation_id),
        values=error.values if error else {},
        errors=error.errors if error else {},
    )


async def _one(
    frame: Frame,
    request: Request[Any, Any, Any],
    visitor: Visitor,
    project_id: int,
    error: FormError | None,
) -> Response[str]:
    pool = frame.world.pool
    project = await _find(frame, visitor, project_id)
    found, limited, use = await Keys(pool, frame.world.settings.pepper, frame.world.changes).listed(
        visitor.organisation_id
    )
    values = {"name": project.name, **limit_fields.values(project.limits)}
    return frame.page(
        request,
        "project.html",
        visitor,
        status=422 if error else 200,
        project=project,
        keys=[key for key in found if key.project == project.name and key.revoked_at is None],
        limited=limited,
        use=use,
        values=values | dict(error.values) if error else values,
        errors=error.errors if error else {},
        limit_fields=limit_fields.FIELDS,
    )
