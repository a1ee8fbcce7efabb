from __future__ import annotations

from collections.abc import Callable

import asyncpg
import pytest

from penstock_base.database import connect
from penstock_billing import giving_back, partitions
from penstock_billing.journal import Journal
from penstock_billing.ledger import AccountKind
from penstock_billing.record import Outcome, UsageRecord
from penstock_billing.shipper import Shipper
from penstock_billing.wishes import Wish

FACTS = ["price_version", "usage_event", "ledger_transaction", "entry", "refund"]
A_COLUMN = {
    "price_version": "output_pico_usd",
    "usage_event": "cost_nano_usd",
    "ledger_transaction": "kind",
    "entry": "amount_nano_usd",
    "refund": "request_id",
}


@pytest.fixture
async def facts(
    database: asyncpg.Pool, journal: Journal, shipper: Shipper, make: Callable[..., UsageRecord]
) -> None:
    for _ in range(20):
        journal.append(make(outcome=Outcome.DONE, output_tokens=700))
    await shipper.ship_once()
    async with database.acquire() as connection:
        spent = await connection.fetchrow(
            "select organisation_id, request_id from billing.usage_event where cost_nano_usd > 0"
        )
        wish = Wish(ref="a refund", amount_nano_usd=0)
        await giving_back.refund_request(connection, wish, *spent)  # type: ignore[arg-type, misc]
    for table in FACTS:
        assert await database.fetchval(f"select count(*) from billing.{table}")


@pytest.mark.parametrize("table", FACTS)
@pytest.mark.usefixtures("facts")
async def test_facts_can_be_neither_changed_nor_deleted(database: asyncpg.Pool, table: str) -> None:
    column = A_COLUMN[table]
    for statement in (f"update billing.{table} set {column} = {column}", f"delete from billing.{table}"):
        with pytest.raises(asyncpg.RestrictViolationError, match="append-only"):
            await database.execute(statement)
    with pytest.raises(asyncpg.RestrictViolationError, match="append-only"):
        await database.execute(f"truncate billing.{table} cascade")


@pytest.mark.usefixtures("facts")
async def test_a_partition_is_as_append_only_as_the_whole(database: asyncpg.Pool) -> None:
    (partition,) = [
        row["name"]
        for row in await database.fetch(
            "select distinct tableoid::regclass::text as name from billing.usage_event"
        )
    ]
    assert partition != "billing.usage_event_default"
    with pytest.raises(asyncpg.RestrictViolationError):
        await database.execute(f"delete from {partition}")


@pytest.mark.usefixtures("facts")
async def test_running_processes_may_not_even_try(database_url: str) -> None:
    connection = await connect(database_url, "test")
    try:
        partition = await connection.fetchval(
            "select tableoid::regclass::text from billing.usage_event limit 1"
        )
        for table in (*(f"billing.{fact}" for fact in FACTS), partition):
            for statement in (f"delete from {table}", f"truncate {table} cascade"):
                with pytest.raises(asyncpg.InsufficientPrivilegeError):
                    await connection.execute(statement)
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await connection.execute("alter table billing.entry disable trigger all")
    finally:
        await connection.close()


async def book(connection: asyncpg.Connection, *amounts: int) -> None:
    """Book a transaction by hand, one organisation per amount."""
    async with connection.transaction():
        id_ = await connection.fetchval(
            "insert into billing.ledger_transaction (ref, kind, period_start, period_end) "
            "values ('by hand', 'usage', now(), now()) returning id"
        )
        await connection.execute(
            "insert into billing.account (organisation_id, kind, posted_nano_usd) "
            "select n, 'revenue', 0 from generate_series(1, $1::int) as n",
            len(amounts),
        )
        await connection.execute(
            "insert into billing.entry select $1, account.id, ($2::bigint[])[account.organisation_id] "
            "from billing.account where organisation_id <= $3::bigint",
            id_,
            list(amounts),
            len(amounts),
        )


async def test_entries_that_do_not_sum_to_zero_are_refused(database: asyncpg.Pool) -> None:
    async with database.acquire() as connection:
        with pytest.raises(asyncpg.CheckViolationError) as refused:
            await book(connection, 5, -4)
        assert refused.value.constraint_name == "entry_balances"
        await book(connection, 5, -2, -3)


async def test_a_transaction_without_entries_is_refused(database: asyncpg.Pool) -> None:
    async with database.acquire() as connection:
        with pytest.raises(asyncpg.CheckViolationError) as refused:
            await book(connection)
        assert refused.value.constraint_name == "ledger_transaction_balances"


async def test_no_entry_can_be_added_to_an_old_transaction(database: asyncpg.Pool) -> None:
    async with database.acquire() as connection:
        await book(connection, 5, -5)
        with pytest.raises(asyncpg.CheckViolationError) as refused:
            await connection.execute(
                "with fresh as (insert into billing.account (organisation_id, kind, posted_nano_usd) "
                "values (9, 'revenue', 0) returning id) "
                "insert into billing.entry select max(billing.ledger_transaction.id), max(fresh.id), 7 "
                "from billing.ledger_transaction, fresh"
            )
        assert refused.value.constraint_name == "entry_balances"


async def test_not_even_balanced_entries_can_be_added_to_an_old_transaction(database: asyncpg.Pool) -> None:
    async with database.acquire() as connection:
        await book(connection, 5, -5)
        await connection.execute(
            "insert into billing.account (organisation_id, kind, posted_nano_usd) values (8, 'revenue', 0), "
            "(9, 'revenue', 0)"
        )
        with pytest.raises(asyncpg.CheckViolationError) as refused:
            await connection.execute(
                "insert into billing.entry select booked.id, account.id, 17 - 2 * account.organisation_id "
                "from billing.ledger_transaction as booked, billing.account where organisation_id in (8, 9)"
            )
        assert refused.value.constraint_name == "entry_is_of_now"


async def test_every_kind_of_account_says_what_it_means(database: asyncpg.Pool) -> None:
    rows = await database.fetch("select kind, meaning from billing.account_kind")
    assert {row["kind"] for row in rows} == set(AccountKind)
    assert all(row["meaning"] for row in rows)


async def test_every_table_says_what_it_is_for(database: asyncpg.Pool) -> None:
    silent = await database.fetch(
        "select relname from pg_class where relnamespace = 'billing'::regnamespace and relkind in ('r', 'p') "
        "and not relispartition and obj_description(oid, 'pg_class') is null"
    )
    assert silent == []
    async with database.acquire() as connection:
        await partitions.ensure(connection, 1)
