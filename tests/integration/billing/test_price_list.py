from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta

import asyncpg
import pytest

from penstock.local import postgres
from penstock_base import migrations
from penstock_base.database import connect
from penstock_billing import prices
from penstock_billing.errors import PriceError
from penstock_billing.prices import Offer, PriceBook


async def sync(database: asyncpg.Pool, *offers: Offer) -> list[prices.PriceVersion]:
    async with database.acquire() as connection:
        return await prices.sync_list(connection, list(offers))


async def test_a_price_becomes_a_version_once(database: asyncpg.Pool) -> None:
    (created,) = await sync(database, Offer("a", 3, 2, 1))
    assert (created.model, created.input_pico_usd, created.cached_input_pico_usd) == ("a", 3, 2)
    assert created.output_pico_usd == 1
    assert await sync(database, Offer("a", 3, 2, 1)) == []


async def test_a_changed_price_is_a_new_version_and_the_old_one_stays(database: asyncpg.Pool) -> None:
    (old,) = await sync(database, Offer("a", 3, 2, 1))
    (other,) = await sync(database, Offer("b", 3, 2, 1))
    (new,) = await sync(database, Offer("a", 3, 2, 9), Offer("b", 3, 2, 1))
    book = PriceBook()
    await book.load(database)
    assert book.current("a") == new
    assert book.version(old.id) == old
    assert new.valid_from > old.valid_from
    assert book.current("b") == other
    # Back to the first price: a new version again, as the past is not touched.
    (again,) = await sync(database, Offer("a", 3, 2, 1))
    assert again.id not in {old.id, new.id}


async def test_a_model_that_is_not_offered_keeps_its_price(database: asyncpg.Pool) -> None:
    (old,) = await sync(database, Offer("a", 3, 2, 1))
    await sync(database, Offer("b", 3, 2, 1))
    book = PriceBook()
    await book.load(database)
    assert book.current("a") == old


async def test_processes_that_start_together_make_one_version(database: asyncpg.Pool) -> None:
    offers = [Offer(f"model-{n}", n, n, n) for n in range(20)]
    async with database.acquire() as first, first.transaction():
        assert len(await prices.sync_list(first, offers)) == 20
        second = asyncio.create_task(sync(database, *offers))
        # It waits, rather than adding what it cannot see yet a second time.
        await asyncio.wait([second], timeout=0.3)
        assert not second.done()
    assert await second == []


@pytest.mark.parametrize(
    "offers", [[Offer("a", 1, 1, 1), Offer("a", 2, 2, 2)], [Offer("b", 1, 1, 1), Offer("a", 1, -1, 1)]]
)
async def test_a_list_that_contradicts_itself_changes_nothing(
    database: asyncpg.Pool, offers: list[Offer]
) -> None:
    with pytest.raises(PriceError, match="a has"):
        await sync(database, *offers)
    assert await database.fetchval("select count(*) from billing.price_version") == 0


async def add(database: asyncpg.Pool, table: str, **columns: object) -> None:
    """Insert as any process might, without the code that usually does it."""
    names = ", ".join(columns)
    values = ", ".join(f"${n}" for n in range(1, len(columns) + 1))
    await database.execute(f"insert into billing.{table} ({names}) values ({values})", *columns.values())


DATED: dict[str, dict[str, object]] = {
    "price_version": {
        "model": "a",
        "input_pico_usd": 1,
        "cached_input_pico_usd": 1,
        "output_pico_usd": 1,
    },
    "minute_price_version": {"kind": "instance", "subject": "cpu-small", "nano_usd_per_minute": 1},
    "price_assignment": {"organisation_id": 1, "price_list_id": 1},
}


@pytest.mark.parametrize("table", DATED)
async def test_the_database_itself_refuses_what_would_begin_in_the_past(
    database: asyncpg.Pool, table: str
) -> None:
    now: datetime = await database.fetchval("select clock_timestamp()")
    endless = datetime.max.replace(tzinfo=UTC)
    for moment in (now - timedelta(seconds=30), datetime.min.replace(tzinfo=UTC), endless):
        with pytest.raises(asyncpg.CheckViolationError) as refused:
            await add(database, table, **DATED[table], valid_from=moment)
        assert refused.value.constraint_name == "never_in_the_past"
    assert await database.fetchval(f"select count(*) from billing.{table}") == 0
    # When it was added is the database's word too.
    await add(
        database, table, **DATED[table], valid_from=now + timedelta(days=1), added_at=now - timedelta(9)
    )
    assert await database.fetchval(f"select added_at >= $1 from billing.{table}", now)


@pytest.mark.parametrize("table", DATED)
async def test_what_was_added_stays(database: asyncpg.Pool, table: str) -> None:
    await add(database, table, **DATED[table], valid_from=datetime(2036, 1, 1, tzinfo=UTC))
    for change in (f"update billing.{table} set valid_from = now()", f"delete from billing.{table}"):
        with pytest.raises(asyncpg.RestrictViolationError, match="append-only"):
            await database.execute(change)


async def test_running_processes_can_add_prices_and_nothing_else(database_url: str) -> None:
    connection = await connect(database_url, "test")
    try:
        for table in (*DATED, "price_list"):
            for statement in (
                f"delete from billing.{table}",
                f"update billing.{table} set note = ''",
                f"truncate billing.{table} cascade",
                f"alter table billing.{table} disable trigger all",
            ):
                with pytest.raises(asyncpg.InsufficientPrivilegeError):
                    await connection.execute(statement)
    finally:
        await connection.close()


async def test_a_card_never_replaces_what_a_person_set(database: asyncpg.Pool) -> None:
    await sync(database, Offer("a", 3, 2, 1), Offer("b", 3, 2, 1))
    operators = DATED["price_version"]
    await add(database, "price_version", **operators, valid_from=await database.fetchval("select now()"))
    assert [made.model for made in await sync(database, Offer("a", 7, 7, 7), Offer("b", 7, 7, 7))] == ["b"]
    book = PriceBook()
    await book.load(database)
    price = book.current("a")
    assert price is not None
    assert (price.input_pico_usd, price.origin) == (1, "operator")


async def test_what_a_person_scheduled_holds_when_its_time_comes_whatever_cards_say_until_then(
    database: asyncpg.Pool,
) -> None:
    later = datetime.now(UTC) + timedelta(days=1)
    await sync(database, Offer("a", 3, 2, 1))
    await add(database, "price_version", **DATED["price_version"], valid_from=later)
    (card,) = await sync(database, Offer("a", 9, 9, 9))
    book = PriceBook()
    await book.load(database)
    assert book.current("a") == card
    scheduled = book.current("a", at_s=later.timestamp())
    assert scheduled is not None
    assert scheduled.origin == "operator"


async def test_a_book_reads_again_only_when_something_was_added(database: asyncpg.Pool) -> None:
    await sync(database, Offer("a", 3, 2, 1))
    book = PriceBook()
    await book.load(database)
    kept = book.current("a")
    await book.load(database)
    assert book.current("a") is kept
    for table, columns in DATED.items():
        await add(database, table, **columns, valid_from=datetime(2036, 1, 1, tzinfo=UTC))
        await book.load(database)
    assert len(book.versions) == 2
    assert len(book.minute_versions) == len(book.assignments) == len(book.lists) == 1


async def test_a_version_that_another_transaction_began_earlier_is_not_missed(database: asyncpg.Pool) -> None:
    book = PriceBook()
    async with database.acquire() as slow:
        transaction = slow.transaction()
        await transaction.start()
        await slow.execute(
            "insert into billing.price_version "
            "(model, input_pico_usd, cached_input_pico_usd, output_pico_usd, valid_from) "
            "values ('slow', 1, 1, 1, now())"
        )
        await add(database, "price_version", **DATED["price_version"], valid_from=datetime.now(UTC))
        await book.load(database)
        assert book.current("slow") is None
        await transaction.commit()
    await book.load(database)
    assert book.current("slow") is not None


async def test_prices_of_an_older_release_are_the_cards_and_may_follow_them(
    postgres_server: postgres.Postgres,
) -> None:
    server = await asyncpg.connect(postgres_server.url.replace("@/penstock?", "@/postgres?"))
    await server.execute("create database older")
    steps = migrations.read("billing", "penstock_billing")
    connection = await asyncpg.connect(postgres_server.url.replace("@/penstock?", "@/older?"))
    try:
        await migrations.apply(connection, [step for step in steps if step.number < 7])
        await connection.execute(
            "insert into billing.price_version "
            "(model, input_pico_usd, cached_input_pico_usd, output_pico_usd, valid_from) "
            "values ('a', 1, 1, 1, '2026-01-01')"
        )
        await connection.execute(
            "insert into billing.price_assignment (organisation_id, price_list_id, valid_from) "
            "values (1, 1, '2026-01-01'), (1, 1, '2026-02-01')"
        )
        await migrations.apply(connection, steps)
        assert [made.model for made in await prices.sync_list(connection, [Offer("a", 2, 2, 2)])] == ["a"]
        with pytest.raises(asyncpg.RestrictViolationError):
            await connection.execute("update billing.price_version set origin = 'card'")
        book = PriceBook()
        await book.load(connection)
        assert [each.origin for each in book.versions] == ["card", "card"]
        assert len({each.id for each in book.assignments}) == 2
    finally:
        await connection.close()
        await server.execute("drop database older with (force)")
        await server.close()
