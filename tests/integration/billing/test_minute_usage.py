"""Charged minutes by time: divided wherever a window ends, and the same sum however they are divided."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import asyncpg
import pytest

from penstock_billing import intervals, minute_usage, minutes
from penstock_billing.intervals import IntervalKind, Subject
from penstock_billing.usage import Question, Step

MIDNIGHT = datetime(2051, 3, 2, tzinfo=UTC)
"""In the future, because no price begins in the past."""
FEE = 1_234_567
DAY_AROUND = (MIDNIGHT - timedelta(days=1), MIDNIGHT + timedelta(days=1))


def at(minute: float) -> datetime:
    return MIDNIGHT + timedelta(minutes=minute)


@pytest.fixture
async def charged(database: asyncpg.Pool) -> asyncpg.Pool:
    """One endpoint from 100.5 minutes before midnight to 50.5 after it, charged in two goes of any length."""
    await database.execute(
        "insert into billing.minute_price_version"
        " (price_list_id, kind, subject, nano_usd_per_minute, valid_from)"
        " values (1, 'endpoint', 'serverless', $1, $2)",
        FEE,
        at(-9999),
    )
    subject = Subject(
        kind=IntervalKind.ENDPOINT,
        id="1",
        priced_as="serverless",
        organisation_id=7,
        project_id=3,
        model="m",
        endpoint="helper",
    )
    async with database.acquire() as connection:
        await intervals.open_interval(connection, subject, at(-100.5), holder=None)
        await minutes.accrue(connection, at(-90))
        await intervals.close_interval(connection, subject.kind, subject.id, at(50.5), holder=None)
        await minutes.accrue(connection, at(999))
    return database


async def read(
    database: asyncpg.Pool, since: datetime, until: datetime, step: Step = Step.TOTAL, **filters: object
) -> list[tuple[datetime | None, int, int]]:
    question = Question(organisation_id=7, since=since, until=until, step=step, **filters)  # type: ignore[arg-type]
    return [
        (line.at, line.minutes, line.cost_nano_usd) for line in await minute_usage.read(database, question)
    ]


async def test_a_charge_across_midnight_is_in_both_days(charged: asyncpg.Pool) -> None:
    assert await read(charged, *DAY_AROUND) == [(None, 151, 151 * FEE)]
    assert await read(charged, *DAY_AROUND, Step.DAY) == [
        (DAY_AROUND[0], 100, 100 * FEE),
        (MIDNIGHT, 51, 51 * FEE),
    ]


@pytest.mark.parametrize("step", [Step.HOUR, Step.MINUTE])
async def test_finer_steps_sum_to_the_same(charged: asyncpg.Pool, step: Step) -> None:
    lines = await read(charged, *DAY_AROUND, step)
    assert sum(cost for _, _, cost in lines) == 151 * FEE
    if step is Step.MINUTE:
        assert [moment for moment, _, _ in lines] == [at(number) for number in range(-100, 51)]
        assert {count for _, count, _ in lines} == {1}
    else:
        assert [(moment, count) for moment, count, _ in lines] == [
            (at(-120), 40),
            (at(-60), 60),
            (at(0), 51),
        ]


async def test_a_window_inside_a_charge_has_its_minutes_only(charged: asyncpg.Pool) -> None:
    assert await read(charged, at(-10), at(5)) == [(None, 15, 15 * FEE)]
    async with charged.acquire() as connection:
        (line,) = await minutes.charged(connection, 7, at(-10), at(5))
    assert (line.minutes, line.cost_nano_usd) == (15, 15 * FEE)
    assert await read(charged, at(51), at(500)) == []


async def test_filters_hold_and_no_key_has_minutes(charged: asyncpg.Pool) -> None:
    assert await read(charged, *DAY_AROUND, endpoint="helper", project_id=3, model="m")
    for other in ({"endpoint": ""}, {"project_id": 4}, {"model": "n"}, {"key_id": "k"}):
        assert await read(charged, *DAY_AROUND, **other) == []
    assert (
        await minute_usage.read(
            charged, Question(organisation_id=8, since=DAY_AROUND[0], until=DAY_AROUND[1])
        )
        == []
    )
