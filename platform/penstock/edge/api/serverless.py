"""The management API of serverless endpoints: `/api/v1/serverless-endpoints`.

The tenant comes from the credential only. Keys are shown when they are made, and never again.
"""

from __future__ import annotations

from typing import Any, cast

import asyncpg
import msgspec
from litestar import Response, delete, get, patch, post
from litestar.di import NamedDependency
from litestar.handlers import HTTPRouteHandler
from litestar.params import FromPath, JSONBody

from penstock.access import keys, limits
from penstock.access.keyring import Principal
from penstock.access.limits import RateLimits
from penstock.changes import Change, Changes
from penstock.edge.refusals import BadRequest, NotFound, UnknownModel
from penstock.endpoints import serverless
from penstock.endpoints.serverless import Endpoint, EndpointError, Slot, UnknownEndpoint, Wish
from penstock.endpoints.standing import standing
from penstock.routing.directory import Directory
from penstock_catalog.cards import EndpointKind
from penstock_catalog.shelf import Shelf

PATH = "/api/v1/serverless-endpoints"
NO_STORE = {"cache-control": "no-store"}


class Asked(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """An endpoint as it is asked for."""

    name: str
    model: str
    project: str = "default"
    description: str = ""
    tags: dict[str, str] = {}
    limits: RateLimits = limits.NONE


class Changed(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """What is to be another; what is not named stays."""

    description: str | msgspec.UnsetType = msgspec.UNSET
    tags: dict[str, str] | msgspec.UnsetType = msgspec.UNSET
    limits: RateLimits | msgspec.UnsetType = msgspec.UNSET
    suspended: bool | msgspec.UnsetType = msgspec.UNSET


class KeyAsked(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """Which key is to be replaced."""

    key_type: Slot


class Serverless:
    """What handlers and pages share: the database, the catalog, and where endpoints are reached.

    The organisation is that of whoever asks: out of the credential or the session, never out of the request.
    """

    def __init__(
        self,
        pool: asyncpg.Pool,
        pepper: bytes,
        shelf: Shelf,
        directory: Directory,
        changes: Changes,
        base_url: str,
    ) -> None:
        self.pool = pool
        self.pepper = pepper
        self.shelf = shelf
        self.directory = directory
        self.changes = changes
        self.base_url = base_url

    def shown(self, endpoint: Endpoint) -> dict[str, Any]:
        """An endpoint as people see it."""
        found = standing(endpoint, self.directory.standing(endpoint.model))
        fields = ("name", "model", "project", "description", "tags", "created_at")
        return {
            **{name: getattr(endpoint, name) for name in fields},
            "limits": msgspec.to_builtins(endpoint.limits),
            "state": found.state.value,
            "state_reason": found.reason,
            "scoring_uri": f"{self.base_url}/serverless/{endpoint.name}/v1",
            "openapi_uri": f"{self.base_url}/serverless/{endpoint.name}/swagger.json",
        }

    async def find(self, organisation_id: int, name: str) -> Endpoint:
        """One endpoint; raises NotFound."""
        try:
            return await serverless.find(self.pool, organisation_id, name)
        except UnknownEndpoint as error:
            raise NotFound(str(error)) from None

    async def create(self, organisation_id: int, data: Asked) -> dict[Slot, str]:
        """Make what is asked for; its keys. Raises BadRequest, UnknownModel."""
        card = self.shelf.get(data.model)
        if card is None:
            offered = self.shelf.search(endpoint=EndpointKind.SERVERLESS)
            raise UnknownModel(data.model, [each.id for each in offered])
        wish = Wish(description=data.description, tags=data.tags, limits=data.limits)
        async with self.pool.acquire() as taken:
            connection = cast("asyncpg.Connection", taken)
            try:
                project_id = await keys.find_project(connection, organisation_id, data.project)
                made = await serverless.create(
                    connection, self.pepper, organisation_id, project_id, data.name, card, wish
                )
            except keys.UnknownProject as error:
                raise BadRequest(str(error), param="project") from None
            except EndpointError as error:
                raise BadRequest(str(error), param=error.field) from None
        await self.changes.tell(Change.ENDPOINTS)
        return made

    async def change(self, organisation_id: int, name: str, data: Changed) -> Endpoint:
        """Change what is named; raises NotFound, BadRequest."""
        now = await self.find(organisation_id, name)
        said = {
            field: value
            for field in ("description", "tags", "limits")
            if (value := getattr(data, field)) is not msgspec.UNSET
        }
        suspended = now.suspended
        if data.suspended is not msgspec.UNSET:
            suspended = "suspended by its organisation" if data.suspended else None
        wish = msgspec.structs.replace(
            Wish(description=now.description, tags=now.tags, limits=now.limits), suspended=suspended, **said
        )
        async with self.pool.acquire() as taken:
            connection = cast("asyncpg.Connection", taken)
            try:
                changed = await serverless.change(connection, organisation_id, name, wish)
            except UnknownEndpoint as error:
                raise NotFound(str(error)) from None
            except EndpointError as error:
                raise BadRequest(str(error), param=error.field) from None
        await self.changes.tell(Change.ENDPOINTS)
        return changed

    async def delete(self, organisation_id: int, name: str) -> None:
        """End an endpoint; raises NotFound."""
        async with self.pool.acquire() as taken:
            try:
                await serverless.delete(cast("asyncpg.Connection", taken), organisation_id, name)
            except UnknownEndpoint as error:
                raise NotFound(str(error)) from None
        await self.changes.tell(Change.ENDPOINTS)
        await self.changes.tell(Change.KEYS)

    async def regenerate(self, organisation_id: int, name: str, slot: Slot) -> str:
        """Replace a key; raises NotFound."""
        async with self.pool.acquire() as taken:
            connection = cast("asyncpg.Connection", taken)
            try:
                text = await serverless.regenerate_key(connection, self.pepper, organisation_id, name, slot)
            except UnknownEndpoint as error:
                raise NotFound(str(error)) from None
        await self.changes.tell(Change.KEYS)
        return text


def routes(api: Serverless) -> list[HTTPRouteHandler]:
    """The handlers."""

    @get(PATH)
    async def list_endpoints(principal: NamedDependency[Principal]) -> dict[str, Any]:
        found = await serverless.listed(api.pool, principal.organisation_id)
        return {"data": [api.shown(endpoint) for endpoint in found]}

    @post(PATH)
    async def create_endpoint(
        principal: NamedDependency[Principal], data: JSONBody[Asked]
    ) -> Response[dict[str, Any]]:
        made = await api.create(principal.organisation_id, data)
        secrets = {f"{slot.value}_key": text for slot, text in made.items()}
        endpoint = await api.find(principal.organisation_id, data.name)
        return Response(api.shown(endpoint) | secrets, status_code=201, headers=NO_STORE)

    @get(f"{PATH}/{{name:str}}")
    async def show_endpoint(principal: NamedDependency[Principal], name: FromPath[str]) -> dict[str, Any]:
        return api.shown(await api.find(principal.organisation_id, name))

    @patch(f"{PATH}/{{name:str}}")
    async def change_endpoint(
        principal: NamedDependency[Principal], name: FromPath[str], data: JSONBody[Changed]
    ) -> dict[str, Any]:
        return api.shown(await api.change(principal.organisation_id, name, data))

    @delete(f"{PATH}/{{name:str}}")
    async def delete_endpoint(principal: NamedDependency[Principal], name: FromPath[str]) -> None:
        await api.delete(principal.organisation_id, name)

    @get(f"{PATH}/{{name:str}}/credentials")
    async def show_credentials(principal: NamedDependency[Principal], name: FromPath[str]) -> dict[str, Any]:
        endpoint = await api.find(principal.organisation_id, name)
        return {
            "data": [msgspec.to_builtins(key) for key in await serverless.credentials(api.pool, endpoint.id)]
        }

    @post(f"{PATH}/{{name:str}}/regenerate-keys")
    async def regenerate_key(
        principal: NamedDependency[Principal], name: FromPath[str], data: JSONBody[KeyAsked]
    ) -> Response[dict[str, Any]]:
        text = await api.regenerate(principal.organisation_id, name, data.key_type)
        return Response({f"{data.key_type.value}_key": text}, status_code=200, headers=NO_STORE)

    return [
        list_endpoints,
        create_endpoint,
        show_endpoint,
        change_endpoint,
        delete_endpoint,
        show_credentials,
        regenerate_key,
    ]
