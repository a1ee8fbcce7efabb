"""How long an endpoint's requests took and how they ended, from few of its rows."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import asyncpg

from penstock_billing import failures, latency
from penstock_billing.journal import Journal
from penstock_billing.latency import SAMPLE_MAX, Window
from penstock_billing.record import Outcome, UsageRecord
from penstock_billing.shipper import Shipper

Make = Callable[..., UsageRecord]
HOUR = timedelta(hours=1)
SINCE = datetime(2026, 3, 14, tzinfo=UTC)
OVER = Window(SINCE, HOUR, 3)
LONG_AGO = SINCE - timedelta(days=100)


def ms(moment: datetime) -> int:
    return int(moment.timestamp() * 1000)


async def ship(journal: Journal, shipper: Shipper, records: list[UsageRecord]) -> None:
    for each in records:
        journal.append(each)
    await shipper.ship_once()


def one(make: Make, at: datetime, taken_us: int, **more: object) -> UsageRecord:
    fields: dict[str, object] = {
        "ended_ms": ms(at),
        "organisation_id": 1,
        "project_id": 7,
        "endpoint": "front-desk",
        "outcome": Outcome.DONE,
        "streamed": True,
        "first_token_us": taken_us // 10,
        "duration_us": taken_us,
    }
    return make(**(fields | more))


async def test_quantiles_are_exact_while_every_request_is_read(
    database: asyncpg.Pool, journal: Journal, shipper: Shipper, make: Make
) -> None:
    hour = [one(make, SINCE + timedelta(seconds=n), n * 1000) for n in range(1, 101)]
    others = [
        one(make, SINCE, 10**9, endpoint="night-shift"),
        one(make, SINCE, 10**9, organisation_id=2),
        one(make, SINCE, 10**9, outcome=Outcome.STALLED),
        one(make, SINCE - timedelta(seconds=1), 10**9),
        one(make, SINCE + 3 * HOUR, 10**9),
    ]
    await ship(journal, shipper, [*hour, *others])
    found = await latency.of_endpoint(database, 1, "front-desk", OVER, LONG_AGO)
    assert found.whole.whole == latency.Quantiles(50_000, 90_000, 99_000)
    assert found.whole.first_token == latency.Quantiles(5_000, 9_000, 9_900)
    assert [part.read for part in found.parts] == [100, 0, 0]
    assert found.parts[1].whole is None
    # What an endpoint of the same name did before this one was made is not its own.
    later = await latency.of_endpoint(database, 1, "front-desk", OVER, SINCE + timedelta(seconds=91))
    assert later.whole.read == 10


async def test_a_busy_hour_weighs_as_much_as_it_had_requests_and_is_read_by_an_index(
    database: asyncpg.Pool, journal: Journal, shipper: Shipper, make: Make
) -> None:
    busy = [one(make, SINCE + timedelta(seconds=n), 9_000_000) for n in range(3 * SAMPLE_MAX)]
    quiet = [one(make, SINCE + HOUR + timedelta(seconds=n), 1_000) for n in range(SAMPLE_MAX - 1)]
    await ship(journal, shipper, [*busy, *quiet])
    found = await latency.of_endpoint(database, 1, "front-desk", OVER, LONG_AGO)
    assert [part.read for part in found.parts] == [SAMPLE_MAX, SAMPLE_MAX - 1, 0]
    assert found.whole.requests == 4 * SAMPLE_MAX - 1
    # A quarter of all was quick: read alike, the two hours would have been halves.
    assert found.whole.whole is not None
    assert found.whole.whole.p50_us == 9_000_000

    await database.execute("analyze billing.usage_event")
    async with database.acquire() as connection:
        await connection.execute("set enable_seqscan = off")
        prepared = await connection.prepare(latency.SQL["sampled"])
        plan = str(await prepared.explain(1, "front-desk", SINCE, HOUR, 3, SAMPLE_MAX, LONG_AGO))
    assert "endpoint_ended_at" in plan or "usage_event_by_endpoint" in plan


async def test_what_was_not_answered_whole_is_counted_by_how_it_ended(
    database: asyncpg.Pool, journal: Journal, shipper: Shipper, make: Make
) -> None:
    ends = [(Outcome.STALLED, 504), (Outcome.STALLED, 504), (Outcome.STALLED, 200), (Outcome.CLIENT_GONE, 0)]
    records = [
        one(make, SINCE + timedelta(minutes=n), 1_000, outcome=outcome, status=status)
        for n, (outcome, status) in enumerate(ends)
    ]
    others = [one(make, SINCE, 1_000), one(make, SINCE, 1_000, outcome=Outcome.STALLED, organisation_id=2)]
    await ship(journal, shipper, [*records, *others])
    found = await failures.of_endpoint(database, 1, "front-desk", SINCE, SINCE + HOUR)
    assert [(kind.outcome, kind.status, kind.requests) for kind in found.kinds] == [
        (Outcome.STALLED, 504, 2),
        (Outcome.CLIENT_GONE, 0, 1),
        (Outcome.STALLED, 200, 1),
    ]
    assert (found.requests, found.since) == (4, SINCE)
    assert (await failures.of_endpoint(database, 1, "front-desk", SINCE + HOUR, SINCE + 2 * HOUR)).kinds == []
