"""Changing one serverless endpoint: what it is for, its limits, stopping it for a while, and ending it."""

from __future__ import annotations

from typing import Any

from litestar import Request, Response, get, post
from litestar.di import NamedDependency
from litestar.handlers import HTTPRouteHandler
from litestar.params import FromPath

from penstock.access.roles import Role
from penstock.access.sessions import Visitor
from penstock.edge.api.serverless import Changed
from penstock.edge.refusals import BadRequest
from penstock.portal import endpoint_forms
from penstock.portal.endpoint_forms import Details
from penstock.portal.forms import FormError, typed
from penstock.portal.frame import Frame, go
from penstock.portal.guard import require
from penstock.portal.pages.endpoint import show
from penstock.portal.pages.endpoints import BASE


def routes(frame: Frame) -> list[HTTPRouteHandler]:
    """The handlers."""
    api = frame.world.serverless
    path = "/endpoints/serverless/{name:str}"

    async def settings_page(
        request: Request[Any, Any, Any],
        visitor: Visitor,
        name: str,
        values: dict[str, str] | None = None,
        errors: dict[str, str] | None = None,
    ) -> Response[Any]:
        endpoint = await api.find(visitor.organisation_id, name)
        return await show(
            frame,
            request,
            visitor,
            endpoint,
            "settings",
            status=422 if errors else 200,
            values=endpoint_forms.typed(endpoint) if values is None else values,
            errors=errors or {},
        )

    @get(f"{path}/settings")
    async def settings(
        request: Request[Any, Any, Any], visitor: NamedDependency[Visitor], name: FromPath[str]
    ) -> Response[Any]:
        return await settings_page(request, visitor, name)

    @post(f"{path}/settings", status_code=303)
    async def change(
        request: Request[Any, Any, Any], visitor: NamedDependency[Visitor], name: FromPath[str]
    ) -> Response[Any]:
        require(visitor, Role.DEVELOPER)
        values = await typed(request)
        try:
            form = endpoint_forms.read(values, Details)
            tags = endpoint_forms.tags(form.tags, values)
            wanted = Changed(description=form.description, tags=tags, limits=form.limits)
            try:
                await api.change(visitor.organisation_id, name, wanted)
            except BadRequest as error:
                raise endpoint_forms.refused(error, values) from None
        except FormError as error:
            return await settings_page(request, visitor, name, dict(error.values), error.errors)
        return go(f"{BASE}/serverless/{name}/settings", "endpoint-changed")

    @post(f"{path}/suspend", status_code=303)
    async def suspend(visitor: NamedDependency[Visitor], name: FromPath[str]) -> Response[Any]:
        require(visitor, Role.DEVELOPER)
        await api.change(visitor.organisation_id, name, Changed(suspended=True))
        return go(f"{BASE}/serverless/{name}", "endpoint-suspended")

    @post(f"{path}/resume", status_code=303)
    async def resume(visitor: NamedDependency[Visitor], name: FromPath[str]) -> Response[Any]:
        require(visitor, Role.DEVELOPER)
        await api.change(visitor.organisation_id, name, Changed(suspended=False))
        return go(f"{BASE}/serverless/{name}", "endpoint-resumed")

    @post(f"{path}/delete", status_code=303)
    async def delete(
        request: Request[Any, Any, Any], visitor: NamedDependency[Visitor], name: FromPath[str]
    ) -> Response[Any]:
        require(visitor, Role.DEVELOPER)
        confirmed = (await typed(request)).get("confirm", "").strip()
        if confirmed != name:
            await api.find(visitor.organisation_id, name)
            wrong = f"Type the name as it stands here: {name}"
            return await settings_page(request, visitor, name, None, {"confirm": wrong})
        await api.delete(visitor.organisation_id, name)
        return go(BASE, "endpoint-deleted")

    return [settings, change, suspend, resume, delete]
