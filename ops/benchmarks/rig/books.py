"""A PostgreSQL with the schema and prices of billing, records as gateways make them, a history of usage."""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import asyncpg
import msgspec

from penstock.local import first_run, postgres
from penstock.local.postgres import Postgres
from penstock_base import database, ids
from penstock_billing import partitions, prices, rating, roll_ups, shipping
from penstock_billing.prices import Offer, PriceVersion
from penstock_billing.record import UsageRecord
from penstock_billing.testing import usage_record

ORGANISATIONS = 200
"""Of which the largest makes 17 % of all requests, the next 4 %, and so on: u³ of an even u."""
MODELS = [f"bench/model-{number}" for number in range(20)]
CHUNK = 50_000
INDEXES = """
select indexname, indexdef from pg_indexes
where schemaname = 'billing' and tablename = 'usage_event' and indexname like 'usage\\_event\\_by\\_%'
"""
# Forty keys of each organisation, two of them at a time, each used for three models. A quarter of them call
# an endpoint.
FILL_STAGE = """
insert into usage_stage (
  event_id, ended_ms, organisation_id, project_id, key_id, request_id, client_request_id, surface, model,
  price_version, input_tokens, cached_tokens, output_tokens, reasoning_tokens, outcome, status, streamed,
  queue_us, first_token_us, duration_us, replica, cost_nano_usd, images, audio_ms, documents, batch, endpoint,
  funding, wallet_project_id, admit_us, wait_us, wake_us, retries, policy, candidates, pool_version, hedged
)
select
  id, ended_ms, organisation, organisation * 4 + key % 4, format('key_%s_%s', organisation, key),
  'req_' || replace(id::text, '-', ''), null, 'chat.completions',
  ($5::text[])[1 + (organisation + key + n % 3) % cardinality($5::text[])], $6::bigint,
  n % 3000, n % 300 % (1 + n % 3000), n % 700, 0,
  case when n % 97 = 0 then 'engine_failed' when n % 50 = 0 then 'client_gone' else 'done' end, 200, true,
  100, 30000, 400000, 'bench', case when n % 97 = 0 then 0 else 150 * (n % 3000) + 600 * (n % 700) end,
  0, 0, 0, false, case when key % 4 = 3 then 'desk-0' else '' end,
  'postpaid', 0, 60, 20, 0, 0, 'prefix_affinity', 2, 1, false
from (
  select n, id, ended_ms, organisation, (ended_ms / 60000 + lucky) % 40 as key
  from (
    select n, gen_random_uuid() as id, floor(2 * random())::integer as lucky,
      1 + floor($4::integer * power(random(), 3))::bigint as organisation,
      (1000 * (extract(epoch from $2::timestamptz)
               + extract(epoch from $3::timestamptz - $2::timestamptz) * n / $1::integer))::bigint as ended_ms
    from generate_series(1, $1::integer) as n
    offset 0
  ) as drawn
) as request
"""


@dataclass(frozen=True)
class Books:
    """The database of one benchmark."""

    server: Postgres
    connection: asyncpg.Connection
    """With the rights of the schema's owner."""
    versions: list[PriceVersion]


@contextlib.asynccontextmanager
async def books(folder: Path) -> AsyncIterator[Books]:
    """An own PostgreSQL, as `penstock up` starts it."""
    async with contextlib.AsyncExitStack() as stack:
        server = await postgres.start(folder / "postgres")
        stack.push_async_callback(server.stop)
        await first_run.migrate(server.url)
        connection = await asyncpg.connect(server.url)
        stack.push_async_callback(connection.close)
        offers = [Offer(model, 150_000, 75_000, 600_000) for model in MODELS]
        versions = await prices.sync_list(connection, offers)
        await partitions.ensure(connection)
        yield Books(server, connection, versions)


@contextlib.asynccontextmanager
async def shipping_connection(own: Books) -> AsyncIterator[asyncpg.Connection]:
    """A connection as a shipper has it."""
    connection = await database.connect(own.server.url, "bench")
    try:
        await shipping.prepare(connection)
        yield connection
    finally:
        await connection.close()


def records(versions: list[PriceVersion]) -> Iterator[UsageRecord]:
    """Requests that end now, one after the other, for ever: three keys each, of a model or two."""
    dice = random.Random(5)
    known: dict[tuple[int, int, bool], UsageRecord] = {}
    while True:
        organisation, key, other = (
            int(ORGANISATIONS * dice.random() ** 3),
            dice.randrange(3),
            dice.random() < 0.2,
        )
        template = known.get((organisation, key, other))
        if template is None:
            version = versions[(organisation + key + other) % len(versions)]
            made = usage_record(
                organisation_id=organisation + 1,
                project_id=2 * organisation + key % 2 + 1,
                key_id=f"key_{organisation:018d}_{key}",
                model=version.model,
                price_version=version.id,
            )
            template = msgspec.structs.replace(made, cost_nano_usd=rating.rerate(made, version))
            known[organisation, key, other] = template
        event_id = ids.uuid7_bytes()
        yield msgspec.structs.replace(
            template,
            event_id=event_id,
            request_id=f"req_{event_id.hex()}",
            ended_ms=time.time_ns() // 1_000_000,
        )


async def make_history(
    own: Books, events: int, days: int, told: Callable[[int], None], *, searchable: bool = False
) -> None:
    """Fill the last `days` with events by the shipper's own SQL, and close their hours and days.

    Single requests can be found afterwards only where it is to be `searchable`.
    """
    today = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    until = datetime.now(UTC)
    async with contextlib.AsyncExitStack() as stack:
        # What a dashboard never reads need not be kept in order: it would take half as long again.
        indexes = await own.connection.fetch(INDEXES)
        for index in indexes:
            await own.connection.execute(f"drop index billing.{index['indexname']}")
        for n in range(days):
            await own.connection.execute(
                "select billing.ensure_usage_partition($1)", (today - timedelta(days=n)).date()
            )
        connection = await stack.enter_async_context(shipping_connection(own))
        await connection.execute("set synchronous_commit = off")
        since = today - timedelta(days=days - 1)
        done = 0
        while done < events:
            count = min(CHUNK, events - done)
            begin = since + (until - since) * (done / events)
            end = since + (until - since) * ((done + count) / events)
            async with connection.transaction():
                await connection.execute(
                    FILL_STAGE, count, begin, end, ORGANISATIONS, MODELS, own.versions[0].id
                )
                await connection.execute(shipping.SQL["take_over"], 1)
            done += count
            told(done)
        if searchable:
            for index in indexes:
                await own.connection.execute(index["indexdef"].replace(" ON ONLY ", " ON "))
            await own.connection.execute("vacuum (analyze) billing.usage_event")
    await roll_ups.advance(own.connection)
    await own.connection.execute(
        "vacuum (analyze) billing.usage_day, billing.usage_hour, billing.usage_minute"
    )


async def until_true(holds: Callable[[], Awaitable[bool]], patience_s: float) -> float:
    """Wait for something; the seconds it took. Raises TimeoutError."""
    began_s = time.monotonic()
    while not await holds():
        if time.monotonic() - began_s > patience_s:
            raise TimeoutError
        await asyncio.sleep(0.05)
    return time.monotonic() - began_s
