"""Price lists: what is charged, a new price from a moment on, and what a proposal would change."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, cast

import asyncpg
import msgspec
from litestar import Request, Response, get, post
from litestar.di import NamedDependency
from litestar.handlers import HTTPRouteHandler

from penstock.access import keys
from penstock.access.sessions import Visitor
from penstock.portal import forms
from penstock.portal.forms import FormError
from penstock.portal.frame import Frame, go
from penstock.portal.rendering import require_operator
from penstock_base import money
from penstock_billing import price_backtest, price_changes, price_history, price_proposals
from penstock_billing.errors import PriceError
from penstock_billing.price_backtest import Backtest
from penstock_billing.price_changes import Change, When
from penstock_billing.price_history import Asked, Status
from penstock_billing.price_proposals import Proposal
from penstock_billing.prices import STANDARD_LIST, PriceBook

PATH = "/portal/operator/prices"
DAYS = (1, 7, 30, 90)
SHOWN_MAX = 200
"""Models; of more, a part of the name is asked for."""
PROPOSAL_BYTES_MAX = 200_000
EXAMPLE = """name: Spring prices
models:
  penstock/demo-chat:
    input: "0.20"
    cached_input: "0.02"
    output: "0.60"
"""
FIELDS = {"input": "input_pico_usd", "cached_input": "cached_input_pico_usd", "output": "output_pico_usd"}


class NewPrice(msgspec.Struct):
    """A price from a moment on; what is left out stays as it is."""

    model: str
    price_list: str = "standard"
    input: str = ""
    cached_input: str = ""
    output: str = ""
    valid_from: str = ""
    note: str = ""


class Simulated(msgspec.Struct):
    """A proposal, and the usage that it is tried on."""

    proposal: str
    days: int = 30


def routes(frame: Frame) -> list[HTTPRouteHandler]:
    """The handlers."""
    world = frame.world

    @get("/operator/prices")
    async def show(request: Request[Any, Any, Any], visitor: NamedDependency[Visitor]) -> Response[str]:
        require_operator(visitor)
        return await _page(frame, request, visitor)

    @post("/operator/prices", status_code=303)
    async def add(request: Request[Any, Any, Any], visitor: NamedDependency[Visitor]) -> Response[Any]:
        require_operator(visitor)
        values = await forms.typed(request)
        try:
            form = forms.read(values, NewPrice)
            if world.shelf.get(form.model) is None:
                raise FormError({"model": "there is no model of this name in the catalog"}, values)
            change, when = _change(form, values), When(valid_from=_moment(form, values), note=form.note[:500])
            async with world.pool.acquire() as taken:
                connection = cast("asyncpg.Connection", taken)
                book = await _book_now(connection)
                on = price_changes.find_list(book.lists.values(), form.price_list)
                await price_changes.add(connection, form.model, change, when, on.id)
        except PriceError as error:
            return await _page(
                frame, request, visitor, 422, errors={error.field or "form": str(error)}, values=values
            )
        except FormError as error:
            return await _page(frame, request, visitor, 422, errors=error.errors, values=values)
        return go(PATH, "price-added")

    @post("/operator/prices/simulate", status_code=200)
    async def simulate(request: Request[Any, Any, Any], visitor: NamedDependency[Visitor]) -> Response[Any]:
        require_operator(visitor)
        values = await forms.typed(request)
        try:
            form = forms.read(values, Simulated)
            if form.days not in DAYS or len(form.proposal) > PROPOSAL_BYTES_MAX:
                raise FormError(
                    {"proposal": "that is too long, or no number of days that is offered"}, values
                )
            result = await _simulate(frame, form)
        except PriceError as error:
            return await _page(frame, request, visitor, 422, errors={"proposal": str(error)}, values=values)
        except FormError as error:
            return await _page(frame, request, visitor, 422, errors=error.errors, values=values)
        except TimeoutError:
            told = {"proposal": "too much usage for a page: try fewer days, or `penstock prices simulate`"}
            return await _page(frame, request, visitor, 422, errors=told, values=values)
        return await _page(frame, request, visitor, values=values, result=result)

    return [show, add, simulate]


async def _book_now(connection: asyncpg.Connection) -> PriceBook:
    """The prices as they are this moment, not as the gateway last read them."""
    book = PriceBook()
    await book.load(connection)
    return book


async def _page(
    frame: Frame, request: Request[Any, Any, Any], visitor: Visitor, status: int = 200, **more: Any
) -> Response[str]:
    """Render the lists, and whatever a form brought."""
    world = frame.world
    async with world.pool.acquire() as taken:
        book = await _book_now(cast("asyncpg.Connection", taken))
    name = request.query_params.get("list", book.lists[STANDARD_LIST].name)
    chosen = next((each for each in book.lists.values() if each.name == name), book.lists[STANDARD_LIST])
    asked, now = Asked(chosen.id), datetime.now(UTC)
    query = request.query_params.get("q", "").strip()
    priced = price_history.models(book, asked)
    found = [model for model in priced if query.casefold() in model.casefold()]
    minutes = [
        each
        for kind, subject in price_history.minutes(book, asked)
        for each in price_history.of_minutes(book, asked, kind, subject, now)
        if each.status is not Status.PAST
    ]
    context: dict[str, Any] = {
        "lists": [(each.name, each.name) for each in book.lists.values()],
        "chosen": chosen.name,
        "held": {model: price_history.of_model(book, asked, model, now) for model in found[:SHOWN_MAX]},
        "found": len(found),
        "all": len(priced),
        "q": query,
        "minutes": minutes,
        "statuses": Status,
        "models": sorted((card.id, card.id) for card in world.shelf.cards),
        "errors": {},
        "values": {},
        "example": EXAMPLE,
        "choices": [(each, "day" if each == 1 else f"{each} days") for each in DAYS],
        "result": None,
    }
    block = "found" if request.headers.get("hx-target") == "found" else None
    return frame.page(
        request, "operator/prices.html", visitor, block=block, status=status, **(context | more)
    )


class Result(msgspec.Struct, frozen=True):
    """What a proposal would have changed."""

    proposal: Proposal
    found: Backtest
    names: dict[int, str]


async def _simulate(frame: Frame, form: Simulated) -> Result:
    """Price recorded usage again; raises PriceError, TimeoutError."""
    world, until = frame.world, datetime.now(UTC)
    known = {card.id for card in world.shelf.cards}
    proposal = price_proposals.parse(Path("proposal"), form.proposal.encode(), known)
    async with world.pool.acquire() as taken:
        connection = cast("asyncpg.Connection", taken)
        since = until - timedelta(days=form.days)
        found = await price_backtest.simulate(connection, proposal, since, until)
        names, _ = await keys.names(connection, {row.organisation_id for row in found.rows}, set())
    return Result(proposal, found, names)


def _change(form: NewPrice, values: dict[str, str]) -> Change:
    """Read the dollars per million tokens; raises FormError beside the one that is wrong."""
    said: dict[str, int] = {}
    for field, name in FIELDS.items():
        if text := getattr(form, field):
            try:
                said[name] = money.usd_per_million_to_pico(text.removeprefix("$"))
            except ValueError as error:
                raise FormError({field: str(error)}, values) from None
    if not said:
        raise FormError({"input": "name at least one price that is to change"}, values)
    return Change(**said)


def _moment(form: NewPrice, values: dict[str, str]) -> datetime | None:
    """Read when it begins, in UTC; None is now."""
    if not form.valid_from:
        return None
    try:
        moment = datetime.fromisoformat(form.valid_from)
    except ValueError:
        raise FormError({"valid_from": "write a moment as 2026-12-01T00:00"}, values) from None
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment
