from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import UTC, datetime, timedelta

import asyncpg
import pytest

from penstock_billing import frames, shipping
from penstock_billing.journal import Journal
from penstock_billing.record import Outcome, UsageRecord

Make = Callable[..., UsageRecord]
Expect = Callable[[list[UsageRecord]], Awaitable[None]]


@pytest.fixture
async def connection(database: asyncpg.Pool) -> AsyncIterator[asyncpg.Connection]:
    async with database.acquire() as one:
        await shipping.prepare(one)
        yield one


WHY = {
    "admit_us": 1,
    "wait_us": 2,
    "wake_us": 3,
    "retries": 4,
    "policy": "least_load",
    "candidates": 5,
    "pool_version": 6,
    "hedged": True,
}


def append(journal: Journal, records: list[UsageRecord]) -> list[UsageRecord]:
    for each in records:
        journal.append(each)
    return records


async def ship(connection: asyncpg.Connection, journal: Journal, limit: int = 1000) -> shipping.Shipment:
    return await shipping.ship(connection, journal.name, journal.path, limit=limit)


async def test_a_batch_is_events_roll_up_and_ledger_at_once(
    connection: asyncpg.Connection, journal: Journal, make: Make, expect: Expect
) -> None:
    records = append(journal, [make() for _ in range(300)])
    shipment = await ship(connection, journal)
    assert (shipment.frames, shipment.conflicts, shipment.rejected) == (300, 0, 0)
    assert shipment.position == journal.position
    await expect(records)
    refs = await connection.fetch("select ref, kind from billing.ledger_transaction")
    assert [tuple(row) for row in refs] == [(f"ship:{journal.name}:{journal.position}", "usage")]
    cursor = await connection.fetchrow("select shipped_bytes, records from billing.journal_cursor")
    assert cursor is not None
    assert tuple(cursor) == (journal.position, 300)


async def test_every_field_of_a_record_arrives(
    connection: asyncpg.Connection, journal: Journal, make: Make
) -> None:
    (record,) = append(
        journal, [make(client_request_id="mine", reasoning_tokens=3, status=499, streamed=False, **WHY)]
    )
    await ship(connection, journal)
    row = await connection.fetchrow("select * from billing.usage_event")
    assert row is not None
    found = dict(row)
    assert found.pop("event_id").bytes == record.event_id
    assert found.pop("ended_at") == datetime.fromtimestamp(record.ended_ms / 1000, UTC)
    found.pop("ledger_transaction_id")
    fields = set(UsageRecord.__struct_fields__) - {"event_id", "ended_ms"}
    assert found == {name: getattr(record, name) for name in fields}


async def test_batches_go_on_where_the_last_one_ended(
    connection: asyncpg.Connection, journal: Journal, make: Make, expect: Expect
) -> None:
    records = append(journal, [make() for _ in range(250)])
    assert [(await ship(connection, journal, limit=100)).frames for _ in range(4)] == [100, 100, 50, 0]
    records += append(journal, [make() for _ in range(10)])
    assert (await ship(connection, journal, limit=100)).frames == 10
    await expect(records)


async def test_a_replay_of_the_whole_journal_changes_nothing_and_is_noticed(
    connection: asyncpg.Connection, journal: Journal, make: Make, expect: Expect
) -> None:
    records = append(journal, [make() for _ in range(200)])
    await ship(connection, journal, limit=120)
    await connection.execute("update billing.journal_cursor set shipped_bytes = 0")
    # The second batch begins with records that are there, and ends with some that are not.
    shipment = await ship(connection, journal)
    assert (shipment.frames, shipment.conflicts) == (200, 120)
    await expect(records)
    await connection.execute("delete from billing.journal_cursor")
    assert (await ship(connection, journal)).conflicts == 200
    await expect(records)


async def test_a_record_twice_in_one_batch_counts_once(
    connection: asyncpg.Connection, journal: Journal, make: Make, expect: Expect
) -> None:
    (record,) = append(journal, [make()])
    append(journal, [record])
    assert (await ship(connection, journal)).conflicts == 1
    await expect([record])


async def test_two_shippers_on_one_journal_take_turns(
    database: asyncpg.Pool, journal: Journal, make: Make, expect: Expect
) -> None:
    records = append(journal, [make() for _ in range(600)])

    async def work() -> list[shipping.Shipment]:
        async with database.acquire() as one:
            await shipping.prepare(one)
            return [await ship(one, journal, limit=50) for _ in range(8)]

    shipments = [each for turn in await asyncio.gather(work(), work()) for each in turn]
    assert sum(each.frames for each in shipments) == 600
    assert sum(each.conflicts for each in shipments) == 0
    await expect(records)


async def test_shippers_of_several_journals_meet_on_the_same_rows_without_deadlock(
    database: asyncpg.Pool, journal: Journal, make: Make, expect: Expect
) -> None:
    now_ms = make().ended_ms
    records: list[UsageRecord] = []

    async def work(own: Journal) -> None:
        async with database.acquire() as one:
            await shipping.prepare(one)
            for _ in range(10):
                # Many organisations in an order of their own, all in the same minute.
                batch = [make(ended_ms=now_ms, organisation_id=1 + n % 40) for n in range(80)]
                records.extend(append(own, batch[::-1] if own is journal else batch))
                await ship(one, own)

    with (
        contextlib.closing(Journal(journal.folder)) as second,
        contextlib.closing(Journal(journal.folder)) as third,
    ):
        await asyncio.gather(work(journal), work(second), work(third))
    await expect(records)


async def test_rows_that_shippers_share_are_locked_in_the_order_of_their_keys(
    connection: asyncpg.Connection, journal: Journal, make: Make
) -> None:
    # Two shippers that lock the same rows in two orders end in a deadlock, if they meet; rows that are new
    # lie on the disk in the order in which they were locked.
    ids = [n * 7919 % 401 for n in range(1, 400)]
    append(journal, [make(organisation_id=id_, outcome=Outcome.DONE) for id_ in ids])
    await ship(connection, journal)
    for table in ("usage_minute", "account"):
        rows = await connection.fetch(f"select organisation_id from billing.{table} order by ctid")
        found = [row["organisation_id"] for row in rows]
        assert len(set(found)) > 300
        assert found == sorted(found)


async def test_what_costs_nothing_moves_no_money(
    connection: asyncpg.Connection, journal: Journal, make: Make, expect: Expect
) -> None:
    records = append(journal, [make(outcome=Outcome.ENGINE_FAILED) for _ in range(5)])
    await ship(connection, journal)
    await expect(records)
    assert await connection.fetchval("select count(*) from billing.ledger_transaction") == 0
    assert await connection.fetchval("select sum(requests) from billing.usage_minute") == 5


async def test_a_failure_inside_the_transaction_leaves_nothing_of_the_batch(
    connection: asyncpg.Connection, journal: Journal, make: Make, expect: Expect
) -> None:
    records = append(journal, [make(outcome=Outcome.DONE) for _ in range(50)])
    await connection.execute("alter table billing.entry rename to hidden")
    with pytest.raises(asyncpg.UndefinedTableError):
        await ship(connection, journal)
    await connection.execute("alter table billing.hidden rename to entry")
    await expect([])
    assert await connection.fetchval("select count(*) from billing.journal_cursor") == 0
    await ship(connection, journal)
    await expect(records)


async def test_a_frame_that_is_no_record_is_set_aside_and_stops_nothing(
    connection: asyncpg.Connection, journal: Journal, make: Make, expect: Expect
) -> None:
    good = append(journal, [make()])
    append(
        journal,
        [
            make(request_id="a\0b"),
            make(key_id="k" * 300),
            make(ended_ms=int((datetime.now(UTC) + timedelta(days=2)).timestamp() * 1000)),
        ],
    )
    good += append(journal, [make()])
    shipment = await ship(connection, journal)
    assert (shipment.frames, shipment.rejected, shipment.conflicts) == (5, 3, 0)
    await expect(good)
    rows = await connection.fetch(
        "select problem, body, position from billing.rejected_frame order by position"
    )
    assert [
        word in row["problem"] for word, row in zip(["NUL", "length <= 256", "ahead"], rows, strict=True)
    ] == [
        True,
        True,
        True,
    ]
    bodies = {frame.position: frame.body for frame in frames.frames(journal.path)}
    assert all(bodies[row["position"]] == row["body"] for row in rows)
    assert (await ship(connection, journal)).frames == 0


async def test_the_largest_possible_request_is_booked(
    connection: asyncpg.Connection, journal: Journal, make: Make, expect: Expect
) -> None:
    records = append(
        journal,
        [make(input_tokens=2**31 - 1, cached_tokens=0, output_tokens=2**31 - 1, outcome=Outcome.DONE)] * 1
        + [make(client_request_id="ä" * 256, request_id="ö" * 256, key_id="ü" * 256)],
    )
    await ship(connection, journal)
    await expect(records)


async def test_an_entry_leads_to_its_requests(
    connection: asyncpg.Connection, journal: Journal, make: Make
) -> None:
    for _ in range(3):
        append(journal, [make(outcome=Outcome.DONE, output_tokens=1) for _ in range(20)])
        await ship(connection, journal)
    append(journal, [make(outcome=Outcome.STALLED)])
    await ship(connection, journal)
    rows = await connection.fetch(
        "select amount_nano_usd, (select sum(cost_nano_usd) from billing.usage_event "
        "  where ledger_transaction_id = entry.transaction_id and organisation_id = account.organisation_id "
        "  and ended_at between period_start and period_end) as cost "
        "from billing.entry join billing.account on account.id = account_id "
        "join billing.ledger_transaction on ledger_transaction.id = transaction_id "
        "where account.kind = 'receivable'"
    )
    free = await connection.fetch("select * from billing.usage_event where cost_nano_usd = 0")
    assert [row["ledger_transaction_id"] for row in free] == [None]
    assert len(rows) > 3
    assert all(row["amount_nano_usd"] == row["cost"] for row in rows)
