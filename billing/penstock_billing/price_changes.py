"""Changing prices: each change adds a row that holds from now or from a later moment on.

Changes wait for each other, and for cards that are taken over, under one lock. All raise PriceError, and
then nothing was changed.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Generic, TypeVar

import asyncpg
import msgspec

from penstock_billing import price_units, prices
from penstock_billing.errors import PriceError
from penstock_billing.prices import (
    SQL,
    STANDARD_LIST,
    Assignment,
    MinuteKind,
    MinutePriceVersion,
    PriceBook,
    PriceList,
    PriceVersion,
)

AHEAD_MAX = timedelta(days=3660)
"""Nothing is scheduled later: beyond it somebody mistyped the year."""
_LIST_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,99}")
_SUBJECT = re.compile(r"[A-Za-z0-9][A-Za-z0-9._/-]{0,99}")
ENDPOINT_KINDS = ("serverless", "online", "batch")
"""What an endpoint's minutes are told for."""

T = TypeVar("T", PriceVersion, MinutePriceVersion, Assignment)


class Change(msgspec.Struct, frozen=True, kw_only=True):
    """What is to cost something else; None stays as it is."""

    input_pico_usd: int | None = None
    cached_input_pico_usd: int | None = None
    output_pico_usd: int | None = None
    image_pico_usd: int | None = None
    audio_second_pico_usd: int | None = None
    document_pico_usd: int | None = None
    batch_discount_ppm: int | None = None


class When(msgspec.Struct, frozen=True, kw_only=True):
    """From when on something holds, and how it is to be added."""

    valid_from: datetime | None = None
    """With a time zone; None is now, by the database's clock."""
    note: str = ""
    until_scheduled: bool = False
    """Whether it may hold only until a change that is scheduled already."""
    dry_run: bool = False
    """Only say what would be: check everything and add nothing."""


class Added(msgspec.Struct, Generic[T], frozen=True):
    """A change: what held at that moment without it, what holds with it, and what ends it."""

    before: T | None
    after: T
    """Its id is 0 after a dry run."""
    next: T | None


async def add(
    connection: asyncpg.Connection,
    model: str,
    change: Change,
    when: When,
    price_list_id: int = STANDARD_LIST,
) -> Added[PriceVersion]:
    """Give a model other prices on a list, from a moment on; what the change leaves out stays as it is.

    Where the list did not name the model before, that is what the standard list says. The caller makes sure
    that there is such a model.
    """
    async with connection.transaction():
        book, moment = await _begin(connection, when)
        before = book.on_list(model, price_list_id, moment.timestamp())
        after = _changed(model, before, change, price_list_id, moment, when.note)
        if before is not None and before.origin == "operator" and _same_price(before, after):
            raise PriceError(f"{model} costs just that already; nothing would change")
        on_list = [v for v in book.versions if (v.price_list_id, v.model) == (price_list_id, model)]
        upcoming = _next(on_list, moment, when, model)
        if not when.dry_run:
            numbers = (getattr(after, name) for name in Change.__struct_fields__)
            arguments = (price_list_id, model, *numbers, when.valid_from, when.note)
            after = prices.version_of(await _insert(connection, "add_version", *arguments))
    return Added(before, after, upcoming)


async def add_minute(
    connection: asyncpg.Connection,
    kind: MinuteKind,
    subject: str,
    nano_usd_per_minute: int,
    when: When,
    price_list_id: int = STANDARD_LIST,
) -> Added[MinutePriceVersion]:
    """Set what a minute of a kind of endpoint, or of an instance type, costs on a list from a moment on."""
    if kind == "endpoint" and subject not in ENDPOINT_KINDS:
        raise PriceError(f"{subject[:100]!r} is no kind of endpoint: {', '.join(ENDPOINT_KINDS)}", "subject")
    if not _SUBJECT.fullmatch(subject):
        raise PriceError(
            f"{subject[:100]!r} cannot be an instance type: 1 to 100 letters, digits, '.', '_', '/' and '-'",
            "subject",
        )
    if not 0 <= nano_usd_per_minute <= price_units.USD_MAX * price_units.NANO_PER_USD:
        raise PriceError(f"a minute costs from 0 to {price_units.USD_MAX:,} dollars", "per_minute")
    async with connection.transaction():
        book, moment = await _begin(connection, when)
        before = book.minute_on_list(kind, subject, price_list_id, moment.timestamp())
        if (
            before is not None
            and before.price_list_id == price_list_id
            and before.nano_usd_per_minute == nano_usd_per_minute
        ):
            raise PriceError(f"{kind} {subject} costs just that already; nothing would change")
        key = (price_list_id, kind, subject)
        on_list = [v for v in book.minute_versions if (v.price_list_id, v.kind, v.subject) == key]
        upcoming = _next(on_list, moment, when, f"{kind} {subject}")
        after = MinutePriceVersion(0, kind, subject, nano_usd_per_minute, moment, price_list_id, when.note)
        if not when.dry_run:
            arguments = (price_list_id, kind, subject, nano_usd_per_minute, when.valid_from, when.note)
            after = prices.minute_version_of(await _insert(connection, "add_minute_version", *arguments))
    return Added(before, after, upcoming)


async def new_list(connection: asyncpg.Connection, name: str, note: str = "") -> PriceList:
    """Make a list, empty at first: everything on it costs what the standard list says."""
    if not _LIST_NAME.fullmatch(name):
        raise PriceError(
            f"{name[:100]!r} cannot be a list's name: 1 to 100 small letters, digits, '.', '_' and '-'",
            "name",
        )
    row = await connection.fetchrow(SQL["add_list"], name, note)
    if row is None:
        raise PriceError(f"there is a list {name!r} already; choose another name", "name")
    return prices.list_of(row)


async def assign(
    connection: asyncpg.Connection, organisation_id: int, price_list_id: int, when: When
) -> Added[Assignment]:
    """Let an organisation pay by a list from a moment on; the standard list ends a special one."""
    async with connection.transaction():
        book, moment = await _begin(connection, when)
        mine = [each for each in book.assignments if each.organisation_id == organisation_id]
        before = next((each for each in reversed(mine) if each.valid_from <= moment), None)
        if (before.price_list_id if before else STANDARD_LIST) == price_list_id:
            raise PriceError("the organisation pays by that list already; nothing would change", "list")
        upcoming = _next(mine, moment, when, "the organisation's list")
        after = Assignment(0, organisation_id, price_list_id, moment, when.note)
        if not when.dry_run:
            arguments = (organisation_id, price_list_id, when.valid_from, when.note)
            after = prices.assignment_of(await _insert(connection, "add_assignment", *arguments))
    return Added(before, after, upcoming)


def find_list(lists: Iterable[PriceList], name: str) -> PriceList:
    """Find a list by its name; raises PriceError with the names that there are."""
    by_name = {each.name: each for each in lists}
    if name not in by_name:
        raise PriceError(f"there is no price list {name[:100]!r}{near(name, by_name)}", "list")
    return by_name[name]


def near(name: str, known: Iterable[str]) -> str:
    """Say which known names are nearest to one that is not, ready to follow it."""
    names = sorted(known)
    closest = difflib.get_close_matches(name, names, 3) or [n for n in names if name.lower() in n.lower()][:3]
    if closest:
        return f"; did you mean {' or '.join(closest)}?"
    return f"; there are {', '.join(names[:10])}{' and more' if len(names) > 10 else ''}" if names else ""


async def _begin(connection: asyncpg.Connection, when: When) -> tuple[PriceBook, datetime]:
    """Take the lock and read everything; the moment from which the change holds."""
    if len(when.note) > 1000:
        raise PriceError(f"the note has {len(when.note)} characters; at most 1000 are kept", "note")
    await connection.execute(SQL["lock_list"])
    book = PriceBook()
    await book.load(connection)
    now: datetime = await connection.fetchval(SQL["clock"])
    moment = now if when.valid_from is None else when.valid_from
    if moment < now:
        raise PriceError(
            f"{_text(moment)} is past (it is {_text(now)}), and the past stays as it was: "
            "begin at a later moment, or say none for now",
            "from",
        )
    if moment > now + AHEAD_MAX:
        raise PriceError(f"{_text(moment)} is more than ten years ahead; begin at a sooner moment", "from")
    return book, moment


async def _insert(connection: asyncpg.Connection, query: str, *arguments: object) -> asyncpg.Record:
    """Add the row. The database has the last word on whether its moment has passed meanwhile."""
    try:
        row = await connection.fetchrow(SQL[query], *arguments)
    except asyncpg.CheckViolationError as error:
        if error.constraint_name != "never_in_the_past":
            raise
        raise PriceError("that moment passed while this was added; begin at a later one", "from") from error
    assert row is not None
    return row


def _changed(
    model: str, before: PriceVersion | None, change: Change, list_id: int, moment: datetime, note: str
) -> PriceVersion:
    """The prices as they will be. Raises PriceError where they cannot be."""
    values = {
        name: getattr(before, name, None) if getattr(change, name) is None else getattr(change, name)
        for name in Change.__struct_fields__
    }
    missing = [unit.name for unit in price_units.TOKENS if values[unit.field] is None]
    if missing:
        raise PriceError(
            f"{model} has no price yet, so every token's price is needed: {', '.join(missing)} is missing",
            missing[0],
        )
    numbers = {name: value or 0 for name, value in values.items()}
    for unit in price_units.UNITS:
        limit = price_units.USD_MAX * price_units.PICO_PER_USD // unit.per_count
        if not 0 <= numbers[unit.field] <= limit:
            raise PriceError(
                f"{unit.name} must be from 0 to {price_units.USD_MAX:,} dollars per {unit.per}", unit.name
            )
    if not 0 <= numbers["batch_discount_ppm"] <= 100 * price_units.PPM_PER_PERCENT:
        raise PriceError('batch_discount must be from "0%" to "100%"', "batch_discount")
    if numbers["cached_input_pico_usd"] > numbers["input_pico_usd"]:
        cached, fresh = (
            price_units.usd_text(unit, numbers[unit.field]) for unit in price_units.TOKENS[1::-1]
        )
        raise PriceError(
            f"cached_input {cached} is more than input {fresh}; at most that is accepted", "cached_input"
        )
    return PriceVersion(id=0, model=model, valid_from=moment, price_list_id=list_id, note=note, **numbers)  # type: ignore[arg-type]


def _same_price(before: PriceVersion, after: PriceVersion) -> bool:
    fields = (*Change.__struct_fields__, "price_list_id")
    return all(getattr(before, name) == getattr(after, name) for name in fields)


def _next(dated: Sequence[T], moment: datetime, when: When, what: str) -> T | None:
    """The first of them that comes later. Raises PriceError where that is not accepted."""
    upcoming = next((each for each in dated if each.valid_from > moment), None)
    if upcoming is not None and not when.until_scheduled:
        raise PriceError(
            f"a change of {what} is scheduled for {_text(upcoming.valid_from)} and would end this one: "
            "accept that (--until-scheduled), or begin at that moment to replace it",
            "from",
        )
    return upcoming


def _text(moment: datetime) -> str:
    return f"{moment.astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}"
