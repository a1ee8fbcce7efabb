from __future__ import annotations

import asyncio

import asyncpg
import pytest

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
