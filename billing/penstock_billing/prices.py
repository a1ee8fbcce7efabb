"""Price versions: immutable and effective-dated. A new price is a new row; the past is never touched.

What an organisation pays for a model at a moment: the version in force on the price list that it is assigned
to at that moment, or, where that list does not name the model, the one in force on the list "standard".
Minutes likewise. Of two that begin at the same moment the one added later counts.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from datetime import datetime
from typing import Any, Literal, TypeVar

import asyncpg
import msgspec

from penstock_base import queries
from penstock_billing.errors import PriceError

SQL = queries.load("penstock_billing", "prices.sql")


class Offer(msgspec.Struct, frozen=True):
    """What a model's card asks for it, in pico-dollars per token."""

    model: str
    input_pico_usd: int
    cached_input_pico_usd: int
    output_pico_usd: int


STANDARD_LIST = 1
"""The price list of everybody who has none of their own."""
NOBODY = 0
"""In place of an organisation: one without a price list of its own."""

MinuteKind = Literal["endpoint", "instance"]
"""What is paid by the minute: an endpoint's being there, by its kind; an instance, by its type."""


class PriceList(msgspec.Struct, frozen=True):
    """A named set of prices; what it does not name costs what "standard" says."""

    id: int
    name: str
    note: str
    created_at: datetime


class PriceVersion(msgspec.Struct, frozen=True):
    """One model's prices on one list from a moment on, in pico-dollars per unit."""

    id: int
    model: str
    input_pico_usd: int
    cached_input_pico_usd: int
    output_pico_usd: int
    valid_from: datetime
    price_list_id: int = STANDARD_LIST
    image_pico_usd: int = 0
    audio_second_pico_usd: int = 0
    document_pico_usd: int = 0
    batch_discount_ppm: int = 0
    """What a batch endpoint pays less, in millionths."""
    origin: Literal["card", "operator"] = "operator"
    """Whether the model's card made it, and may replace it, or a person did."""
    note: str = ""


class MinutePriceVersion(msgspec.Struct, frozen=True):
    """What a minute of one subject costs on one list from a moment on."""

    id: int
    kind: MinuteKind
    subject: str
    """The endpoint kind (serverless, online, batch) or the instance type."""
    nano_usd_per_minute: int
    valid_from: datetime
    price_list_id: int = STANDARD_LIST
    note: str = ""


class Assignment(msgspec.Struct, frozen=True):
    """The list that an organisation pays by, from a moment on."""

    id: int
    organisation_id: int
    price_list_id: int
    valid_from: datetime
    note: str = ""


class MinuteSpan(msgspec.Struct, frozen=True):
    """A stretch of time with one price; `price` is None where there is none."""

    since_s: float
    until_s: float
    price: MinutePriceVersion | None


async def sync_list(connection: asyncpg.Connection, offers: list[Offer]) -> list[PriceVersion]:
    """Make the cards' prices the current standard ones, from now on, and return the versions this created.

    A model whose current price already is the offered one gets no new version, nor does one whose current
    price a person made; a model that is not offered keeps its price. Processes that do this at once wait for
    each other. Raises PriceError for a model offered twice or a negative price; then nothing is changed.
    """
    seen: set[str] = set()
    for offer in offers:
        if offer.model in seen:
            raise PriceError(f"{offer.model} has two prices in one list; keep one")
        seen.add(offer.model)
        if min(offer.input_pico_usd, offer.cached_input_pico_usd, offer.output_pico_usd) < 0:
            raise PriceError(f"{offer.model} has a negative price; a price must be 0 or more")
    async with connection.transaction():
        await connection.execute(SQL["lock_list"])
        rows = await connection.fetch(
            SQL["add_changed"],
            [offer.model for offer in offers],
            [offer.input_pico_usd for offer in offers],
            [offer.cached_input_pico_usd for offer in offers],
            [offer.output_pico_usd for offer in offers],
        )
    return [version_of(row) for row in rows]


async def set_first_minute(
    connection: asyncpg.Connection, kind: MinuteKind, subject: str, nano_usd_per_minute: int, note: str
) -> bool:
    """Give a minute its first price on the standard list, from now on; False where it ever had one there."""
    async with connection.transaction():
        await connection.execute(SQL["lock_list"])
        arguments = (kind, subject, nano_usd_per_minute, note)
        return await connection.fetchval(SQL["add_first_minute"], *arguments) is not None


def version_of(row: asyncpg.Record) -> PriceVersion:
    """Read a row of billing.price_version."""
    return _read(PriceVersion, row)


def minute_version_of(row: asyncpg.Record) -> MinutePriceVersion:
    """Read a row of billing.minute_price_version."""
    return _read(MinutePriceVersion, row)


def list_of(row: asyncpg.Record) -> PriceList:
    """Read a row of billing.price_list."""
    return _read(PriceList, row)


def assignment_of(row: asyncpg.Record) -> Assignment:
    """Read a row of billing.price_assignment."""
    return _read(Assignment, row)


S = TypeVar("S", bound=msgspec.Struct)
Dated = TypeVar("Dated", PriceVersion, MinutePriceVersion, Assignment)


def _read(struct: type[S], row: asyncpg.Record) -> S:
    return struct(**{name: row[name] for name in struct.__struct_fields__})


class _Histories(dict[Any, list[tuple[float, Dated]]]):
    """What was in force when, by key; newest first."""

    def __init__(self, dated: Iterable[Dated], key: Callable[[Dated], object]) -> None:
        for each in sorted(dated, key=lambda each: (each.valid_from, each.id), reverse=True):
            self.setdefault(key(each), []).append((each.valid_from.timestamp(), each))

    def at(self, key: object, at_s: float) -> Dated | None:
        for valid_from_s, each in self.get(key, ()):
            if valid_from_s <= at_s:
                return each
        return None

    def moments(self, key: object) -> list[float]:
        return [valid_from_s for valid_from_s, _ in self.get(key, ())]


class PriceBook:
    """Every price in memory, so that fixing one at admission waits for no database.

    It has what is scheduled too: a change takes effect on time, whether or not Postgres answers then.
    """

    def __init__(self) -> None:
        self._stamp: object = None
        self.fill([])

    async def load(self, pool: asyncpg.Pool | asyncpg.Connection) -> None:
        """Read what was added since the last time; until it succeeds, the book keeps what it had.

        Asks for a few counts when nothing was.
        """
        stamp = await pool.fetchval(SQL["stamp"])
        if stamp == self._stamp:
            return
        # In this order: whoever is assigned to a list finds the prices that were on it by then.
        assignments = await pool.fetch(SQL["all_assignments"])
        minutes = await pool.fetch(SQL["all_minute_versions"])
        versions = await pool.fetch(SQL["all_versions"])
        lists = await pool.fetch(SQL["all_lists"])
        self.fill(
            [version_of(row) for row in versions],
            [minute_version_of(row) for row in minutes],
            [assignment_of(row) for row in assignments],
            [list_of(row) for row in lists],
        )
        self._stamp = stamp

    def fill(
        self,
        versions: Sequence[PriceVersion],
        minutes: Sequence[MinutePriceVersion] = (),
        assignments: Sequence[Assignment] = (),
        lists: Sequence[PriceList] = (),
    ) -> None:
        """Replace the book's contents."""
        self._versions = {version.id: version for version in versions}
        self._minute_versions = {version.id: version for version in minutes}
        self._tokens = _Histories(versions, lambda each: (each.price_list_id, each.model))
        self._minutes = _Histories(minutes, lambda each: (each.price_list_id, each.kind, each.subject))
        self._assignments = _Histories(assignments, lambda each: each.organisation_id)
        self.lists = {each.id: each for each in lists}

    def current(
        self, model: str, organisation_id: int = NOBODY, at_s: float | None = None
    ) -> PriceVersion | None:
        """Find what an organisation pays for a model at a moment (Unix seconds, default now).

        None where neither its list nor the standard one has a price in force: then the model is not served.
        """
        moment_s = time.time() if at_s is None else at_s
        return self.on_list(model, self.list_id(organisation_id, moment_s), moment_s)

    def on_list(self, model: str, list_id: int, at_s: float) -> PriceVersion | None:
        """Find what those pay for a model who are assigned to a list."""
        found = self._tokens.at((list_id, model), at_s)
        if found is None and list_id != STANDARD_LIST:
            return self._tokens.at((STANDARD_LIST, model), at_s)
        return found

    def minute_price(
        self, kind: MinuteKind, subject: str, organisation_id: int = NOBODY, at_s: float | None = None
    ) -> MinutePriceVersion | None:
        """Find what a minute that begins at a moment costs an organisation; None where nothing says so."""
        moment_s = time.time() if at_s is None else at_s
        return self.minute_on_list(kind, subject, self.list_id(organisation_id, moment_s), moment_s)

    def minute_on_list(
        self, kind: MinuteKind, subject: str, list_id: int, at_s: float
    ) -> MinutePriceVersion | None:
        """Find what a minute costs those who are assigned to a list."""
        found = self._minutes.at((list_id, kind, subject), at_s)
        if found is None and list_id != STANDARD_LIST:
            return self._minutes.at((STANDARD_LIST, kind, subject), at_s)
        return found

    def minute_spans(
        self, kind: MinuteKind, subject: str, organisation_id: int, since_s: float, until_s: float
    ) -> list[MinuteSpan]:
        """Cut [since, until) wherever the price of a minute changes for an organisation, in order of time."""
        if since_s >= until_s:
            return []
        cuts = {since_s, *self._assignments.moments(organisation_id)}
        lists = {
            STANDARD_LIST,
            *(each.price_list_id for _, each in self._assignments.get(organisation_id, ())),
        }
        for list_id in lists:
            cuts.update(self._minutes.moments((list_id, kind, subject)))
        inside = sorted(cut for cut in cuts if since_s <= cut < until_s)
        spans: list[MinuteSpan] = []
        for begin_s, end_s in zip(inside, [*inside[1:], until_s], strict=True):
            price = self.minute_price(kind, subject, organisation_id, begin_s)
            if spans and spans[-1].price == price:
                spans[-1] = MinuteSpan(spans[-1].since_s, end_s, price)
            else:
                spans.append(MinuteSpan(begin_s, end_s, price))
        return spans

    def list_id(self, organisation_id: int, at_s: float | None = None) -> int:
        """Say which list an organisation pays by at a moment."""
        found = self._assignments.at(organisation_id, time.time() if at_s is None else at_s)
        return STANDARD_LIST if found is None else found.price_list_id

    def version(self, version_id: int) -> PriceVersion | None:
        """Find a version by its id, in force or not."""
        return self._versions.get(version_id)

    def minute_version(self, version_id: int) -> MinutePriceVersion | None:
        """Find a minute's price version by its id, in force or not."""
        return self._minute_versions.get(version_id)

    @property
    def versions(self) -> list[PriceVersion]:
        """Every version there ever was, the oldest first."""
        return sorted(self._versions.values(), key=lambda each: (each.valid_from, each.id))

    @property
    def minute_versions(self) -> list[MinutePriceVersion]:
        """Every version of a minute's price, the oldest first."""
        return sorted(self._minute_versions.values(), key=lambda each: (each.valid_from, each.id))

    @property
    def assignments(self) -> list[Assignment]:
        """Every assignment of an organisation to a list, the oldest first."""
        found = (each for history in self._assignments.values() for _, each in history)
        return sorted(found, key=lambda each: (each.valid_from, each.id))
