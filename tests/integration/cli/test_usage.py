"""`penstock usage`: the numbers of the ledger, divided as asked."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import asyncpg
import pytest

from penstock_base import money
from penstock_billing import intervals, minutes
from penstock_billing.intervals import IntervalKind, Subject

Command = Callable[..., Awaitable[Any]]


async def test_it_is_what_was_charged_however_it_is_divided(
    penstock: Command, asked: Command, acme: int, use: Command
) -> None:
    made = await use(acme, 1_000, 20_000)
    total = sum(one.cost_nano_usd for one in made)
    for division in ("day,model", "key,project", "hour,endpoint", "minute", ""):
        lines = await asked("usage", "--organisation", "acme", "--since", today(made), "--by", division)
        assert sum(line["cost_nano_usd"] for line in lines) == total
    (line,) = await asked("usage", "--organisation", "acme", "--by", "key")
    assert line["key_id"] == made[0].key_id
    shown = (await penstock("usage", "--organisation", "acme", columns=140)).stdout
    assert money.nano_to_usd(total) in shown
    assert "As of " in shown
    assert await asked("usage", "--organisation", "acme", "--key", "another") == []


def today(made: list[Any]) -> str:
    return f"{datetime.fromtimestamp(made[0].ended_ms / 1000, UTC):%Y-%m-%d}"


@pytest.mark.parametrize(
    ("arguments", "status", "says"),
    [
        (("--organisation", "nobody"), 1, "nobody"),
        (("--organisation", "acme", "--since", "soon"), 2, "write a day as 2026-11-21"),
        (("--organisation", "acme", "--until", "9999-12-31"), 2, "write a day"),
        (("--organisation", "acme", "--since", "2026-11-02", "--until", "2026-11-01"), 2, "must be before"),
        (("--organisation", "acme", "--by", "colour"), 2, "it may have day, hour, minute, model"),
        (("--organisation", "acme", "--project", "web"), 2, "a project's number"),
    ],
)
async def test_what_makes_no_sense_is_refused_in_a_sentence(
    penstock: Command, acme: int, arguments: tuple[str, ...], status: int, says: str
) -> None:
    result = await penstock("usage", *arguments, status=status)
    assert says in result.output
    assert "Traceback" not in result.output


async def test_minutes_of_endpoints_stand_beside_requests(
    penstock: Any, asked: Any, acme: int, database: asyncpg.Pool
) -> None:
    assert "None were charged" in (await penstock("usage", "--organisation", "acme", "--minutes")).output
    subject = Subject(
        kind=IntervalKind.ENDPOINT,
        id="1",
        priced_as="serverless",
        organisation_id=acme,
        project_id=1,
        model="penstock/demo-chat",
        endpoint="front-desk",
    )
    async with database.acquire() as connection:
        await connection.execute(
            "insert into billing.minute_price_version (kind, subject, nano_usd_per_minute, valid_from)"
            " values ('endpoint', 'serverless', 100000, clock_timestamp())"
        )
        await intervals.open_interval(connection, subject, datetime.now(UTC), holder=None)
        # As if it were ten minutes later: what is charged begins after the price.
        await minutes.accrue(connection, datetime.now(UTC) + timedelta(minutes=10))
    (line,) = await asked("usage", "--organisation", "acme", "--minutes")
    assert (line["endpoint"], line["minutes"], line["cost_nano_usd"]) == ("front-desk", 10, 1_000_000)
    for columns in (80, 140):
        shown = await penstock("usage", "--organisation", "acme", columns=columns)
        assert "Besides: minutes" in shown.output
        assert "0.001000000" in shown.output
        assert max(map(len, shown.output.splitlines())) <= columns
