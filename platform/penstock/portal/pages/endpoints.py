"""Endpoints: all of them by kind, and making a new one from a model of the catalog."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, cast

import asyncpg
import msgspec
from litestar import Request, Response, get, post
from litestar.di import NamedDependency
from litestar.handlers import HTTPRouteHandler
from litestar.params import FromQuery

from penstock.access import projects
from penstock.access.roles import Role
from penstock.access.sessions import Visitor
from penstock.edge.api.serverless import Asked
from penstock.edge.refusals import BadRequest, UnknownModel
from penstock.endpoints import naming, serverless
from penstock.endpoints.serverless import Endpoint, Slot
from penstock.endpoints.standing import EndpointStanding, State, standing
from penstock.portal import endpoint_figures, endpoint_forms, samples
from penstock.portal.endpoint_figures import Figures
from penstock.portal.endpoint_forms import New
from penstock.portal.forms import FormError, typed
from penstock.portal.frame import Frame, World
from penstock.portal.guard import require
from penstock_catalog.cards import EndpointKind, ModelCard

BASE = "/portal/endpoints"
MODELS_MAX = 40
"""Models that are offered at once; who looks for another one types its name."""
LATER = {
    "online": (
        "Online endpoints",
        "A model on engines of its own, at an address that stays: traffic is split between deployments, "
        "and a part of it can be mirrored to the next one. Paid by the minute of each instance.",
    ),
    "batch": (
        "Batch endpoints",
        "Files in, files out: a model works through many inputs at its own pace, on machines that come for "
        "the job and go after it. Paid by the minute of each instance inside the job.",
    ),
}
"""Kinds that are not here yet: what they will be."""


class Row(msgspec.Struct, frozen=True):
    """One line of the list."""

    endpoint: Endpoint
    standing: EndpointStanding
    figures: Figures | None
    """None: it is being deleted, and its name may be another's already."""


def routes(frame: Frame) -> list[HTTPRouteHandler]:
    """The handlers."""
    world = frame.world

    @get("/endpoints")
    async def list_endpoints(
        request: Request[Any, Any, Any],
        visitor: NamedDependency[Visitor],
        q: FromQuery[str] = "",
    ) -> Response[str]:
        # A parameter of this name would be Litestar's own.
        state = request.query_params.get("state", "")
        found = await serverless.listed(world.pool, visitor.organisation_id)
        figures = await endpoint_figures.of_endpoints(
            world.pool, visitor.organisation_id, found, datetime.now(UTC)
        )
        rows = [
            Row(each, standing(each, world.directory.standing(each.model)), figures.get(each.id))
            for each in found
        ]
        return frame.page(
            request,
            "endpoints.html",
            visitor,
            block="rows" if "hx-request" in request.headers else None,
            kind="serverless",
            rows=[row for row in rows if _matches(row, q, state)],
            total=len(rows),
            q=q,
            state=state,
            states=[each.value for each in State],
            may_change=visitor.may(Role.DEVELOPER),
        )

    def later(kind: str) -> HTTPRouteHandler:
        @get(f"/endpoints/{kind}", name=f"endpoints_{kind}")
        async def show(request: Request[Any, Any, Any], visitor: NamedDependency[Visitor]) -> Response[str]:
            title, text = LATER[kind]
            return frame.page(request, "endpoints_later.html", visitor, kind=kind, title=title, text=text)

        return show

    @get("/endpoints/new")
    async def new(
        request: Request[Any, Any, Any],
        visitor: NamedDependency[Visitor],
        model: FromQuery[str] = "",
        q: FromQuery[str] = "",
    ) -> Response[str]:
        require(visitor, Role.DEVELOPER)
        if not model:
            return _choose(frame, request, visitor, q)
        card = world.shelf.get(model)
        if card is None:
            return _not_offered(frame, request, visitor, model, [])
        if EndpointKind.SERVERLESS not in card.endpoints:
            return _not_offered(frame, request, visitor, card.id, [kind.value for kind in card.endpoints])
        taken = await serverless.names(world.pool, visitor.organisation_id)
        values = {"name": naming.free_name(card.id, taken), "project": "default"}
        return await _ask(frame, request, visitor, card, values)

    @post("/endpoints/new", status_code=201)
    async def create(request: Request[Any, Any, Any], visitor: NamedDependency[Visitor]) -> Response[str]:
        require(visitor, Role.DEVELOPER)
        values = await typed(request)
        card = world.shelf.get(values.get("model", ""))
        if card is None:
            return _not_offered(frame, request, visitor, values.get("model", ""), [])
        try:
            made, endpoint = await _create(world, visitor, values)
        except FormError as error:
            if "model" in error.errors:
                return _not_offered(frame, request, visitor, card.id, [kind.value for kind in card.endpoints])
            return await _ask(frame, request, visitor, card, dict(error.values), error.errors)
        shown = world.serverless.shown(endpoint)
        at = shown["scoring_uri"].removesuffix("/v1")
        return frame.page(
            request,
            "endpoint_created.html",
            visitor,
            status=201,
            endpoint=shown,
            secrets=[(slot.value, made[slot]) for slot in Slot],
            samples=samples.with_key(samples.of(card, at), made[Slot.PRIMARY]),
        )

    return [list_endpoints, *(later(kind) for kind in LATER), new, create]


async def _create(world: World, visitor: Visitor, values: dict[str, str]) -> tuple[dict[Slot, str], Endpoint]:
    """Make what was typed, by the way that programs take; raises FormError."""
    form = endpoint_forms.read(values, New)
    assert isinstance(form, New)
    asked = Asked(
        name=form.name,
        model=form.model,
        project=form.project,
        description=form.description,
        tags=endpoint_forms.tags(form.tags, values),
        limits=form.limits,
    )
    try:
        made = await world.serverless.create(visitor.organisation_id, asked)
    except BadRequest as error:
        raise endpoint_forms.refused(error, values) from None
    except UnknownModel as error:
        raise FormError({"model": str(error)}, values) from None
    return made, await world.serverless.find(visitor.organisation_id, form.name)


def _choose(frame: Frame, request: Request[Any, Any, Any], visitor: Visitor, q: str) -> Response[str]:
    """Ask for a model first: of no endpoint can it be another one later."""
    world = frame.world
    cards = world.shelf.search(q, endpoint=EndpointKind.SERVERLESS)
    found = [(card, world.prices.current(card.id, visitor.organisation_id)) for card in cards]
    # What can be called at once comes first: it has a price, and then a pool.
    found.sort(key=lambda each: (each[1] is None, not world.directory.offers(each[0].id)))
    return frame.page(
        request,
        "endpoint_model.html",
        visitor,
        block="models" if "hx-request" in request.headers else None,
        q=q,
        found=found[:MODELS_MAX],
        more=max(0, len(found) - MODELS_MAX),
    )


async def _ask(
    frame: Frame,
    request: Request[Any, Any, Any],
    visitor: Visitor,
    card: ModelCard,
    values: dict[str, str],
    errors: dict[str, str] | None = None,
) -> Response[str]:
    """The form, with what a model costs beside it."""
    world = frame.world
    async with world.pool.acquire() as taken:
        listed = await projects.listed(cast("asyncpg.Connection", taken), visitor.organisation_id)
    return frame.page(
        request,
        "endpoint_new.html",
        visitor,
        status=422 if errors else 200,
        card=card,
        price=world.prices.current(card.id, visitor.organisation_id),
        fee=fee(world, visitor),
        projects=[each.name for each in listed] or ["default"],
        values=values,
        errors=errors or {},
        url=f"{world.serverless.base_url}/serverless/",
    )


def _not_offered(
    frame: Frame, request: Request[Any, Any, Any], visitor: Visitor, model: str, kinds: list[str]
) -> Response[str]:
    """Say what a model is offered as instead; no kinds: it is not in the catalog at all."""
    status = 422 if kinds else 404
    return frame.page(request, "endpoint_refused.html", visitor, status=status, model=model, kinds=kinds)


def fee(world: World, visitor: Visitor) -> int:
    """What a minute of a serverless endpoint costs an organisation now, in nano-dollars."""
    kind = EndpointKind.SERVERLESS.value
    found = world.prices.minute_price("endpoint", kind, visitor.organisation_id)
    return 0 if found is None else found.nano_usd_per_minute


def _matches(row: Row, q: str, state: str) -> bool:
    """Whether a line has every word, and the state where one is asked for."""
    if state and row.standing.state.value != state:
        return False
    each = row.endpoint
    tags = " ".join(f"{name}={value}" for name, value in each.tags.items())
    text = f"{each.name} {each.model} {each.project} {each.description} {tags}".casefold()
    return all(word in text for word in q.casefold().split())
