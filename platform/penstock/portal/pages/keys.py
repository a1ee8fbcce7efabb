"""API keys: all of them, a new one with its secret, and each with what can be done with it."""

from __future__ import annotations

from typing import Any, cast

import asyncpg
import msgspec
from litestar import Request, Response, get, post
from litestar.di import NamedDependency
from litestar.handlers import HTTPRouteHandler
from litestar.params import FromPath

from penstock.access import issuing, limits, projects
from penstock.access.issuing import Change as KeyChange
from penstock.access.issuing import KeyRevoked, Wanted
from penstock.access.keys import PREFIX, ListedKey, UnknownKey
from penstock.access.limits import NONE
from penstock.access.names import NameRefused
from penstock.access.roles import Role
from penstock.access.sessions import Visitor
from penstock.changes import Change
from penstock.edge.api.keys import Keys
from penstock.edge.refusals import BadRequest, NotFound
from penstock.portal import forms, guard
from penstock.portal.forms import FormError
from penstock.portal.frame import Frame, go
from penstock.portal.pages import limit_fields
from penstock_catalog.cards import Task

PATH = "/portal/keys"
STATES = ("live", "revoked")
SHOWN_MAX = 200
"""On one page: of more, a part of the name is asked for."""


class New(msgspec.Struct):
    """A key as it is asked for; its limits are read beside it."""

    name: str
    project: str
    role: Role = Role.DEVELOPER


class Changed(msgspec.Struct):
    """What a key is to be."""

    name: str
    role: Role


def routes(frame: Frame) -> list[HTTPRouteHandler]:
    """The handlers."""
    return [*_shows(frame), *_changes(frame)]


def _shows(frame: Frame) -> list[HTTPRouteHandler]:
    world = frame.world
    api = Keys(world.pool, world.settings.pepper, world.changes)

    @get("/keys")
    async def list_keys(request: Request[Any, Any, Any], visitor: NamedDependency[Visitor]) -> Response[str]:
        found, limited, use = await api.listed(visitor.organisation_id)
        state = request.query_params.get("state", "live")
        project = request.query_params.get("project", "")
        text = request.query_params.get("q", "").strip()
        mine = [key for key in found if (not project or key.project == project) and _matches(key, text)]
        counts = {
            "live": sum(key.revoked_at is None for key in mine),
            "revoked": sum(key.revoked_at is not None for key in mine),
        }
        state = state if state in STATES else "live"
        wanted = [key for key in mine if (key.revoked_at is None) == (state == "live")]
        return frame.page(
            request,
            "keys.html",
            visitor,
            block="list" if request.headers.get("hx-target") == "keys" else None,
            keys=wanted[:SHOWN_MAX],
            hidden=max(0, len(wanted) - SHOWN_MAX),
            any=bool(found),
            text=text,
            counts=counts,
            state=state,
            project=project,
            projects=[("", "All"), *((each, each) for each in sorted({key.project for key in found}))],
            found=len(found),
            limited=limited,
            use=use,
        )

    @get("/keys/new")
    async def ask_key(request: Request[Any, Any, Any], visitor: NamedDependency[Visitor]) -> Response[str]:
        guard.require(visitor, Role.DEVELOPER)
        values = {"project": request.query_params.get("project", "default"), "role": Role.DEVELOPER.value}
        return await _form(frame, request, visitor, values, {})

    @get("/keys/{key_id:str}")
    async def show_key(
        request: Request[Any, Any, Any], visitor: NamedDependency[Visitor], key_id: FromPath[str]
    ) -> Response[str]:
        return await _one(frame, request, visitor, key_id)

    return [list_keys, ask_key, show_key]


def _changes(frame: Frame) -> list[HTTPRouteHandler]:
    world = frame.world
    api = Keys(world.pool, world.settings.pepper, world.changes)

    @post("/keys", status_code=201)
    async def create_key(request: Request[Any, Any, Any], visitor: NamedDependency[Visitor]) -> Response[str]:
        guard.require(visitor, Role.DEVELOPER)
        values = await forms.typed(request)
        try:
            key, text = await _make(api, visitor, values)
        except FormError as error:
            return await _form(frame, request, visitor, error.values, error.errors, status=422)
        return frame.page(
            request,
            "key_made.html",
            visitor,
            status=201,
            key=key,
            secret=text,
            base_url=f"{world.settings.public_url}/v1",
            model=_model(frame),
        )

    @post("/keys/{key_id:str}", status_code=303)
    async def change_key(
        request: Request[Any, Any, Any], visitor: NamedDependency[Visitor], key_id: FromPath[str]
    ) -> Response[Any]:
        await _may(frame, visitor, key_id)
        values = await forms.typed(request)
        try:
            await _change(api, visitor, key_id, values)
        except FormError as error:
            return await _one(frame, request, visitor, key_id, error=error)
        return go(f"{PATH}/{key_id}", "saved")

    @post("/keys/{key_id:str}/limits", status_code=303)
    async def limit_key(
        request: Request[Any, Any, Any], visitor: NamedDependency[Visitor], key_id: FromPath[str]
    ) -> Response[Any]:
        await _may(frame, visitor, key_id)
        values = await forms.typed(request)
        try:
            wanted = limit_fields.read(values)
        except FormError as error:
            return await _one(frame, request, visitor, key_id, error=error)
        async with world.pool.acquire() as taken:
            connection = cast("asyncpg.Connection", taken)
            try:
                await limits.limit_key(connection, visitor.organisation_id, key_id, wanted)
            except UnknownKey as error:
                raise BadRequest(f"the key {key_id} is revoked, so it cannot be limited") from error
        await world.changes.tell(Change.KEYS)
        return go(f"{PATH}/{key_id}", "limits-saved")

    @post("/keys/{key_id:str}/revoke", status_code=303)
    async def revoke_key(visitor: NamedDependency[Visitor], key_id: FromPath[str]) -> Response[Any]:
        await _may(frame, visitor, key_id)
        await api.revoke(visitor.organisation_id, key_id, visitor.role)
        return go(PATH, "key-revoked")

    return [create_key, change_key, limit_key, revoke_key]


async def _make(api: Keys, visitor: Visitor, values: dict[str, str]) -> tuple[ListedKey, str]:
    """Make what was typed; raises FormError."""
    form = forms.read(values, New)
    if not visitor.role.may(form.role):
        raise FormError({"role": "only an owner makes a key of an owner"}, values)
    wanted = Wanted(name=form.name, project=form.project, role=form.role, limits=limit_fields.read(values))
    try:
        return await api.issue(visitor.organisation_id, wanted, visitor.role)
    except NameRefused as error:
        raise FormError({"name": str(error)}, values) from None
    except BadRequest as error:
        raise FormError({"project": str(error)}, values) from None


async def _change(api: Keys, visitor: Visitor, key_id: str, values: dict[str, str]) -> None:
    """Make a key what was typed; raises FormError, BadRequest."""
    form = forms.read(values, Changed)
    if not visitor.role.may(form.role):
        raise FormError({"role": "only an owner gives a key the role of an owner"}, values)
    wanted = KeyChange(name=form.name, role=form.role)
    try:
        await api.change(visitor.organisation_id, key_id, wanted, visitor.role)
    except NameRefused as error:
        raise FormError({"name": str(error)}, values) from None
    except KeyRevoked as error:
        raise BadRequest(str(error)) from None


def _matches(key: ListedKey, text: str) -> bool:
    """Whether a key is meant by part of its name or id, by its last characters, or by the key itself."""
    text = text.removeprefix(PREFIX).casefold()
    return text in key.name.casefold() or text.startswith(key.id) or text in key.id or text == key.last_four


async def _may(frame: Frame, visitor: Visitor, key_id: str) -> None:
    """Raise NotFound, or Forbidden for a viewer and for a key of more power than the visitor has."""
    guard.require(visitor, Role.DEVELOPER)
    key = await _find(frame, visitor, key_id)
    guard.require(visitor, key.role)


async def _find(frame: Frame, visitor: Visitor, key_id: str) -> ListedKey:
    try:
        return await issuing.find(frame.world.pool, visitor.organisation_id, key_id)
    except UnknownKey:
        raise NotFound("There is no key of this id in this organisation") from None


async def _form(
    frame: Frame,
    request: Request[Any, Any, Any],
    visitor: Visitor,
    values: Any,
    errors: dict[str, str],
    status: int = 200,
) -> Response[str]:
    found = await projects.listed(frame.world.pool, visitor.organisation_id)
    return frame.page(
        request,
        "key_new.html",
        visitor,
        status=status,
        values=values,
        errors=errors,
        projects=[project.name for project in found],
        limit_fields=limit_fields.FIELDS,
    )


async def _one(
    frame: Frame,
    request: Request[Any, Any, Any],
    visitor: Visitor,
    key_id: str,
    *,
    error: FormError | None = None,
) -> Response[str]:
    await _find(frame, visitor, key_id)
    world = frame.world
    found, limited, use = await Keys(world.pool, world.settings.pepper, world.changes).listed(
        visitor.organisation_id
    )
    (key,) = [each for each in found if each.id == key_id]
    limit = limited.get(key.id, NONE)
    values = {"name": key.name, "role": key.role.value, **limit_fields.values(limit)}
    return frame.page(
        request,
        "key.html",
        visitor,
        status=422 if error else 200,
        key=key,
        limits=limit,
        use=use,
        values=values | dict(error.values) if error else values,
        errors=error.errors if error else {},
        limit_fields=limit_fields.FIELDS,
        changes=key.revoked_at is None and visitor.may(Role.DEVELOPER) and visitor.role.may(key.role),
    )


def _model(frame: Frame) -> str:
    """A chat model to show a first request with: one that is there, or else any of the catalog."""
    shelf = frame.world.shelf
    there = [card for name in frame.world.directory.models() if (card := shelf.get(name))]
    for card in (*there, *shelf.cards):
        if card.task is Task.CHAT:
            return card.id
    return there[0].id if there else "publisher/model"
