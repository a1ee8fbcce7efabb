"""Measured speed: counted with the events and once each, told by quantiles, and never read from events."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import asyncpg
import pytest

from penstock_billing import speeds
from penstock_billing.journal import Journal
from penstock_billing.record import Outcome, UsageRecord
from penstock_billing.shipper import Shipper
from penstock_billing.speeds import SpeedBook

Make = Callable[..., UsageRecord]
MODEL = "penstock/demo-chat"
WITHIN = 0.05
"""Of a quantile: half a step of the scale."""


async def ship(journal: Journal, shipper: Shipper, records: list[UsageRecord]) -> None:
    for each in records:
        journal.append(each)
    await shipper.ship_once()


def streamed(make: Make, **changes: Any) -> UsageRecord:
    fields = {"model": MODEL, "outcome": Outcome.DONE, "streamed": True, "output_tokens": 101}
    return make(**(fields | {"first_token_us": 100_000, "duration_us": 1_100_000} | changes))


async def test_quantiles_are_within_half_a_step_of_the_truth(
    make: Make, journal: Journal, shipper: Shipper, database: asyncpg.Pool
) -> None:
    first_us = [10_000 * (n + 1) for n in range(100)]
    await ship(
        journal, shipper, [streamed(make, first_token_us=us, duration_us=us + 2_000_000) for us in first_us]
    )
    found = (await speeds.lately(database, [MODEL]))[MODEL]
    assert found.requests == 100
    assert found.first_token_p50_us == pytest.approx(500_000, rel=WITHIN)
    assert found.first_token_p90_us == pytest.approx(900_000, rel=WITHIN)
    # 100 tokens after the first one, in 2 s.
    assert found.tokens_per_s_p50 == pytest.approx(50, rel=WITHIN)
    assert found.tokens_per_s_p10 == pytest.approx(50, rel=WITHIN)


async def test_only_answers_that_came_whole_and_streamed_tell_of_first_tokens(
    make: Make, journal: Journal, shipper: Shipper, database: asyncpg.Pool
) -> None:
    await ship(
        journal,
        shipper,
        [
            streamed(make, outcome=Outcome.ENGINE_FAILED),
            streamed(make, streamed=False),
            streamed(make, first_token_us=0),
            streamed(make, first_token_us=-5, duration_us=-9),
            # Too few tokens for a rate.
            streamed(make, output_tokens=3),
        ],
    )
    found = (await speeds.lately(database, [MODEL]))[MODEL]
    assert found.requests == 1
    assert found.first_token_p50_us is not None
    assert found.tokens_per_s_p50 is None


async def test_of_models_without_tokens_the_whole_answer_is_measured(
    make: Make, journal: Journal, shipper: Shipper, database: asyncpg.Pool
) -> None:
    model = "penstock/demo-embed"
    await ship(
        journal,
        shipper,
        [make(model=model, outcome=Outcome.DONE, streamed=False, output_tokens=0, duration_us=20_000)],
    )
    found = (await speeds.lately(database, None))[model]
    assert found.answer_p50_us == pytest.approx(20_000, rel=WITHIN)
    assert found.first_token_p50_us is None


async def test_a_record_that_is_shipped_twice_counts_once(
    make: Make, journal: Journal, shipper: Shipper, database: asyncpg.Pool
) -> None:
    await ship(journal, shipper, [streamed(make)])
    await database.execute("update billing.journal_cursor set shipped_bytes = 0, records = 0")
    await shipper.ship_once()
    assert (await speeds.lately(database, [MODEL]))[MODEL].requests == 1


async def test_days_stand_apart_and_only_the_last_seven_are_told(
    make: Make, journal: Journal, shipper: Shipper, database: asyncpg.Pool
) -> None:
    today = datetime.now(UTC).date()
    noon_ms = int(datetime(today.year, today.month, today.day, tzinfo=UTC).timestamp() * 1000)
    day_ms = 86_400_000
    await ship(
        journal,
        shipper,
        [
            streamed(make, ended_ms=noon_ms - back * day_ms, first_token_us=1000 * (back + 1))
            for back in (0, 2, 6, 7)
        ],
    )
    days = (await speeds.by_day(database, [MODEL]))[MODEL]
    assert [each.day for each in days] == [today - timedelta(days=back) for back in range(6, -1, -1)]
    assert [each.speed.requests for each in days] == [1, 0, 0, 0, 1, 0, 1]
    assert days[0].speed.first_token_p50_us == pytest.approx(7000, rel=WITHIN)
    assert (await speeds.lately(database, [MODEL]))[MODEL].requests == 3
    assert (await speeds.by_day(database, ["no/such"]))["no/such"][0].speed == speeds.NOTHING


async def test_the_book_has_what_was_counted_until_it_was_read_and_old_counts_go(
    make: Make, journal: Journal, shipper: Shipper, database: asyncpg.Pool
) -> None:
    book = SpeedBook()
    await book.load(database)
    assert book.of(MODEL) == speeds.NOTHING
    await ship(journal, shipper, [streamed(make)])
    assert book.of(MODEL) == speeds.NOTHING
    await book.load(database)
    assert book.of(MODEL).requests == 1
    async with database.acquire() as connection:
        await speeds.tidy(connection, datetime.now(UTC).date() + speeds.KEEP + timedelta(days=1))
    assert await database.fetchval("select count(*) from billing.speed_day") == 0


async def test_putting_past_days_together_changes_no_answer(
    make: Make, journal: Journal, shipper: Shipper, database: asyncpg.Pool
) -> None:
    await ship(journal, shipper, [streamed(make, first_token_us=us) for us in (1000, 1000, 5000)])
    await database.execute(
        "insert into billing.speed_day select model, day, measure, bucket, 9, 7 * requests "
        "from billing.speed_day"
    )
    before = await speeds.by_day(database, [MODEL])
    tomorrow = datetime.now(UTC).date() + timedelta(days=1)
    async with database.acquire() as connection:
        for _ in range(2):
            await speeds.tidy(connection, tomorrow)
    assert await speeds.by_day(database, [MODEL]) == before
    assert before[MODEL][-1].speed.requests == 24
    assert await database.fetchval("select count(*) from billing.speed_day where shard <> 0") == 0


async def test_the_questions_never_touch_events(database: asyncpg.Pool) -> None:
    today = datetime.now(UTC).date()
    sql = speeds.SQL
    for query, arguments in (
        (f"{sql['lately']}\n{sql['quantiles']}", (today,)),
        (f"{sql['lately_of']}\n{sql['quantiles']}", (today, [MODEL])),
        (sql["by_day"], ([MODEL], today, today)),
    ):
        plan = await database.fetch(f"explain {query}", *arguments)
        assert not any("usage_" in row[0] for row in plan)
