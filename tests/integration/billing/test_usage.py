from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import asyncpg
import pytest

from penstock_billing import usage
from penstock_billing.journal import Journal
from penstock_billing.record import Outcome, UsageRecord
from penstock_billing.shipper import Shipper
from penstock_billing.usage import Dimension, Question, Step, UsageLine

Make = Callable[..., UsageRecord]
DAY = datetime(2026, 3, 14, tzinfo=UTC)
BOTH_DAYS = (DAY, DAY + timedelta(days=2))


async def by_day_and_model(database: asyncpg.Pool, organisation_id: int) -> list[UsageLine]:
    since, until = BOTH_DAYS
    by = frozenset({Dimension.MODEL})
    return await usage.read(
        database,
        Question(organisation_id=organisation_id, since=since, until=until, step=Step.DAY, by=by),
    )


def ms(moment: datetime) -> int:
    return int(moment.timestamp() * 1000)


@pytest.fixture
async def records(journal: Journal, shipper: Shipper, make: Make) -> list[UsageRecord]:
    """Organisation 1 on both sides of midnight UTC, and organisation 2 at the same time."""
    moments = [DAY, DAY + timedelta(hours=23, minutes=59, seconds=59.999), DAY + timedelta(days=1)]
    made = [
        make(ended_ms=ms(moment), organisation_id=organisation, project_id=project, outcome=outcome)
        for moment in moments
        for organisation in (1, 2)
        for project in (7, 8)
        for outcome in (Outcome.DONE, Outcome.CLIENT_GONE, Outcome.ENGINE_FAILED)
    ]
    for each in made:
        journal.append(each)
    await shipper.ship_once()
    return made


async def test_days_and_models_are_sums_of_requests(
    database: asyncpg.Pool, records: list[UsageRecord]
) -> None:
    rows = await by_day_and_model(database, 1)
    assert {row.at for row in rows} == {DAY, DAY + timedelta(days=1)}
    for row in rows:
        assert row.at is not None
        mine = [
            each
            for each in records
            if each.organisation_id == 1
            and each.model == row.model
            and datetime.fromtimestamp(each.ended_ms / 1000, UTC).date() == row.at.date()
        ]
        paid = [each for each in mine if each.outcome.billable]
        assert (row.requests, row.failed_requests) == (len(paid), len(mine) - len(paid))
        assert row.input_tokens == sum(each.input_tokens for each in paid)
        assert row.cached_tokens == sum(each.cached_tokens for each in paid)
        assert row.output_tokens == sum(each.output_tokens for each in paid)
        assert row.reasoning_tokens == sum(each.reasoning_tokens for each in paid)
        assert row.cost_nano_usd == sum(each.cost_nano_usd for each in mine)
    assert sum(row.requests + row.failed_requests for row in rows) == 18


async def test_totals_are_the_sum_of_the_days(database: asyncpg.Pool, records: list[UsageRecord]) -> None:
    totals = await usage.totals(database, 1, *BOTH_DAYS)
    rows = await by_day_and_model(database, 1)
    for name in usage.UsageTotals.__struct_fields__:
        assert getattr(totals, name) == sum(getattr(row, name) for row in rows)


async def test_the_end_of_a_period_is_not_in_it(database: asyncpg.Pool, records: list[UsageRecord]) -> None:
    first = await usage.totals(database, 1, DAY, DAY + timedelta(days=1))
    assert first.requests + first.failed_requests == 12


async def test_a_project_is_a_part_of_its_organisation(
    database: asyncpg.Pool, records: list[UsageRecord]
) -> None:
    everything = await usage.totals(database, 1, *BOTH_DAYS)
    parts = [await usage.totals(database, 1, *BOTH_DAYS, project_id=project) for project in (7, 8)]
    assert sum(part.cost_nano_usd for part in parts) == everything.cost_nano_usd
    assert {part.requests for part in parts} == {6}


async def test_nobody_sees_anothers_usage(database: asyncpg.Pool, records: list[UsageRecord]) -> None:
    nothing = await usage.totals(database, 3, *BOTH_DAYS)
    assert nothing == usage.UsageTotals(
        requests=0,
        failed_requests=0,
        input_tokens=0,
        cached_tokens=0,
        output_tokens=0,
        reasoning_tokens=0,
        cost_nano_usd=0,
    )
    assert await by_day_and_model(database, 3) == []
    assert await usage.totals(database, 1, *BOTH_DAYS, project_id=9) == nothing


async def test_dashboards_scan_no_events(database: asyncpg.Pool) -> None:
    async with database.acquire() as connection:
        await connection.execute("set enable_seqscan = off")
        plan = await connection.fetch(
            "explain " + usage.SQL["between"],
            1,
            *BOTH_DAYS,
            "day",
            ["model"],
            None,
            None,
            None,
            None,
            100,
            None,
        )
        text = "\n".join(row[0] for row in plan)
        assert "usage_event" not in text
        assert "Seq Scan on usage" not in text
        for index in ("usage_minute_identity", "usage_hour_identity", "usage_day_identity"):
            assert index in text
