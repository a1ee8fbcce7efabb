"""Single requests: found by their ids in few partitions, listed page by page; nobody sees another's."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import asyncpg
import msgspec
import pytest

from penstock_base import ids
from penstock_billing import archive, partitions, requests, roll_ups
from penstock_billing.errors import SearchTookTooLong
from penstock_billing.journal import Journal
from penstock_billing.record import Outcome, UsageRecord
from penstock_billing.requests import Wanted
from penstock_billing.shipper import Shipper

Make = Callable[..., UsageRecord]
NOW = datetime.now(UTC)
DAY_MS = 86_400_000


def ms(moment: datetime) -> int:
    return int(moment.timestamp() * 1000)


def made_at(make: Make, ended: datetime, **changes: Any) -> UsageRecord:
    """A request whose id tells its time, as ours do."""
    event_id = ids.uuid7_bytes(ms(ended) - 1000)
    changes = {"event_id": event_id, "request_id": f"req_{event_id.hex()}", "organisation_id": 1} | changes
    return make(ended_ms=ms(ended), **changes)


async def ship(journal: Journal, shipper: Shipper, *records: UsageRecord) -> None:
    for each in records:
        journal.append(each)
    await shipper.ship_once()


async def test_a_request_is_found_by_our_id_and_by_the_clients(
    database: asyncpg.Pool, journal: Journal, shipper: Shipper, make: Make
) -> None:
    moments = [NOW - timedelta(hours=3) + timedelta(milliseconds=n) for n in range(3)]
    first, second = (made_at(make, at, client_request_id="mine") for at in moments[:2])
    # A client that names its request as we named another must not hide that one.
    imitator = made_at(make, moments[2], client_request_id=first.request_id)
    await ship(journal, shipper, first, second, imitator)
    found = await requests.find(database, 1, first.request_id, NOW)
    assert found is not None
    assert (found.request_id, found.cost_nano_usd) == (first.request_id, first.cost_nano_usd)
    assert (found.outcome, ms(found.ended_at), found.event_id.bytes) == (
        first.outcome,
        first.ended_ms,
        first.event_id,
    )
    named = await requests.find(database, 1, "mine", NOW)
    assert named is not None
    assert named.request_id == second.request_id
    assert await requests.find(database, 1, "unknown", NOW) is None
    for name in ("mine", first.request_id):
        assert await requests.find(database, 2, name, NOW) is None
        assert await requests.find(database, 1, name, NOW, ["another key"]) is None
        assert await requests.find(database, 1, name, NOW, [first.key_id]) is not None


async def test_an_old_request_is_found_by_our_id_alone(
    database: asyncpg.Pool, journal: Journal, shipper: Shipper, make: Make
) -> None:
    old = made_at(make, NOW - timedelta(days=80), client_request_id="old")
    await ship(journal, shipper, old)
    assert await requests.find(database, 1, old.request_id, NOW) is not None
    assert await requests.find(database, 1, "old", NOW) is None


async def test_a_look_for_one_request_touches_the_days_of_its_id_only(database: asyncpg.Pool) -> None:
    async with database.acquire() as connection:
        await partitions.ensure(connection, 40)
        await connection.execute("set enable_seqscan = off")
        tomorrow = NOW + timedelta(days=20)
        bounds = requests.window(f"req_{ids.uuid7_bytes(ms(tomorrow)).hex()}")
        assert bounds is not None
        plan = await connection.fetch("explain " + requests.SQL["by_our_id"], 1, "x", *bounds, None)
        text = "\n".join(row[0] for row in plan)
        assert text.count(" on usage_event_") <= 2 * 4, text
        assert "Seq Scan" not in text
        latest = (1, NOW, tomorrow, *[None] * 10, tomorrow, requests.LATEST, 20)
        query = (
            f"explain {requests.SQL['wanted']} {requests.SQL['before_place']} {requests.SQL['latest_first']}"
        )
        plan = await connection.fetch(query, *latest)
        text = "\n".join(row[0] for row in plan)
        assert "Seq Scan" not in text
        assert f"usage_event_{NOW + timedelta(days=30):%Y%m%d}" not in text


async def test_requests_are_listed_the_latest_first_page_by_page(
    database: asyncpg.Pool, journal: Journal, shipper: Shipper, make: Make
) -> None:
    # Some end in the same millisecond, and some belong to somebody else.
    made = [made_at(make, NOW - timedelta(seconds=n // 2)) for n in range(25)]
    others = [made_at(make, NOW - timedelta(seconds=n), organisation_id=2) for n in range(5)]
    await ship(journal, shipper, *made, *others)
    wanted = {"organisation_id": 1, "since": NOW - timedelta(days=1), "until": NOW + timedelta(days=1)}
    seen: list[Any] = []
    page = await requests.latest(database, Wanted(**wanted, limit=10))
    while page:
        seen += page
        place = (page[-1].ended_at, page[-1].event_id)
        page = await requests.latest(database, Wanted(**wanted, before=place, limit=10))
    assert [(each.ended_at, each.event_id) for each in seen] == sorted(
        ((each.ended_at, each.event_id) for each in seen), reverse=True
    )
    assert {each.request_id for each in seen} == {each.request_id for each in made}
    assert len(seen) == 25


@pytest.mark.parametrize(
    ("filter", "field"),
    [
        ({"model": "penstock/demo-embed"}, {"model": "penstock/demo-embed"}),
        ({"key_id": "k2"}, {"key_id": "k2"}),
        ({"key_ids": ["k2", "k3"]}, {"key_id": "k2"}),
        ({"endpoint": ""}, {"endpoint": ""}),
        ({"endpoint": "desk"}, {"endpoint": "desk"}),
        ({"project_id": 8}, {"project_id": 8}),
        ({"outcomes": [Outcome.STALLED]}, {"outcome": Outcome.STALLED}),
        ({"statuses": (500, 599)}, {"status": 503}),
        ({"statuses": (503, 503)}, {"status": 503}),
        ({"longer_than_us": 60_000_000}, {"duration_us": 70_000_000}),
        ({"name": "req_theirs"}, {"request_id": "req_theirs"}),
        ({"name": "mine"}, {"client_request_id": "mine"}),
    ],
)
async def test_a_list_is_narrowed(
    database: asyncpg.Pool,
    journal: Journal,
    shipper: Shipper,
    make: Make,
    filter: dict[str, Any],  # noqa: A002 - what it is
    field: dict[str, Any],
) -> None:
    fields = [
        {"model": "penstock/demo-embed", "price_version": 2},
        {"key_id": "k2"},
        {"endpoint": "desk"},
        {"project_id": 8},
        {"outcome": Outcome.STALLED},
        {"status": 503, "outcome": Outcome.ENGINE_FAILED},
        {"duration_us": 70_000_000},
        {"request_id": "req_theirs"},
        {"client_request_id": "mine"},
    ]
    plain = {"model": "penstock/demo-chat", "price_version": 1, "outcome": Outcome.DONE}
    made = [made_at(make, NOW - timedelta(seconds=n), **(plain | each)) for n, each in enumerate(fields)]
    await ship(journal, shipper, *made)
    window = {"since": NOW - timedelta(hours=1), "until": NOW + timedelta(hours=1)}
    found = await requests.latest(database, Wanted(organisation_id=1, **window, **filter))
    (name, value) = next(iter(field.items()))
    assert [each.request_id for each in found] == [
        each.request_id for each in made if getattr(each, name) == value
    ]


async def test_neighbours_are_those_in_the_same_list(
    database: asyncpg.Pool, journal: Journal, shipper: Shipper, make: Make
) -> None:
    # Two end in the same millisecond, every third is another key's.
    made = [made_at(make, NOW - timedelta(seconds=n // 2), key_id="ab"[n % 3 == 0]) for n in range(9)]
    await ship(journal, shipper, *made, made_at(make, NOW, organisation_id=2))
    wanted = Wanted(
        organisation_id=1, since=NOW - timedelta(days=1), until=NOW + timedelta(days=1), key_id="a", limit=50
    )
    listed = await requests.latest(database, wanted)
    assert len(listed) == 6
    for at, one in enumerate(listed):
        older, newer = await requests.neighbours(database, wanted, one)
        assert older == (listed[at + 1] if at + 1 < len(listed) else None)
        assert newer == (listed[at - 1] if at else None)


FILL = """
insert into billing.usage_event (
  event_id, ended_at, organisation_id, project_id, key_id, request_id, surface, model, price_version,
  input_tokens, cached_tokens, output_tokens, reasoning_tokens, outcome, status, streamed,
  queue_us, first_token_us, duration_us, replica, cost_nano_usd
)
select
  gen_random_uuid(), $1::timestamptz - n * interval '1 second', 1, 7, 'k', 'req_' || n, 'completions', 'm', 1,
  10, 0, 10, 0, case when n % 4000 = 0 then 'stalled' else 'done' end, 200, true,
  5, 9, case when n % 5000 = 0 then 90000000 else 100000 + n % 4000000 end, 'a', 1
from generate_series(1, 20000) as n
"""


@pytest.mark.parametrize(
    "rare", [{"outcomes": [Outcome.STALLED, Outcome.SHUTDOWN]}, {"longer_than_us": 60_000_000}]
)
async def test_a_search_for_the_few_that_were_slow_or_failed_reads_few(
    database: asyncpg.Pool, rare: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    await database.execute(FILL, NOW)
    await database.execute("analyze billing.usage_event_default")
    wanted = Wanted(organisation_id=1, since=NOW - timedelta(days=1), until=NOW, **rare)
    assert 4 <= len(await requests.latest(database, wanted)) <= 5
    plans: list[str] = []
    monkeypatch.setitem(requests.SQL, "wanted", "explain (analyze) " + requests.SQL["wanted"])
    monkeypatch.setattr(requests, "_read", lambda row: plans.append(row[0]))
    await requests.latest(database, wanted)
    text = "\n".join(plans)
    assert "Index" in text
    assert sum(int(count) for count in re.findall(r"Rows Removed by Filter: (\d+)", text)) < 100, text


async def test_a_search_that_takes_too_long_is_stopped(
    database: asyncpg.Pool, journal: Journal, shipper: Shipper, make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    await ship(journal, shipper, *[made_at(make, NOW - timedelta(seconds=n)) for n in range(3)])
    slow = requests.SQL["wanted"] + " and pg_sleep(1) is not null"
    monkeypatch.setitem(requests.SQL, "wanted", slow)
    monkeypatch.setitem(requests.SQL, "limit_time", "set local statement_timeout = '100ms'")
    wanted = Wanted(organisation_id=1, since=NOW - timedelta(days=1), until=NOW + timedelta(days=1))
    with pytest.raises(SearchTookTooLong):
        await requests.latest(database, wanted)
    # The connection goes on, and without the limit.
    assert await database.fetchval("show statement_timeout") == "0"


async def test_a_filed_day_is_named(
    database: asyncpg.Pool, journal: Journal, shipper: Shipper, make: Make, tmp_path: Path
) -> None:
    day = NOW.date() - timedelta(days=10)
    noon = datetime(day.year, day.month, day.day, 12, tzinfo=UTC)
    old = made_at(make, noon)
    await ship(journal, shipper, old)
    async with database.acquire() as connection:
        await partitions.settle(connection)
        await archive.file_day(connection, tmp_path, day)
    assert await requests.find(database, 1, old.request_id, NOW) is None
    bounds = requests.window(old.request_id)
    assert bounds is not None
    assert await requests.filed_days(database, *bounds) == [day]
    assert await requests.filed_days(database, NOW - timedelta(days=1), NOW) == []


@pytest.mark.parametrize(
    "name", ["", "req_", "mine", "req_" + "0" * 32, "req_" + "f" * 32, "req_" + "g" * 32, "REQ_" + "0" * 32]
)
def test_what_is_no_id_of_ours_tells_no_time(name: str) -> None:
    assert requests.window(name) is None


def test_our_id_tells_its_time() -> None:
    bounds = requests.window(f"req_{ids.uuid7_bytes().hex()}")
    assert bounds is not None
    assert bounds[0].timestamp() < time.time() < bounds[1].timestamp()


async def test_the_rare_are_found_hour_by_hour_and_page_by_page(
    database: asyncpg.Pool, journal: Journal, shipper: Shipper, make: Make
) -> None:
    """Of a key that asks seldom nothing is lost or doubled, over closed hours and open ones, both ways."""
    until = NOW.replace(minute=20, second=0, microsecond=0)
    seldom = [
        made_at(make, until - timedelta(minutes=minutes), key_id="seldom")
        for minutes in (1, 2, 19, 20, 21, 62, 65, 300, 301, 1500, 1501, 1502, 2900, 4000)
    ]
    often = [made_at(make, until - timedelta(minutes=n), key_id="often") for n in range(200)]
    await ship(journal, shipper, *seldom, *often)
    async with database.acquire() as connection:
        await roll_ups.advance(connection, until - timedelta(hours=2))
    late = made_at(make, until - timedelta(minutes=1503), key_id="seldom")
    await ship(journal, shipper, late)
    expected = sorted(
        (each.request_id for each in [*seldom, late] if each.ended_ms > ms(until - timedelta(minutes=3000))),
        key=lambda name: next(-each.ended_ms for each in [*seldom, late] if each.request_id == name),
    )
    wanted = Wanted(
        organisation_id=1,
        since=until - timedelta(minutes=3000),
        until=until,
        key_id="seldom",
        limit=3,
    )
    found: list[requests.RecordedRequest] = []
    while page := await requests.latest(
        database,
        msgspec.structs.replace(wanted, before=(found[-1].ended_at, found[-1].event_id) if found else None),
    ):
        found += page
    assert [each.request_id for each in found] == expected
    for at, one in enumerate(found):
        older, newer = await requests.neighbours(database, wanted, one)
        assert older == (found[at + 1] if at + 1 < len(found) else None)
        assert newer == (found[at - 1] if at else None)


async def test_hours_whose_requests_are_in_a_file_hide_none_before_them(
    database: asyncpg.Pool, journal: Journal, shipper: Shipper, make: Make, tmp_path: Path
) -> None:
    noon = NOW.replace(hour=12, minute=0, second=0, microsecond=0) - timedelta(days=10)
    filed = [made_at(make, noon + timedelta(minutes=n), key_id="k") for n in range(5)]
    before = made_at(make, noon - timedelta(days=1), key_id="k")
    await ship(journal, shipper, *filed, before)
    async with database.acquire() as connection:
        await partitions.settle(connection)
        await archive.file_day(connection, tmp_path, noon.date())
    wanted = Wanted(
        organisation_id=1, since=noon - timedelta(days=2), until=noon + timedelta(days=2), key_id="k", limit=1
    )
    assert [each.request_id for each in await requests.latest(database, wanted)] == [before.request_id]
