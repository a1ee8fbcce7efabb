"""What this organisation pays: prices in force, scheduled changes, and what held before."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import msgspec
from litestar import Request, Response, get
from litestar.di import NamedDependency
from litestar.handlers import HTTPRouteHandler

from penstock.access.sessions import Visitor
from penstock.edge.refusals import NotFound
from penstock.portal.frame import Frame
from penstock_billing import price_history, price_units
from penstock_billing.price_changes import near
from penstock_billing.price_history import Asked, Held, Status
from penstock_billing.price_units import TOKENS, UNITS
from penstock_billing.prices import MinutePriceVersion, PriceBook, PriceVersion

PAGE = 50
QUERY_MAX = 200
OTHERS = UNITS[len(TOKENS) :]
MINUTE_WORDS = {"endpoint": "Having an endpoint", "instance": "An instance"}


class Priced(msgspec.Struct):
    """A model's or a minute's price as one line shows it."""

    name: str
    now: Held[Any] | None
    """In force; None for what is only scheduled."""
    coming: list[Held[Any]]
    changes: int
    """How many prices there were, are and will be."""


def routes(frame: Frame) -> list[HTTPRouteHandler]:
    """The handlers."""
    book, shelf = frame.world.prices, frame.world.shelf

    @get("/prices", sync_to_thread=False)
    def show(request: Request[Any, Any, Any], visitor: NamedDependency[Visitor]) -> Response[str]:
        now = datetime.now(UTC)
        asked = Asked(organisation_id=visitor.organisation_id)
        query = request.query_params.get("q", "").strip()[:QUERY_MAX]
        only_coming = request.query_params.get("show") == "scheduled"
        everything = [_priced(name, held) for name, held in price_history.of_models(book, asked, now).items()]
        words = query.casefold().split()
        found = [
            each
            for each in everything
            if all(word in each.name.casefold() for word in words) and (each.coming or not only_coming)
        ]
        page = _page(request.query_params.get("page", ""), len(found))
        return frame.page(
            request,
            "prices.html",
            visitor,
            block="found" if request.headers.get("hx-target") == "found" else None,
            found=found[(page - 1) * PAGE : page * PAGE],
            count=len(found),
            any=bool(everything),
            page=page,
            pages=max(1, -(-len(found) // PAGE)),
            q=query,
            only_coming=only_coming,
            on_shelf=lambda name: shelf.get(name) is not None,
            scheduled=sum(bool(each.coming) for each in everything),
            minutes=[
                (kind, subject, _priced(subject, price_history.of_minutes(book, asked, kind, subject, now)))
                for kind, subject in price_history.minutes(book, asked)
            ],
            listed=_listed(book, visitor.organisation_id),
            **_words(book),
        )

    @get("/prices/history", sync_to_thread=False)
    def show_history(request: Request[Any, Any, Any], visitor: NamedDependency[Visitor]) -> Response[str]:
        now = datetime.now(UTC)
        asked = Asked(organisation_id=visitor.organisation_id)
        model = request.query_params.get("model", "")
        kind, _, subject = request.query_params.get("minute", "").partition(":")
        held: list[Held[PriceVersion]] = []
        by_minute: list[Held[MinutePriceVersion]] = []
        if kind in MINUTE_WORDS:
            by_minute = price_history.of_minutes(book, asked, kind, subject, now)  # type: ignore[arg-type]
        else:
            held = price_history.of_model(book, asked, model, now)
        if not held and not by_minute:
            offered = price_history.models(book, asked)
            raise NotFound(f"there is no price for {(model or subject)[:100]!r}{near(model, offered)}")
        return frame.page(
            request,
            "price_history.html",
            visitor,
            name=f"{MINUTE_WORDS[kind]}: {subject}" if by_minute else model,
            held=list(reversed(held)),
            by_minute=list(reversed(by_minute)),
            **_words(book),
        )

    return [show, show_history]


def beside_tokens(price: PriceVersion) -> list[str]:
    """What a model costs beside tokens, in words; nothing for most."""
    found = [
        f"${price_units.usd_text(unit, getattr(price, unit.field))} per {unit.per}"
        for unit in OTHERS
        if getattr(price, unit.field)
    ]
    if price.batch_discount_ppm:
        found.append(f"{price_units.discount_text(price.batch_discount_ppm)} less in batches")
    return found


def change(before: PriceVersion | None, after: PriceVersion) -> str:
    """How much input and output change, for people to see at once what a version means."""
    if before is None:
        return "new"
    parts = {
        unit.label.lower(): price_units.percent_change(
            getattr(before, unit.field), getattr(after, unit.field)
        )
        for unit in TOKENS
    }
    told = [f"{name} {text}" for name, text in parts.items() if text]
    if len(told) == len(TOKENS) and len(set(parts.values())) == 1:
        return f"all {next(iter(parts.values()))}"
    return ", ".join(told)


def _priced(name: str, held: list[Held[Any]]) -> Priced:
    return Priced(
        name,
        next((each for each in held if each.status is Status.IN_FORCE), None),
        [each for each in held if each.status is Status.SCHEDULED],
        len(held),
    )


def _page(text: str, count: int) -> int:
    """Which page, from 1; the nearest there is to what was asked."""
    asked = int(text) if text.isascii() and text.isdigit() and len(text) < 9 else 1
    return min(max(asked, 1), max(1, -(-count // PAGE)))


def _listed(book: PriceBook, organisation_id: int) -> dict[str, Any]:
    """The list that an organisation pays by, since when, and which follows."""
    now_s = datetime.now(UTC).timestamp()
    mine = [each for each in book.assignments if each.organisation_id == organisation_id]
    past = [each for each in mine if each.valid_from.timestamp() <= now_s]
    return {
        "name": price_history.list_name(book, book.list_id(organisation_id, now_s)),
        "since": past[-1].valid_from if past else None,
        "coming": [
            (price_history.list_name(book, each.price_list_id), each.valid_from)
            for each in mine
            if each.valid_from.timestamp() > now_s
        ],
    }


def _words(book: PriceBook) -> dict[str, Any]:
    return {
        "beside_tokens": beside_tokens,
        "change": change,
        "list_name": lambda number: price_history.list_name(book, number),
        "per_minute": price_units.usd_per_minute_text,
        "minute_words": MINUTE_WORDS,
        "percent_change": price_units.percent_change,
    }
