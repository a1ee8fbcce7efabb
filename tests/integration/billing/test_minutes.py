from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta

import asyncpg
import pytest

from penstock_base import database as databases
from penstock_billing import intervals, invariants, ledger, minutes
from penstock_billing.errors import IntervalRefused
from penstock_billing.intervals import Interval, IntervalKind, Subject
from penstock_billing.ledger import Account, AccountKind, Booking, TransactionKind

TEN = datetime(2051, 3, 1, 10, 0, tzinfo=UTC)
"""In the future, so that prices can begin around it: none begins in the past."""
CENT = 10_000_000
"""Nano-dollars."""


def at(minute: float) -> datetime:
    return TEN + timedelta(minutes=minute)


def instance(name: str = "i-1", organisation_id: int | None = 7, **facts: object) -> Subject:
    return Subject(
        **({"kind": IntervalKind.INSTANCE, "id": name, "priced_as": "small", "project_id": 2} | facts),  # type: ignore[arg-type]
        organisation_id=organisation_id,
    )


async def price(
    database: asyncpg.Pool, nano_usd: int, since: float = -1e6, price_list: int = 1, kind: str = "instance"
) -> int:
    return int(
        await database.fetchval(
            "insert into billing.minute_price_version "
            "(price_list_id, kind, subject, nano_usd_per_minute, valid_from) "
            "values ($1, $2, $3, $4, $5) returning id",
            price_list,
            kind,
            "small" if kind == "instance" else "serverless",
            nano_usd,
            at(since),
        )
    )


async def balances(database: asyncpg.Pool, organisation_id: int = 7) -> dict[tuple[int, str], int]:
    rows = await database.fetch(
        "select project_id, kind, posted_nano_usd from billing.account where organisation_id = $1",
        organisation_id,
    )
    return {
        (row["project_id"], row["kind"]): row["posted_nano_usd"] for row in rows if row["posted_nano_usd"]
    }


async def run(database: asyncpg.Pool, subject: Subject, ready: float, stopped: float) -> Interval:
    async with database.acquire() as connection:
        opened = await intervals.open_interval(connection, subject, at(ready), holder="one")
        await intervals.close_interval(connection, subject.kind, subject.id, at(stopped), holder="one")
    return opened


async def accrue(database: asyncpg.Pool, until: float) -> minutes.Accrual:
    async with database.acquire() as connection:
        done = await minutes.accrue(connection, at(until))
        assert await invariants.check(connection) == []
    return done


async def test_minutes_from_ready_to_stopped_are_owed(database: asyncpg.Pool) -> None:
    version = await price(database, CENT)
    opened = await run(database, instance(model="m", endpoint="chat"), 0.5, 3.5)
    done = await accrue(database, 60)
    assert (done.minutes, done.cost_nano_usd, done.unpriced_minutes) == (3, 3 * CENT, 0)
    assert await balances(database) == {(0, "receivable"): 3 * CENT, (0, "revenue"): -3 * CENT}
    async with database.acquire() as connection:
        (line,) = await minutes.charged(connection, 7, at(0), at(60))
    assert (line.interval_id, line.minute_price_version, line.minutes) == (opened.id, version, 3)
    assert (line.endpoint, line.model, line.project_id) == ("chat", "m", 2)


async def test_charging_again_charges_nothing(database: asyncpg.Pool) -> None:
    await price(database, CENT)
    await run(database, instance(), 0, 10)
    assert (await accrue(database, 4.5)).minutes == 5
    assert (await accrue(database, 4.5)).intervals == 0
    assert (await accrue(database, 60)).minutes == 5
    assert (await accrue(database, 60)).intervals == 0


async def test_charging_at_once_charges_once(database: asyncpg.Pool) -> None:
    await price(database, CENT)
    for number in range(5):
        await run(database, instance(f"i-{number}"), 0, 10)

    async def one() -> int:
        async with database.acquire() as connection:
            return (await minutes.accrue(connection, at(60))).minutes

    assert sum(await asyncio.gather(*(one() for _ in range(4)))) == 50
    assert await balances(database) == {(0, "receivable"): 50 * CENT, (0, "revenue"): -50 * CENT}


async def test_days_without_a_controller_lose_no_minute(database: asyncpg.Pool) -> None:
    await price(database, CENT, kind="endpoint")
    subject = Subject(kind=IntervalKind.ENDPOINT, id="e", priced_as="serverless", organisation_id=7)
    async with database.acquire() as connection:
        await intervals.open_interval(connection, subject, at(0), holder=None)
    week = 7 * 24 * 60
    assert (await accrue(database, week)).minutes == week


async def test_an_instance_is_charged_no_further_than_it_was_vouched_for(database: asyncpg.Pool) -> None:
    await price(database, CENT)
    async with database.acquire() as connection:
        await intervals.open_interval(connection, instance(), at(0), holder="one")
        assert await intervals.see(connection, IntervalKind.INSTANCE, ["i-1"], at(5.5), holder="one") == {
            "i-1"
        }
    assert (await accrue(database, 1000)).minutes == 6
    async with database.acquire() as connection:
        assert await intervals.close_abandoned(connection, "two") == 1
        assert await intervals.see(connection, IntervalKind.INSTANCE, ["i-1"], at(900), holder="one") == set()
        stopped = await intervals.between(connection, 7, at(0), at(1000))
    assert [one.stopped_at for one in stopped] == [at(5.5)]
    assert (await accrue(database, 1000)).minutes == 0


async def test_two_controllers_open_one_interval(database: asyncpg.Pool) -> None:
    async def one() -> int:
        async with database.acquire() as connection:
            return (await intervals.open_interval(connection, instance(), at(0), holder="one")).id

    assert len(set(await asyncio.gather(*(one() for _ in range(4))))) == 1
    assert await database.fetchval("select count(*) from billing.running_interval") == 1


async def test_a_takeover_never_overlaps_what_was_before(database: asyncpg.Pool) -> None:
    await price(database, CENT)
    async with database.acquire() as connection:
        await intervals.open_interval(connection, instance(), at(0), holder="one")
        await intervals.see(connection, IntervalKind.INSTANCE, ["i-1"], at(5), holder="one")
        taken = await intervals.open_interval(connection, instance(), at(3), holder="two")
        assert taken.started_at == at(5)
        # The first one has not noticed, and can do no harm.
        assert (
            await intervals.close_interval(connection, IntervalKind.INSTANCE, "i-1", at(9), holder="one")
            is None
        )
        await intervals.close_interval(connection, IntervalKind.INSTANCE, "i-1", at(8), holder="two")
    assert (await accrue(database, 60)).minutes == 8


async def test_a_stop_told_late_is_dated_back_but_not_before_the_proof(database: asyncpg.Pool) -> None:
    async with database.acquire() as connection:
        await intervals.open_interval(connection, instance(), at(0), holder="one")
        await intervals.see(connection, IntervalKind.INSTANCE, ["i-1"], at(5), holder="one")
        stopped = await intervals.close_interval(
            connection, IntervalKind.INSTANCE, "i-1", at(4), holder="one"
        )
    assert stopped is not None
    assert stopped.stopped_at == at(5)


async def test_each_minute_costs_what_was_in_force_as_it_began(database: asyncpg.Pool) -> None:
    old, new = await price(database, 100), await price(database, 1000, since=2.5)
    await run(database, instance(), 0, 10)
    await accrue(database, 60)
    rows = await database.fetch("select * from billing.minute_charge order by since")
    assert [(row["minute_price_version"], row["minutes"]) for row in rows] == [(old, 3), (new, 7)]
    assert sum(row["cost_nano_usd"] for row in rows) == 3 * 100 + 7 * 1000
    assert await database.fetchval("select count(*) from billing.ledger_transaction") == 1


async def test_a_price_known_in_advance_is_the_same_however_often_charges_are_made(
    database: asyncpg.Pool,
) -> None:
    await price(database, 100)
    await price(database, 1000, since=5)
    await run(database, instance(), 0, 10)
    for minute in range(12):
        await accrue(database, minute + 0.25)
    assert await balances(database) == {(0, "receivable"): 5500, (0, "revenue"): -5500}


async def test_an_organisations_own_list_goes_first_and_the_standard_one_fills_its_gaps(
    database: asyncpg.Pool,
) -> None:
    await price(database, 100)
    own = await database.fetchval("insert into billing.price_list (name) values ('acme') returning id")
    await price(database, 10, since=4, price_list=own)
    await database.execute(
        "insert into billing.price_assignment (organisation_id, price_list_id, valid_from) "
        "values (7, $1, $2)",
        own,
        at(2),
    )
    await run(database, instance(), 0, 10)
    await run(database, instance("i-2", organisation_id=8), 0, 10)
    await accrue(database, 60)
    assert (await balances(database))[0, "receivable"] == 4 * 100 + 6 * 10
    assert (await balances(database, 8))[0, "receivable"] == 10 * 100


async def test_minutes_without_a_price_are_free_and_told(database: asyncpg.Pool) -> None:
    await price(database, CENT, since=6)
    await run(database, instance(), 0, 10)
    done = await accrue(database, 60)
    assert (done.minutes, done.unpriced_minutes) == (4, 6)


async def test_free_minutes_are_recorded_without_a_booking(database: asyncpg.Pool) -> None:
    await price(database, 0)
    await run(database, instance(), 0, 10)
    assert (await accrue(database, 60)).minutes == 10
    assert await balances(database) == {}


async def test_what_runs_for_everybody_costs_nobody(database: asyncpg.Pool) -> None:
    await price(database, CENT)
    await run(database, instance(organisation_id=None, project_id=0), 0, 10)
    assert (await accrue(database, 60)).intervals == 0
    async with database.acquire() as connection:
        assert len(await intervals.between(connection, None, at(0), at(60))) == 1


async def test_prepaid_minutes_take_given_credit_first_and_go_below_zero(database: asyncpg.Pool) -> None:
    await price(database, CENT)
    await database.execute(
        "insert into billing.wallet (organisation_id, project_id, funding) values (7, 2, 'prepaid')"
    )
    given = {
        Account(7, 2, AccountKind.PROMOTIONAL): -4 * CENT,
        Account(7, 0, AccountKind.PROMOTION_COST): 4 * CENT,
    }
    paid = {Account(7, 2, AccountKind.PREPAID): -3 * CENT, Account(7, 0, AccountKind.CASH): 3 * CENT}
    async with database.acquire() as connection:
        await ledger.book(connection, Booking(ref="p", kind=TransactionKind.PROMOTION, entries=given))
        await ledger.book(connection, Booking(ref="t", kind=TransactionKind.TOP_UP, entries=paid))
    await run(database, instance(), 0, 9)
    await accrue(database, 3)
    assert (await balances(database))[2, "promotional"] == -CENT
    await accrue(database, 6)
    left = await balances(database)
    assert (left.get((2, "promotional")), left[2, "prepaid"]) == (None, -CENT)
    await accrue(database, 60)
    left = await balances(database)
    assert left[2, "prepaid"] == 2 * CENT
    assert left[0, "revenue"] == -9 * CENT


async def test_prepaid_and_owed_minutes_of_one_organisation_do_not_block_each_other(
    database: asyncpg.Pool,
) -> None:
    await price(database, CENT)
    await database.execute(
        "insert into billing.wallet (organisation_id, project_id, funding) values (7, 2, 'prepaid')"
    )
    for number in range(6):
        await run(database, instance(f"i-{number}", project_id=2 + number % 2), 0, 30)

    async def one() -> None:
        async with database.acquire() as connection:
            for minute in range(30):
                await minutes.accrue(connection, at(minute))

    await asyncio.gather(*(one() for _ in range(3)))
    await accrue(database, 60)
    assert await balances(database) == {
        (0, "revenue"): -180 * CENT,
        (0, "receivable"): 90 * CENT,
        (2, "prepaid"): 90 * CENT,
    }


async def test_running_processes_may_do_all_of_it(database: asyncpg.Pool, database_url: str) -> None:
    await price(database, CENT)
    connection = await databases.connect(database_url, "test")
    try:
        await intervals.open_interval(connection, instance(), at(0), holder="one")
        await intervals.see(connection, IntervalKind.INSTANCE, ["i-1"], at(5), holder="one")
        assert (await minutes.accrue(connection, at(60))).minutes == 5
    finally:
        await connection.close()


@pytest.mark.parametrize(
    "statement",
    [
        "delete from billing.running_interval",
        "truncate billing.running_interval cascade",
        "update billing.running_interval set started_at = started_at - interval '1 minute'",
        "update billing.running_interval set stopped_at = stopped_at + interval '1 minute'",
        "update billing.running_interval set stopped_at = null",
        "update billing.running_interval set accrued_until = accrued_until - interval '1 minute'",
        "update billing.running_interval set organisation_id = 8",
    ],
)
async def test_the_past_of_an_interval_stays(database: asyncpg.Pool, statement: str) -> None:
    await price(database, CENT)
    await run(database, instance(), 0, 10)
    with pytest.raises(asyncpg.RestrictViolationError):
        await database.execute(statement)


async def test_what_contradicts_an_open_interval_is_refused(database: asyncpg.Pool) -> None:
    async with database.acquire() as connection:
        await intervals.open_interval(connection, instance(), at(0), holder="one")
        with pytest.raises(IntervalRefused, match="stop it before"):
            await intervals.open_interval(connection, instance(organisation_id=8), at(1), holder="one")
        with pytest.raises(IntervalRefused, match="needs a holder"):
            await intervals.open_interval(connection, instance("i-2"), at(1), holder=None)
        with pytest.raises(IntervalRefused, match="time zone"):
            await minutes.accrue(connection, datetime(2026, 3, 1))  # noqa: DTZ001 - the mistake
