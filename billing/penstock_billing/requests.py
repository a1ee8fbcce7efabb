"""Single requests as they were recorded: one by its id, or the latest of a while.

Every query names the organisation and a window of time, so that it reads few of the daily partitions.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from datetime import UTC, date, datetime, timedelta
from typing import Any, cast
from uuid import UUID

import asyncpg
import msgspec

from penstock_base import ids, queries
from penstock_billing import prices
from penstock_billing.errors import SearchTookTooLong
from penstock_billing.prices import PriceVersion
from penstock_billing.record import Funding, Outcome

SQL = queries.load("penstock_billing", "requests.sql")

OUR_PREFIX = "req_"
CLOCK_BACK = timedelta(hours=1)
"""A clock that stepped back may end a request before it came."""
LASTS_MAX = timedelta(days=2)
"""No request lasts longer."""
CLIENT_ID_DAYS = 30
"""How far back a client's own name for a request is looked for: it says nothing of its time."""
LATEST = UUID(int=2**128 - 1)
AT_ONCE = timedelta(seconds=1)
"""Requests that ended in the same moment are told apart by their ids: the window holds all of them."""
HOUR_BY_HOUR = """
select event.*
from unnest($17::timestamptz[]) as begins cross join lateral (
  {wanted} {place} {in_hour} {order}
) as event
{order}
"""

Database = asyncpg.Connection | asyncpg.Pool


class RecordedRequest(msgspec.Struct, frozen=True, kw_only=True):
    """What one request used and cost, and how it went; the fields are those of the usage record."""

    event_id: UUID
    request_id: str
    client_request_id: str | None
    ended_at: datetime
    project_id: int
    key_id: str
    endpoint: str
    surface: str
    model: str
    price_version: int
    input_tokens: int
    cached_tokens: int
    output_tokens: int
    reasoning_tokens: int
    images: int
    audio_ms: int
    documents: int
    batch: bool
    outcome: Outcome
    status: int
    streamed: bool
    queue_us: int
    admit_us: int
    wait_us: int
    wake_us: int
    retries: int
    first_token_us: int
    duration_us: int
    replica: str
    pool_version: int
    policy: str
    candidates: int
    hedged: bool
    cost_nano_usd: int
    funding: Funding
    ledger_transaction_id: int | None

    @property
    def arrived_at(self) -> datetime:
        """When its head was read."""
        return self.ended_at - timedelta(microseconds=self.duration_us)


class Wanted(msgspec.Struct, frozen=True, kw_only=True):
    """Which requests are asked for."""

    organisation_id: int
    since: datetime
    until: datetime
    """The first moment that does not count any more."""
    key_ids: list[str] | None = None
    """Only these keys' requests: what whoever asks may see. None: all of the organisation's."""
    key_id: str | None = None
    """Only this key's; likewise the next four."""
    model: str | None = None
    endpoint: str | None = None
    project_id: int | None = None
    outcomes: list[Outcome] | None = None
    statuses: tuple[int, int] | None = None
    """The first and the last HTTP status that counts."""
    longer_than_us: int | None = None
    """Only what took more microseconds from its arrival to its end."""
    name: str | None = None
    """Only what we, or its client, called so."""
    before: tuple[datetime, UUID] | None = None
    """Only what ended before this one: where the next page begins."""
    limit: int = 20


async def find(
    pool: Database, organisation_id: int, name: str, now: datetime, key_ids: list[str] | None = None
) -> RecordedRequest | None:
    """Find one request by our id, or else the latest of CLIENT_ID_DAYS that the client called so.

    None when there is none, when its record is not shipped yet (some 200 ms after the response's end), and
    when its day is in a file only (`filed_days`). `key_ids` as in Wanted.
    """
    lately = (now - timedelta(days=CLIENT_ID_DAYS), now + timedelta(days=2))
    row = await pool.fetchrow(SQL["by_our_id"], organisation_id, name, *(window(name) or lately), key_ids)
    if row is None:
        row = await pool.fetchrow(SQL["by_client_id"], organisation_id, name, *lately, key_ids)
    return None if row is None else _read(row)


async def latest(database: Database, wanted: Wanted) -> list[RecordedRequest]:
    """List requests, the latest first; raises SearchTookTooLong."""
    until = wanted.until if wanted.before is None else min(wanted.until, wanted.before[0] + AT_ONCE)
    place = wanted.before or (wanted.until, LATEST)
    return await _search(database, msgspec.structs.replace(wanted, until=until), place)


async def neighbours(
    database: Database, wanted: Wanted, one: RecordedRequest
) -> tuple[RecordedRequest | None, RecordedRequest | None]:
    """The request that ended before one, and that which ended after it, among those wanted.

    Raises SearchTookTooLong.
    """
    place = (one.ended_at, one.event_id)
    older = msgspec.structs.replace(wanted, until=one.ended_at + AT_ONCE, limit=1)
    newer = msgspec.structs.replace(wanted, since=one.ended_at, limit=1)
    before = await _search(database, older, place)
    after = await _search(database, newer, place, forward=True)
    return (before[0] if before else None), (after[0] if after else None)


async def price_of(pool: Database, one: RecordedRequest) -> PriceVersion | None:
    """The prices that were fixed at its admission."""
    row = await pool.fetchrow(SQL["price"], one.price_version)
    return None if row is None else prices.version_of(row)


async def refunds_of(pool: Database, organisation_id: int, one: RecordedRequest) -> list[int]:
    """Ledger transactions that gave back its cost, or a part of it."""
    rows = await pool.fetch(SQL["refunds"], organisation_id, one.request_id)
    return [row["transaction_id"] for row in rows]


async def filed_days(pool: Database, since: datetime, until: datetime) -> list[date]:
    """Days of a window whose requests are in archive files only, and are found here no more."""
    return [row["day"] for row in await pool.fetch(SQL["filed_days"], since, until)]


async def ever_asked(pool: Database, organisation_id: int, but: list[str]) -> bool:
    """Whether an organisation ever had a request that an engine took, of other keys than these."""
    found: bool = await pool.fetchval(SQL["ever_asked"], organisation_id, but)
    return found


def window(request_id: str) -> tuple[datetime, datetime] | None:
    """When a request of ours can have ended, which its id tells; None for what is no id of ours."""
    text = request_id.removeprefix(OUR_PREFIX)
    if text == request_id:
        return None
    arrived_ms = ids.uuid7_unix_ms(text)
    if arrived_ms is None:
        return None
    arrived = datetime.fromtimestamp(0, UTC) + timedelta(milliseconds=arrived_ms)
    return arrived - CLOCK_BACK, arrived + LASTS_MAX


def bounds_of(name: str, now: datetime) -> tuple[datetime, datetime]:
    """Where something that bears a name is looked for: in the time of our id, and among the last days."""
    lately = (now - timedelta(days=CLIENT_ID_DAYS), now + timedelta(days=2))
    ours = window(name) or lately
    return min(ours[0], lately[0]), max(ours[1], lately[1])


async def _search(
    database: Database, wanted: Wanted, place: tuple[datetime, UUID], *, forward: bool = False
) -> list[RecordedRequest]:
    """Read from behind a place on: back to earlier requests, or forward to later ones."""
    first, last = wanted.statuses or (None, None)
    outcomes = None if wanted.outcomes is None else [each.value for each in wanted.outcomes]
    place_sql = SQL["after_place" if forward else "before_place"]
    order = SQL["earliest_first" if forward else "latest_first"]
    query = f"{SQL['wanted']} {place_sql} {order}"
    values: list[Any] = [
        wanted.organisation_id,
        wanted.since,
        wanted.until,
        wanted.key_ids,
        wanted.name,
        wanted.key_id,
        wanted.model,
        wanted.endpoint,
        wanted.project_id,
        outcomes,
        first,
        last,
        wanted.longer_than_us,
        *place,
        wanted.limit,
    ]
    async with _connection(database) as connection, connection.transaction():
        await connection.execute(SQL["limit_time"])
        try:
            if _summed_up(wanted):
                values.append(await _hours(connection, wanted, outcomes, place[0], forward) or [])
                query = HOUR_BY_HOUR.format(
                    wanted=SQL["wanted"], place=place_sql, in_hour=SQL["in_hour"], order=order
                )
            return [_read(row) for row in await connection.fetch(query, *values)]
        except asyncpg.QueryCanceledError:
            raise SearchTookTooLong("the search was stopped: it reads too many requests") from None


def _summed_up(wanted: Wanted) -> bool:
    """Whether roll-ups tell in which hours there are such requests, so that no others are read.

    Of those that were slow, or not answered whole, there are indexes.
    """
    asked = (wanted.key_ids, wanted.key_id, wanted.model, wanted.endpoint, wanted.project_id)
    unknown = (wanted.name, wanted.statuses, wanted.longer_than_us)
    return any(each is not None for each in asked) and all(each is None for each in unknown)


async def _hours(
    connection: asyncpg.Connection,
    wanted: Wanted,
    outcomes: list[str] | None,
    place: datetime,
    forward: bool,
) -> list[datetime] | None:
    """The hours nearest to where a search begins that have as many such requests as are wanted."""
    found: list[datetime] | None = await connection.fetchval(
        SQL["hours"],
        wanted.organisation_id,
        wanted.since,
        wanted.until,
        wanted.key_ids,
        wanted.key_id,
        wanted.model,
        wanted.endpoint,
        wanted.project_id,
        outcomes,
        forward,
        wanted.limit,
        place,
    )
    return found


@contextlib.asynccontextmanager
async def _connection(database: Database) -> AsyncIterator[asyncpg.Connection]:
    if isinstance(database, asyncpg.Connection):
        yield database
        return
    async with database.acquire() as taken:
        yield cast("asyncpg.Connection", taken)


def _read(row: asyncpg.Record) -> RecordedRequest:
    columns: dict[str, Any] = {name: row[name] for name in RecordedRequest.__struct_fields__}
    # A plain one: asyncpg's own is not known to encoders.
    columns["event_id"] = UUID(bytes=columns["event_id"].bytes)
    columns["outcome"], columns["funding"] = Outcome(columns["outcome"]), Funding(columns["funding"])
    return RecordedRequest(**columns)
