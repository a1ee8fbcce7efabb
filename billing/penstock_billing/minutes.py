"""Minutes: from recorded intervals to charges, by one rule and exactly once.

A minute is charged when its subject is ready as the minute begins. Minutes are those of UTC, so what is
charged for [ready, stopped) is the number of minute beginnings in it, whoever computes it, whenever and how
often. Time before ready, after stopped, and for which nobody vouched is free.

How far an interval is charged stands in its row and moves, under the row's lock, in the transaction that adds
the charges and books them: a controller that was stopped for days loses none, two of them charge none twice.
A price holds from its `valid_from` on, minute by minute; minutes without a price in force cost nothing.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import asyncpg
import msgspec

from penstock_base import queries
from penstock_billing import ledger
from penstock_billing.errors import IntervalRefused
from penstock_billing.intervals import IntervalKind
from penstock_billing.ledger import Account, AccountKind, Booking, TransactionKind
from penstock_billing.prices import MinuteKind, MinutePriceVersion, PriceBook
from penstock_billing.record import Funding

SQL = queries.load("penstock_billing", "minutes.sql")

MINUTE = timedelta(minutes=1)
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class Accrual(msgspec.Struct):
    """What a round of charging did."""

    intervals: int = 0
    """Those whose mark moved."""
    minutes: int = 0
    """Minutes that were charged, those at a price of 0 included."""
    cost_nano_usd: int = 0
    unpriced_minutes: int = 0
    """Minutes for which no price was in force: free, and a reason to look at the price list."""

    def add(self, other: Accrual) -> None:
        """Take another round's figures in."""
        self.intervals += other.intervals
        self.minutes += other.minutes
        self.cost_nano_usd += other.cost_nano_usd
        self.unpriced_minutes += other.unpriced_minutes


class Part(msgspec.Struct, frozen=True):
    """Minutes of one interval at one price; `price` is None where none was in force."""

    since: datetime
    until: datetime
    price: MinutePriceVersion | None
    minutes: int

    @property
    def cost_nano_usd(self) -> int:
        """What they cost, in nano-dollars."""
        return 0 if self.price is None else self.minutes * self.price.nano_usd_per_minute


class MinuteUsage(msgspec.Struct, frozen=True, kw_only=True):
    """What was charged for one interval at one price; an invoice line's source."""

    interval_id: int
    kind: IntervalKind
    subject: str
    priced_as: str
    model: str
    endpoint: str
    project_id: int
    minute_price_version: int
    nano_usd_per_minute: int
    minutes: int
    cost_nano_usd: int


class EndpointMinutes(msgspec.Struct, frozen=True):
    """Minutes that were charged for an endpoint's being there."""

    minutes: int
    cost_nano_usd: int


def minutes_between(ready: datetime, stopped: datetime) -> int:
    """Count the UTC minutes that begin in [ready, stopped): the whole charging rule, in closed form."""
    if stopped <= ready:
        return 0
    return -((EPOCH - stopped) // MINUTE) + (EPOCH - ready) // MINUTE


async def accrue(connection: asyncpg.Connection, until: datetime, book: PriceBook | None = None) -> Accrual:
    """Charge every minute that began before `until` and is not charged yet, interval by interval.

    Each interval is a transaction of its own: what is done when it fails stays done, and the next call goes
    on. Call it with a moment that has passed (a minute ago is enough): prices begin when they are added or
    later, so all of that time are known. `book` is brought up to date; with one kept, less is read. Raises
    IntervalRefused for a moment without a time zone, and what asyncpg raises.
    """
    if until.tzinfo is None:
        raise IntervalRefused(f"until {until} has no time zone; give it in UTC")
    book = book or PriceBook()
    await book.load(connection)
    total = Accrual()
    for row in await connection.fetch(SQL["due"], until):
        async with connection.transaction():
            total.add(await _accrue_one(connection, row["id"], until, book))
    return total


def rate(
    book: PriceBook, kind: MinuteKind, priced_as: str, organisation_id: int, since: datetime, until: datetime
) -> list[Part]:
    """Cut [since, until) where its price changes, and count the minutes that begin in each part."""
    parts = []
    spans = book.minute_spans(kind, priced_as, organisation_id, since.timestamp(), until.timestamp())
    for span in spans:
        # Unix seconds of this century have room for microseconds in a float: exact both ways.
        begin, end = (datetime.fromtimestamp(moment_s, UTC) for moment_s in (span.since_s, span.until_s))
        if count := minutes_between(begin, end):
            parts.append(Part(begin, end, span.price, count))
    return parts


async def charged(
    connection: asyncpg.Connection | asyncpg.Pool, organisation_id: int, since: datetime, until: datetime
) -> list[MinuteUsage]:
    """List an organisation's charged minutes that begin in [since, until), per interval and price version."""
    rows = await connection.fetch(
        f"{SQL['overlapping']}\n{SQL['by_interval']}", organisation_id, since, until
    )
    return [MinuteUsage(**(dict(row) | {"kind": IntervalKind(row["kind"])})) for row in rows]


async def of_endpoints(
    connection: asyncpg.Connection | asyncpg.Pool,
    organisation_id: int,
    endpoint_ids: list[int],
    since: datetime,
    until: datetime,
) -> dict[int, EndpointMinutes]:
    """Sum what an organisation was charged for endpoints' being there in [since, until), by endpoint id.

    Instances that ran for an endpoint are not in it.
    """
    wanted = {str(each): each for each in endpoint_ids}
    sums: dict[int, EndpointMinutes] = {}
    for each in await charged(connection, organisation_id, since, until):
        if each.kind is IntervalKind.ENDPOINT and each.subject in wanted:
            had = sums.get(wanted[each.subject], EndpointMinutes(0, 0))
            sums[wanted[each.subject]] = EndpointMinutes(
                had.minutes + each.minutes, had.cost_nano_usd + each.cost_nano_usd
            )
    return sums


async def _accrue_one(
    connection: asyncpg.Connection, interval_id: int, until: datetime, book: PriceBook
) -> Accrual:
    """Charge one interval up to what may be charged of it; inside the caller's transaction."""
    interval = await connection.fetchrow(SQL["lock"], interval_id, until)
    assert interval is not None  # intervals are never deleted
    since, end = interval["accrued_until"], interval["chargeable_until"]
    if since >= end:
        return Accrual()  # another was faster
    parts = rate(book, interval["kind"], interval["priced_as"], interval["organisation_id"], since, end)
    priced = [part for part in parts if part.price is not None]
    cost = sum(part.cost_nano_usd for part in priced)
    if priced:
        await connection.execute(
            SQL["charge"],
            interval_id,
            interval["organisation_id"],
            interval["project_id"],
            await _book(connection, interval, since, end, cost) if cost else None,
            [part.since for part in priced],
            [part.until for part in priced],
            [part.price.id for part in priced if part.price is not None],
            [part.minutes for part in priced],
            [part.cost_nano_usd for part in priced],
        )
    await connection.execute(SQL["move"], interval_id, end)
    return Accrual(
        intervals=1,
        minutes=sum(part.minutes for part in priced),
        cost_nano_usd=cost,
        unpriced_minutes=sum(part.minutes for part in parts) - sum(part.minutes for part in priced),
    )


async def _book(
    connection: asyncpg.Connection, interval: asyncpg.Record, since: datetime, until: datetime, cost: int
) -> int:
    """Book a charge to the wallet that pays; returns the ledger transaction's id."""
    organisation_id = interval["organisation_id"]
    wallet = await connection.fetchrow(SQL["wallet"], organisation_id, interval["project_id"])
    project_id = wallet["project_id"] if wallet is not None else 0
    entries = {Account(organisation_id, 0, AccountKind.REVENUE): -cost}
    if wallet is None or Funding(wallet["funding"]) is Funding.POSTPAID:
        entries[Account(organisation_id, project_id, AccountKind.RECEIVABLE)] = cost
    else:
        rows = await connection.fetch(SQL["lock_accounts"], organisation_id, project_id)
        promotional = -next(row["posted_nano_usd"] for row in rows if row["kind"] == AccountKind.PROMOTIONAL)
        given = min(cost, max(0, promotional))
        sides = {AccountKind.PROMOTIONAL: given, AccountKind.PREPAID: cost - given}
        # What ran is charged even where no credit is left: the wallet then stands below zero.
        entries |= {
            Account(organisation_id, project_id, kind): amount for kind, amount in sides.items() if amount
        }
    booked = await ledger.book(
        connection,
        Booking(
            ref=f"minutes:{interval['id']}:{until.astimezone(UTC):%Y-%m-%dT%H:%M:%S.%fZ}",
            kind=TransactionKind.MINUTES,
            entries=entries,
            happened_at=since,
            until=until,
            note=f"{interval['kind']} {interval['subject']}",
        ),
    )
    return booked.id
