"""Hours and days are exact whatever comes late; any window of usage is the sum of its requests."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import asyncpg
import pytest

from penstock_billing import invariants, margins, roll_ups, usage
from penstock_billing.errors import UsageQuestionRefused
from penstock_billing.invariants import Check
from penstock_billing.journal import Journal
from penstock_billing.record import UsageRecord
from penstock_billing.shipper import Shipper
from penstock_billing.usage import Dimension, Question, Step

Make = Callable[..., UsageRecord]
DAY = datetime(2026, 3, 14, tzinfo=UTC)
HOUR = timedelta(hours=1)
MINUTE = timedelta(minutes=1)


def ms(moment: datetime) -> int:
    return int(moment.timestamp() * 1000)


def spread(make: Make, since: datetime, days: float, count: int) -> list[UsageRecord]:
    dice = random.Random(3)
    return [
        make(
            ended_ms=ms(since) + dice.randrange(int(days * 86_400_000)),
            project_id=dice.randrange(1, 4),
            key_id=f"key_{dice.randrange(3)}",
            endpoint=dice.choice(["", "mine"]),
        )
        for _ in range(count)
    ]


async def ship(journal: Journal, shipper: Shipper, records: list[UsageRecord]) -> None:
    for each in records:
        journal.append(each)
    await shipper.ship_once()


async def rows(database: asyncpg.Pool, table: str) -> int:
    count: int = await database.fetchval(f"select count(*) from billing.{table}")
    return count


async def advance(database: asyncpg.Pool, now: datetime) -> roll_ups.Progress:
    async with database.acquire() as connection:
        return await roll_ups.advance(connection, now)


async def check(database: asyncpg.Pool) -> list[invariants.Difference]:
    async with database.acquire() as connection:
        return await invariants.check(connection)


async def test_hours_and_days_are_closed_once_they_ended(
    database: asyncpg.Pool, journal: Journal, shipper: Shipper, make: Make
) -> None:
    await ship(journal, shipper, spread(make, DAY, 2.5, 200))
    now = DAY + timedelta(days=2, hours=7, minutes=3)
    done = await advance(database, now)
    assert done.finished
    # Seven o'clock is over since three minutes only: it is closed a little later.
    assert done.marks == roll_ups.Marks(DAY + timedelta(days=2, hours=6), DAY + timedelta(days=2))
    assert await database.fetchval("select max(hour) from billing.usage_hour") < done.marks.hours_until
    assert await check(database) == []
    hours = await rows(database, "usage_hour")
    assert hours == done.hours
    again = await advance(database, now)
    assert (again.hours, again.days, again.marks) == (0, 0, done.marks)
    assert await rows(database, "usage_hour") == hours


async def test_a_clock_that_goes_back_takes_nothing_back(
    database: asyncpg.Pool, journal: Journal, shipper: Shipper, make: Make
) -> None:
    await ship(journal, shipper, spread(make, DAY, 1, 20))
    done = await advance(database, DAY + timedelta(days=3))
    again = await advance(database, DAY)
    assert again.marks == done.marks
    assert await check(database) == []


async def test_what_comes_late_is_in_its_hour_and_day_at_once(
    database: asyncpg.Pool, journal: Journal, shipper: Shipper, make: Make
) -> None:
    await ship(journal, shipper, spread(make, DAY, 2, 60))
    await advance(database, DAY + timedelta(days=3))
    # Into hours that have rows, hours that had none, and days before the first one.
    await ship(journal, shipper, spread(make, DAY - timedelta(days=2), 5, 60))
    assert await check(database) == []
    assert await rows(database, "usage_day")


async def test_weeks_of_absence_are_caught_up_step_by_step(
    database: asyncpg.Pool, journal: Journal, shipper: Shipper, make: Make
) -> None:
    first = spread(make, DAY, 1, 30)
    await ship(journal, shipper, first + spread(make, DAY + timedelta(days=40), 1, 30))
    now = DAY + timedelta(days=45)
    async with database.acquire() as connection:
        made = await roll_ups.step(connection, now)
        # The empty years before are passed over, up to the first use, and nothing is closed without its mark.
        assert made.marks.hours_until == roll_ups.whole(
            datetime.fromtimestamp(min(each.ended_ms for each in first) / 1000, UTC), HOUR
        )
        steps = 1
        while not made.finished:
            assert await invariants.check(connection) == []
            made = await roll_ups.step(connection, now)
            steps += 1
    assert steps < 30
    assert await check(database) == []
    assert await database.fetchval("select sum(requests) from billing.usage_day") == 60


async def test_controllers_that_close_while_others_ship_agree(
    database: asyncpg.Pool, database_url: str, journal: Journal, shipper: Shipper, make: Make
) -> None:
    await ship(journal, shipper, spread(make, DAY, 3, 300))
    for each in spread(make, DAY, 4, 1500):
        journal.append(each)

    async def close() -> None:
        async with database.acquire() as connection:
            for hours in range(0, 96, 7):
                await roll_ups.advance(connection, DAY + timedelta(hours=hours))

    await asyncio.gather(shipper.ship_once(), close(), close())
    await advance(database, DAY + timedelta(days=6))
    assert await check(database) == []
    assert await database.fetchval("select sum(requests) from billing.usage_day") == 1800


async def test_nothing_used_leaves_nothing_to_close(database: asyncpg.Pool) -> None:
    done = await advance(database, DAY)
    assert (done.hours, done.days, done.finished) == (0, 0, True)
    assert done.marks.days_until == DAY - timedelta(days=1)


@pytest.mark.parametrize("closed_hours", [0, 30, 96])
async def test_every_window_and_division_is_the_sum_of_its_requests(
    database: asyncpg.Pool, journal: Journal, shipper: Shipper, make: Make, closed_hours: int
) -> None:
    records = spread(make, DAY, 4, 400)
    await ship(journal, shipper, records[:300])
    await advance(database, DAY + timedelta(hours=closed_hours, minutes=6))
    await ship(journal, shipper, records[300:])
    dice = random.Random(11)
    # Windows within one hour, across hours, across days, and whole ones.
    edges = [DAY, DAY + timedelta(days=1), DAY + timedelta(days=4), DAY + HOUR * 5, DAY + HOUR * 6]
    edges += [DAY + MINUTE * dice.randrange(4 * 1440) for _ in range(6)]
    for since in edges:
        for until in edges:
            if since > until:
                continue
            mine = [
                each
                for each in records
                if each.organisation_id == 1 and ms(since) <= each.ended_ms < ms(until)
            ]
            for step in Step:
                by = frozenset(dice.sample(list(Dimension), dice.randrange(5)))
                question = Question(organisation_id=1, since=since, until=until, step=step, by=by)
                lines = await usage.read(database, question)
                assert sum(line.cost_nano_usd for line in lines) == sum(each.cost_nano_usd for each in mine)
                assert sum(line.requests + line.failed_requests for line in lines) == len(mine)
                assert sum(line.output_tokens for line in lines) == sum(
                    each.output_tokens for each in mine if each.outcome.billable
                )
                names = [tuple(usage.parts(question, line).items()) for line in lines]
                assert len(set(names)) == len(names)
                assert all(line.at is None or since - timedelta(days=1) < line.at < until for line in lines)


@pytest.mark.parametrize("closed_hours", [0, 30, 96])
async def test_what_all_tenants_paid_is_the_sum_of_their_requests(
    database: asyncpg.Pool, journal: Journal, shipper: Shipper, make: Make, closed_hours: int
) -> None:
    records = spread(make, DAY, 4, 300)
    assert len({each.model for each in records}) > 1
    assert len({each.organisation_id for each in records}) > 1
    await ship(journal, shipper, records[:200])
    await advance(database, DAY + timedelta(hours=closed_hours, minutes=6))
    await ship(journal, shipper, records[200:])
    assert await check(database) == []
    for since in (DAY, DAY + timedelta(days=1), DAY + 31 * HOUR):
        for until in (DAY + timedelta(days=4), *(DAY + 401 * n * MINUTE for n in range(5, 14))):
            mine = [each for each in records if ms(since) <= each.ended_ms < ms(until)]
            models, payers = Counter[str](), Counter[int]()
            for each in mine:
                models[each.model] += each.cost_nano_usd
                payers[each.organisation_id] += each.cost_nano_usd
            shown = await margins.by_model(database, since, until, lambda kind, at: None)
            assert {each.model: each.earned_nano_usd for each in shown} == models
            assert sum(each.requests for each in shown) == len(mine)
            assert sum(each.tokens for each in shown) == sum(
                each.input_tokens + each.output_tokens for each in mine
            )
            paid = await margins.by_organisation(database, since, until)
            assert paid == payers
            assert list(paid.values()) == sorted(paid.values(), reverse=True)


async def test_lines_are_told_apart_and_narrowed_as_asked(
    database: asyncpg.Pool, journal: Journal, shipper: Shipper, make: Make
) -> None:
    records = [each for each in spread(make, DAY, 2, 200) if each.organisation_id == 1]
    await ship(journal, shipper, records)
    await advance(database, DAY + timedelta(days=3))
    whole = {"organisation_id": 1, "since": DAY, "until": DAY + timedelta(days=2)}
    by_key = await usage.read(database, Question(**whole, by=frozenset({Dimension.KEY, Dimension.ENDPOINT})))
    for line in by_key:
        mine = [each for each in records if (each.key_id, each.endpoint) == (line.key_id, line.endpoint)]
        assert line.cost_nano_usd == sum(each.cost_nano_usd for each in mine)
        assert line.model is line.project_id is line.at is None
    for name in ("project_id", "key_id", "model", "endpoint"):
        value = getattr(records[0], name)
        (line,) = await usage.read(database, Question(**whole, **{name: value}))
        mine = [each for each in records if getattr(each, name) == value]
        assert line.cost_nano_usd == sum(each.cost_nano_usd for each in mine)


@pytest.mark.parametrize(
    "changes",
    [
        {"since": DAY + timedelta(seconds=1)},
        {"until": DAY.replace(tzinfo=None)},
        {"since": DAY + timedelta(days=2)},
    ],
)
def test_a_window_that_is_not_whole_minutes_is_refused(changes: dict[str, datetime]) -> None:
    window = {"since": DAY, "until": DAY + timedelta(days=1)} | changes
    with pytest.raises(UsageQuestionRefused):
        Question(organisation_id=1, **window)


async def test_an_answer_tells_how_fresh_it_is(
    database: asyncpg.Pool, journal: Journal, shipper: Shipper, make: Make
) -> None:
    before = await usage.freshness(database, 1)
    assert before.latest_minute is None
    moment = DAY + timedelta(hours=3, minutes=7, seconds=12)
    await ship(journal, shipper, [make(organisation_id=1, ended_ms=ms(moment))])
    fresh = await usage.freshness(database, 1)
    assert fresh.as_of > before.as_of
    assert fresh.latest_minute == DAY + timedelta(hours=3, minutes=7)


@pytest.mark.parametrize(
    ("table", "level", "named"),
    [
        ("usage_minute", "minute", Check.ROLL_UPS_ARE_SUMS),
        ("usage_hour", "hour", Check.HOURS_ARE_SUMS),
        ("usage_day", "day", Check.DAYS_ARE_SUMS),
        ("earned_hour", "hour", Check.EARNED_IS_USAGE),
    ],
)
async def test_a_sum_that_was_tampered_with_is_named_where_it_is(
    database: asyncpg.Pool,
    journal: Journal,
    shipper: Shipper,
    make: Make,
    table: str,
    level: str,
    named: Check,
) -> None:
    await ship(journal, shipper, spread(make, DAY, 2, 50))
    await advance(database, DAY + timedelta(days=3))
    async with database.acquire() as connection:
        await connection.execute(
            f"update billing.{table} set requests = requests + 1 where ctid = "
            f"(select ctid from billing.{table} where {level} >= $1 limit 1)",
            DAY + timedelta(days=1),
        )
        window = frozenset(invariants.WINDOWED)
        quiet = await invariants.check(connection, window, since=DAY, until=DAY + timedelta(days=1))
        assert quiet == []
        found = await invariants.check(connection, window, since=DAY + timedelta(days=1))
        assert named in {each.check for each in found}
