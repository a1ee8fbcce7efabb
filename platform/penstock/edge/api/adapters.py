"""The management API of adapters: `/api/v1/adapters`. The tenant comes from the credential only."""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from collections.abc import Iterator
from typing import Any, cast

import asyncpg
import msgspec
from litestar import Request, Response, delete, get, patch, post
from litestar.di import NamedDependency
from litestar.handlers import HTTPRouteHandler
from litestar.params import FromPath, JSONBody
from litestar.types import ASGIApp, HTTPScope, Receive, Scope, Send

from penstock.access import keys
from penstock.access.keyring import Keyring, Principal
from penstock.adapters import intake, register, shapes
from penstock.adapters.book import AdapterBook
from penstock.adapters.errors import TooManyUploads
from penstock.adapters.intake import Examined
from penstock.adapters.register import Adapter, Wanted
from penstock.adapters.store import Incoming, Store
from penstock.admission.idempotency import identity
from penstock.changes import Change, Changes
from penstock.edge import forms, wire
from penstock.edge.forms import Form, Sending
from penstock.edge.once import CLAIMS_ITSELF, Once
from penstock.edge.refusals import BadRequest, NotFound, UnknownModel
from penstock.settings import Settings
from penstock_catalog.shelf import Shelf

PATH = "/api/v1/adapters"
AT_ONCE_MAX = 2
"""Uploads of one organisation that a gateway takes at once."""


class Changed(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """What is to be another; what is not named stays."""

    active_version: int | None = None
    description: str | None = None


class Upload(msgspec.Struct, frozen=True):
    """An upload that lies on the disk, was looked at, and is not kept yet."""

    incoming: Incoming
    form: Form
    examined: Examined


class Uploads:
    """What the handlers share; and the way of an upload to the disk, past all that reads bodies whole."""

    def __init__(
        self,
        settings: Settings,
        *,
        pool: asyncpg.Pool,
        keyring: Keyring,
        once: Once,
        shelf: Shelf,
        store: Store,
        book: AdapterBook,
        changes: Changes,
    ) -> None:
        self.pool = pool
        self._settings = settings
        self._keyring = keyring
        self._once = once
        self._shelf = shelf
        self._store = store
        self._book = book
        self._changes = changes
        self._running: Counter[int] = Counter()

    def middleware(self, app: ASGIApp) -> ASGIApp:
        """What stands before the handler of uploads: hands it an upload that lies on the disk."""

        async def receiving(scope: Scope, receive: Receive, send: Send) -> None:
            if scope.get("method") != "POST":
                await app(scope, receive, send)
                return
            with contextlib.suppress(wire.ClientLeft):
                await self._receive(app, cast("HTTPScope", scope), receive, send)

        return receiving

    async def tell(self) -> None:
        """Let this gateway know at once what changed, and the others as soon as they hear of it."""
        await self._book.refresh(self.pool)
        await self._changes.tell(Change.ADAPTERS)

    async def _receive(self, app: ASGIApp, scope: HTTPScope, receive: Receive, send: Send) -> None:
        """Take an upload to the disk, look at it, have it handled; where that fails nothing of it is left."""
        head = wire.read_head(scope)
        principal = await self._keyring.authenticate(head.api_key)
        whole_tenant(principal)
        sending = Sending(receive)
        try:
            await self._handle(app, scope, head, principal, sending, send)
        except Exception:
            await sending.discard()
            raise

    async def _handle(
        self,
        app: ASGIApp,
        scope: HTTPScope,
        head: wire.Head,
        principal: Principal,
        sending: Sending,
        send: Send,
    ) -> None:
        with (
            self._one_more(principal.organisation_id),
            await asyncio.to_thread(self._store.receive) as incoming,
        ):
            form = await forms.read(head, sending, incoming, self._settings.adapter_bytes_max)
            card = self._shelf.get(form.model)
            if card is None:
                raise UnknownModel(form.model, shapes.takers(self._shelf.cards))
            register.check_name(form.name)
            base = shapes.base_of(card, self._settings.models_folder, self._shelf.cards)
            examined = await asyncio.to_thread(intake.examine, incoming, form.config, base)
            scope["state"]["upload"] = Upload(incoming, form, examined)
            headers = [header for header in scope["headers"] if header[0] in identity.HEADERS]
            if not headers:
                await app(scope, _nothing_more, send)
                return
            # The digest stands for the files: a repetition brings the same, whatever its boundary is.
            said = msgspec.msgpack.encode((form.without_config(), examined.digest))
            await self._once.run(app, scope, headers, principal, said, _nothing_more, send)

    async def keep(self, principal: Principal, upload: Upload) -> Response[dict[str, Any]]:
        """Keep an upload as the next version of its adapter. Raises as register.keep, and BadRequest."""
        form = upload.form
        async with self.pool.acquire() as taken:
            connection = cast("asyncpg.Connection", taken)
            try:
                project_id = await keys.find_project(connection, principal.organisation_id, form.project)
            except keys.UnknownProject as error:
                raise BadRequest(str(error), param="project") from None
            wanted = Wanted(
                organisation_id=principal.organisation_id,
                project_id=project_id,
                name=form.name,
                description=form.description,
                activate=form.activate,
                organisation_bytes_max=self._settings.adapters_bytes_max,
            )
            kept = await register.keep(connection, self._store, upload.incoming, upload.examined, wanted)
        await self.tell()
        return Response(shown(kept.adapter) | {"version": kept.number}, status_code=201 if kept.new else 200)

    @contextlib.contextmanager
    def _one_more(self, organisation_id: int) -> Iterator[None]:
        if self._running[organisation_id] >= AT_ONCE_MAX:
            raise TooManyUploads(AT_ONCE_MAX)
        self._running[organisation_id] += 1
        try:
            yield
        finally:
            self._running[organisation_id] -= 1
            if not self._running[organisation_id]:
                del self._running[organisation_id]


def routes(uploads: Uploads) -> list[HTTPRouteHandler]:
    """The handlers."""
    pool = uploads.pool

    def receiving(app: ASGIApp) -> ASGIApp:
        # A function: Litestar copies what a handler is given, and a bound method with all that it belongs to.
        return uploads.middleware(app)

    @post(PATH, middleware=[receiving], opt={CLAIMS_ITSELF: True})
    async def upload_adapter(
        principal: NamedDependency[Principal], request: Request[Any, Any, Any]
    ) -> Response[dict[str, Any]]:
        return await uploads.keep(principal, request.scope["state"]["upload"])

    @get(PATH)
    async def list_adapters(principal: NamedDependency[Principal]) -> dict[str, Any]:
        return {"data": [shown(each) for each in await register.listed(pool, principal.organisation_id)]}

    @get(f"{PATH}/{{name:str}}")
    async def show_adapter(principal: NamedDependency[Principal], name: FromPath[str]) -> dict[str, Any]:
        return shown(await register.find(pool, principal.organisation_id, name))

    @patch(f"{PATH}/{{name:str}}")
    async def change_adapter(
        principal: NamedDependency[Principal], name: FromPath[str], data: JSONBody[Changed]
    ) -> dict[str, Any]:
        whole_tenant(principal)
        async with pool.acquire() as taken:
            adapter = await register.change(
                cast("asyncpg.Connection", taken),
                principal.organisation_id,
                name,
                active_version=data.active_version,
                description=data.description,
            )
        await uploads.tell()
        return shown(adapter)

    @delete(f"{PATH}/{{name:str}}")
    async def delete_adapter(principal: NamedDependency[Principal], name: FromPath[str]) -> None:
        whole_tenant(principal)
        await register.delete(pool, principal.organisation_id, name)
        await uploads.tell()

    return [upload_adapter, list_adapters, show_adapter, change_adapter, delete_adapter]


def shown(adapter: Adapter) -> dict[str, Any]:
    """An adapter as people see it."""
    fields: dict[str, Any] = msgspec.to_builtins(adapter)
    del fields["id"]
    for version in fields["versions"]:
        version["active"] = version["number"] == adapter.active_version
    return {"model": adapter.model, **fields}


def whole_tenant(principal: Principal) -> None:
    """Refuse keys that open one endpoint only."""
    if principal.endpoint_id is not None:
        raise NotFound("an endpoint's own key opens that endpoint and nothing else")


async def _nothing_more() -> Any:
    """The server's `receive` after a body that was read."""
    return {"type": "http.request", "body": b"", "more_body": False}
