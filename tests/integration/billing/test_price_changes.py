from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any

import asyncpg
import pytest

from penstock_base.database import connect
from penstock_billing import price_changes, prices
from penstock_billing.errors import PriceError
from penstock_billing.price_changes import Added, Change, When
from penstock_billing.prices import MinutePriceVersion, Offer, PriceBook, PriceVersion

MODEL = "penstock/demo-chat"
CARD = Offer(MODEL, 150_000, 75_000, 600_000)


@pytest.fixture
async def connection(database_url: str) -> Any:
    """As a running process has it."""
    one = await connect(database_url, "test")
    yield one
    await one.close()


@pytest.fixture
async def book(connection: asyncpg.Connection) -> PriceBook:
    await prices.sync_list(connection, [CARD])
    return PriceBook()


async def add(connection: asyncpg.Connection, list_id: int = 1, **words: Any) -> Added[PriceVersion]:
    when = When(**{name: words.pop(name) for name in list(words) if name in When.__struct_fields__})
    return await price_changes.add(connection, MODEL, Change(**words), when, list_id)


def later(days: float = 1) -> datetime:
    return datetime.now(UTC) + timedelta(days=days)


async def test_what_a_change_leaves_out_stays(connection: asyncpg.Connection, book: PriceBook) -> None:
    added = await add(connection, input_pico_usd=200_000, image_pico_usd=5, note="dearer")
    assert added.before is not None
    assert added.before.origin == "card"
    await book.load(connection)
    assert book.current(MODEL) == added.after
    expected = (200_000, 75_000, 600_000, 5, "operator", "dearer")
    after = added.after
    assert (
        after.input_pico_usd,
        after.cached_input_pico_usd,
        after.output_pico_usd,
        after.image_pico_usd,
        after.origin,
        after.note,
    ) == expected
    # Restarting with the same or another card changes nothing.
    assert await prices.sync_list(connection, [CARD, Offer("new", 1, 1, 1)]) != []
    await book.load(connection)
    assert book.current(MODEL) == added.after


async def test_a_scheduled_change_is_in_the_book_and_takes_effect_on_time(
    connection: asyncpg.Connection, book: PriceBook
) -> None:
    moment = later()
    added = await add(connection, output_pico_usd=1, valid_from=moment)
    await book.load(connection)
    assert added.before is not None
    assert book.current(MODEL) == added.before
    assert book.current(MODEL, at_s=moment.timestamp() - 0.001) == added.before
    assert book.current(MODEL, at_s=moment.timestamp()) == added.after


async def test_a_scheduled_change_is_replaced_by_one_for_the_same_moment(
    connection: asyncpg.Connection, book: PriceBook
) -> None:
    moment = later()
    first = await add(connection, output_pico_usd=1, valid_from=moment)
    second = await add(connection, output_pico_usd=2, valid_from=moment)
    assert second.before == first.after
    await book.load(connection)
    assert book.current(MODEL, at_s=moment.timestamp()) == second.after


async def test_a_change_before_one_that_is_scheduled_must_say_so(
    connection: asyncpg.Connection, book: PriceBook
) -> None:
    scheduled = await add(connection, output_pico_usd=1, valid_from=later())
    with pytest.raises(PriceError, match="is scheduled for") as refused:
        await add(connection, output_pico_usd=2)
    assert refused.value.field == "from"
    added = await add(connection, output_pico_usd=2, until_scheduled=True)
    assert added.next == scheduled.after
    await book.load(connection)
    assert book.current(MODEL) == added.after
    assert book.current(MODEL, at_s=later(2).timestamp()) == scheduled.after


async def test_a_dry_run_checks_everything_and_adds_nothing(
    connection: asyncpg.Connection, book: PriceBook
) -> None:
    planned = await add(connection, output_pico_usd=1, dry_run=True)
    assert planned.after.output_pico_usd == 1
    with pytest.raises(PriceError):
        await add(connection, output_pico_usd=-1, dry_run=True)
    await book.load(connection)
    assert len(book.versions) == 1


@pytest.mark.parametrize(
    ("words", "field", "told"),
    [
        ({"output_pico_usd": -1}, "output", "from 0 to 1,000,000 dollars per 1M tokens"),
        ({"output_pico_usd": 10**12 + 1}, "output", "from 0 to 1,000,000"),
        ({"audio_second_pico_usd": 10**17}, "audio_minute", "per minute of audio"),
        ({"cached_input_pico_usd": 150_001}, "cached_input", "cached_input 0.150001 is more than input 0.15"),
        ({"batch_discount_ppm": 1_000_001}, "batch_discount", '"0%" to "100%"'),
        ({"output_pico_usd": 1, "valid_from": datetime(2026, 1, 1, tzinfo=UTC)}, "from", "is past"),
        ({"output_pico_usd": 1, "valid_from": datetime(9999, 1, 1, tzinfo=UTC)}, "from", "ten years"),
        ({"output_pico_usd": 1, "note": "x" * 1001}, "note", "at most 1000"),
    ],
)
@pytest.mark.usefixtures("book")
async def test_a_change_that_cannot_be_is_refused_and_names_its_field(
    connection: asyncpg.Connection, words: dict[str, Any], field: str, told: str
) -> None:
    with pytest.raises(PriceError) as refused:
        await add(connection, **words)
    assert refused.value.field == field
    assert told in str(refused.value)
    assert await connection.fetchval("select count(*) from billing.price_version") == 1


async def test_the_first_price_of_a_model_must_be_whole(connection: asyncpg.Connection) -> None:
    with pytest.raises(PriceError, match="cached_input, output is missing") as refused:
        await add(connection, input_pico_usd=1)
    assert refused.value.field == "cached_input"
    added = await add(connection, input_pico_usd=1, cached_input_pico_usd=0, output_pico_usd=3)
    assert added.before is None


async def test_a_change_of_nothing_is_refused_but_taking_over_a_cards_price_is_not(
    connection: asyncpg.Connection, book: PriceBook
) -> None:
    await add(connection)
    with pytest.raises(PriceError, match="nothing would change"):
        await add(connection)
    await prices.sync_list(connection, [Offer(MODEL, 9, 9, 9)])
    await book.load(connection)
    price = book.current(MODEL)
    assert price is not None
    assert price.input_pico_usd == 150_000


async def test_a_list_of_its_own_begins_with_the_standard_prices(
    connection: asyncpg.Connection, book: PriceBook
) -> None:
    own = await price_changes.new_list(connection, "acme-2027", "negotiated")
    added = await add(connection, own.id, input_pico_usd=100_000)
    assert added.before is not None
    assert added.before.price_list_id == 1
    assert added.after.output_pico_usd == 600_000
    await price_changes.assign(connection, 42, own.id, When())
    await book.load(connection)
    assert book.current(MODEL, 42) == added.after
    assert book.current(MODEL, 43) == added.before


@pytest.mark.parametrize("name", ["", "Acme", "two words", "-x", "x" * 101, "standard"])
async def test_lists_have_plain_names_each_once(connection: asyncpg.Connection, name: str) -> None:
    with pytest.raises(PriceError) as refused:
        await price_changes.new_list(connection, name)
    assert refused.value.field == "name"


async def test_an_assignment_is_scheduled_and_ended_like_a_price(
    connection: asyncpg.Connection, book: PriceBook
) -> None:
    own = await price_changes.new_list(connection, "own")
    with pytest.raises(PriceError, match="already"):
        await price_changes.assign(connection, 42, 1, When())
    first = await price_changes.assign(connection, 42, own.id, When(valid_from=later(1)))
    assert first.before is None
    with pytest.raises(PriceError, match="is scheduled for"):
        await price_changes.assign(connection, 42, own.id, When())
    # Called off: at the same moment, the standard list again.
    await price_changes.assign(connection, 42, 1, When(valid_from=first.after.valid_from))
    await book.load(connection)
    assert book.list_id(42, later(2).timestamp()) == 1


async def minute(connection: asyncpg.Connection, nano: int, **when: Any) -> Added[MinutePriceVersion]:
    return await price_changes.add_minute(connection, "instance", "cpu-small", nano, When(**when))


async def test_minutes_have_versions_too(connection: asyncpg.Connection, book: PriceBook) -> None:
    first = await minute(connection, 20_000_000)
    second = await minute(connection, 30_000_000, valid_from=later())
    assert (first.before, second.before) == (None, first.after)
    await book.load(connection)
    assert book.minute_price("instance", "cpu-small") == first.after
    assert book.minute_price("instance", "cpu-small", at_s=later(2).timestamp()) == second.after
    for refused in (20_000_000, -1, 10**16):
        with pytest.raises(PriceError):
            await minute(connection, refused, until_scheduled=True)


@pytest.mark.parametrize(
    ("kind", "subject"), [("endpoint", "cpu-small"), ("instance", "a b"), ("instance", "")]
)
async def test_a_minutes_subject_is_checked(connection: asyncpg.Connection, kind: Any, subject: str) -> None:
    with pytest.raises(PriceError) as refused:
        await price_changes.add_minute(connection, kind, subject, 1, When())
    assert refused.value.field == "subject"


async def test_changes_at_once_wait_for_each_other(database: asyncpg.Pool) -> None:
    async def one(output_pico_usd: int) -> Added[PriceVersion]:
        async with database.acquire() as connection:
            return await add(
                connection,
                input_pico_usd=9,
                cached_input_pico_usd=0,
                output_pico_usd=output_pico_usd,
            )

    added = await asyncio.gather(*(one(number) for number in range(5)))
    # Each saw the one before it: they form one chain.
    befores = [each.before.id if each.before else 0 for each in added]
    assert sorted(befores) == [0, *sorted(each.after.id for each in added)[:-1]]
    moments = [each.after.valid_from for each in sorted(added, key=lambda each: each.after.id)]
    assert moments == sorted(moments)


def test_names_that_are_near_are_told() -> None:
    assert price_changes.near("penstock/demo-cat", [MODEL, "x/y"]) == f"; did you mean {MODEL}?"
    assert price_changes.near("zzz", ["a", "b"]) == "; there are a, b"
    assert price_changes.near("zzz", []) == ""


async def test_a_moment_that_passes_while_a_change_is_written_is_told_as_such(
    connection: asyncpg.Connection, book: PriceBook, monkeypatch: pytest.MonkeyPatch
) -> None:
    # As if the database had been asked for the time long before it was given the row.
    monkeypatch.setitem(prices.SQL, "clock", "select clock_timestamp() - interval '1 hour'")
    moment = datetime.now(UTC) - timedelta(minutes=1)
    whole = {"input_pico_usd": 1, "cached_input_pico_usd": 1, "output_pico_usd": 1}
    with pytest.raises(PriceError, match="passed while this was added") as refused:
        await add(connection, **whole, valid_from=moment, until_scheduled=True)
    assert refused.value.field == "from"
    await book.load(connection)
    assert len(book.versions) == 1
