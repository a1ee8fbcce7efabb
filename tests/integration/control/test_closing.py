"""The controller's loop that closes hours goes on whatever happens to it."""

from __future__ import annotations

import asyncio
import contextlib

import asyncpg
import pytest

from penstock.control import closing
from penstock_billing import roll_ups
from penstock_billing.testing import usage_record

LONG_AGO_MS = 1_773_482_700_000


async def closed(database: asyncpg.Pool, rows: int) -> None:
    async with asyncio.timeout(30):
        while await database.fetchval("select count(*) from billing.usage_day") < rows:  # noqa: ASYNC110
            await asyncio.sleep(0.01)


async def test_hours_and_days_are_closed_as_they_end_and_trouble_is_survived(
    database: asyncpg.Pool, caplog: pytest.LogCaptureFixture
) -> None:
    one = usage_record(ended_ms=LONG_AGO_MS)
    await database.execute(
        "insert into billing.usage_minute (organisation_id, minute, project_id, key_id, model, "
        "price_version, outcome, requests, input_tokens, cached_tokens, output_tokens, reasoning_tokens, "
        "cost_nano_usd) "
        "select 1, to_timestamp($1::bigint / 1000), 1, 'k', $2, 1, 'done', 1, 1, 0, 1, 0, 1",
        one.ended_ms,
        one.model,
    )
    async with database.acquire() as blocker:
        # A shipper that hangs: nobody waits behind us for long, and later it works.
        lock = "7306001203"
        await blocker.execute(f"select pg_advisory_lock_shared({lock})")
        loop = asyncio.create_task(closing.close_hours(database, every_s=0.02))
        async with asyncio.timeout(30):
            while "hours are not closed" not in caplog.text:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        await blocker.execute(f"select pg_advisory_unlock_shared({lock})")
        await closed(database, 1)
    async with database.acquire() as connection:
        assert (await roll_ups.marks(connection)).days_until.year >= 2026
    loop.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await loop
