"""Prices over time, for people: what held, holds and will hold, on a list or for an organisation."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any, Generic, TypeVar

import msgspec

from penstock_billing import price_units
from penstock_billing.prices import STANDARD_LIST, MinuteKind, MinutePriceVersion, PriceBook, PriceVersion

P = TypeVar("P", PriceVersion, MinutePriceVersion)


class Status(StrEnum):
    """Where a price stands, seen from a moment."""

    PAST = "past"
    """Another one followed it."""
    IN_FORCE = "in force"
    """It is what is paid."""
    SCHEDULED = "scheduled"
    """Its time has not come."""


class Held(msgspec.Struct, Generic[P], frozen=True):
    """A price, and from when it is what those asked about pay."""

    since: datetime
    price: P
    status: Status


class Asked(msgspec.Struct, frozen=True):
    """Whose prices: those of a list, or of an organisation, which may change its list."""

    price_list_id: int = STANDARD_LIST
    organisation_id: int | None = None


def models(book: PriceBook, asked: Asked) -> list[str]:
    """Every model that they have, had or will have a price for."""
    lists = _lists(book, asked)
    return sorted({each.model for each in book.versions if each.price_list_id in lists})


def minutes(book: PriceBook, asked: Asked) -> list[tuple[MinuteKind, str]]:
    """Every kind and subject of minutes that they have, had or will have a price for."""
    lists = _lists(book, asked)
    return sorted({(each.kind, each.subject) for each in book.minute_versions if each.price_list_id in lists})


def of_model(book: PriceBook, asked: Asked, model: str, at: datetime) -> list[Held[PriceVersion]]:
    """A model's prices in order of time."""
    return of_models(book, asked, at, {model}).get(model, [])


def of_models(
    book: PriceBook, asked: Asked, at: datetime, only: set[str] | None = None
) -> dict[str, list[Held[PriceVersion]]]:
    """The prices in order of time of every model, or of those named, in the order of their names."""
    lists, moves = _lists(book, asked), _moves(book, asked)
    cuts: dict[str, set[datetime]] = {}
    for each in book.versions:
        if each.price_list_id in lists and (only is None or each.model in only):
            cuts.setdefault(each.model, set(moves)).add(each.valid_from)

    def held(model: str) -> list[Held[PriceVersion]]:
        def price(at_s: float) -> PriceVersion | None:
            if asked.organisation_id is not None:
                return book.current(model, asked.organisation_id, at_s)
            return book.on_list(model, asked.price_list_id, at_s)

        return _held(sorted(cuts[model]), price, at)

    return {model: held(model) for model in sorted(cuts)}


def of_minutes(
    book: PriceBook, asked: Asked, kind: MinuteKind, subject: str, at: datetime
) -> list[Held[MinutePriceVersion]]:
    """A minute's prices in order of time."""

    def price(at_s: float) -> MinutePriceVersion | None:
        if asked.organisation_id is not None:
            return book.minute_price(kind, subject, asked.organisation_id, at_s)
        return book.minute_on_list(kind, subject, asked.price_list_id, at_s)

    lists = _lists(book, asked)
    cuts = _moves(book, asked)
    for each in book.minute_versions:
        if (each.kind, each.subject) == (kind, subject) and each.price_list_id in lists:
            cuts.add(each.valid_from)
    return _held(sorted(cuts), price, at)


def told(held: Held[PriceVersion], book: PriceBook) -> dict[str, Any]:
    """A model's price with everything exact, as answers and `--json` show it."""
    price = held.price
    return {
        "model": price.model,
        "status": held.status.value,
        "since": held.since,
        "price_version": price.id,
        "list": list_name(book, price.price_list_id),
        "prices_usd": price_units.priced(price),
        "batch_discount": price_units.discount_text(price.batch_discount_ppm),
    }


def minute_told(held: Held[MinutePriceVersion], book: PriceBook) -> dict[str, Any]:
    """A minute's price, likewise."""
    price = held.price
    return {
        "kind": price.kind,
        "subject": price.subject,
        "status": held.status.value,
        "since": held.since,
        "price_version": price.id,
        "list": list_name(book, price.price_list_id),
        "usd_per_minute": price_units.usd_per_minute_text(price.nano_usd_per_minute),
    }


def list_name(book: PriceBook, list_id: int) -> str:
    """What a list is called."""
    return book.lists[list_id].name if list_id in book.lists else f"#{list_id}"


def _lists(book: PriceBook, asked: Asked) -> set[int]:
    """The lists that ever count for them."""
    if asked.organisation_id is None:
        return {STANDARD_LIST, asked.price_list_id}
    mine = (each for each in book.assignments if each.organisation_id == asked.organisation_id)
    return {STANDARD_LIST, *(each.price_list_id for each in mine)}


def _moves(book: PriceBook, asked: Asked) -> set[datetime]:
    """When an organisation changed its list."""
    if asked.organisation_id is None:
        return set()
    return {each.valid_from for each in book.assignments if each.organisation_id == asked.organisation_id}


def _held(cuts: list[datetime], price: Callable[[float], P | None], at: datetime) -> list[Held[P]]:
    found: list[tuple[datetime, P]] = []
    for cut in cuts:
        now = price(cut.timestamp())
        if now is not None and (not found or found[-1][1] != now):
            found.append((cut, now))
    current = sum(since <= at for since, _ in found) - 1
    return [
        Held(since.astimezone(UTC), each, _status(number, current))
        for number, (since, each) in enumerate(found)
    ]


def _status(number: int, current: int) -> Status:
    if number == current:
        return Status.IN_FORCE
    return Status.PAST if number < current else Status.SCHEDULED
