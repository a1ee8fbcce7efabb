"""`penstock billing` beside the controller: closing, checking, filing, bringing back."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from penstock.control import filing
from penstock.settings import Settings, read
from penstock_billing import partitions, prices, shipping
from penstock_billing.journal import Journal
from penstock_billing.prices import Offer
from penstock_billing.testing import usage_record

Command = Callable[..., Awaitable[Any]]
MOMENT = datetime(2026, 3, 14, 10, 5, tzinfo=UTC)


@pytest.fixture
async def used(database: asyncpg.Pool, tmp_path: Path) -> None:
    """Requests of one old day, in its partition."""
    journal = Journal(tmp_path / "journal")
    async with database.acquire() as connection:
        (price,) = await prices.sync_list(connection, [Offer("m", 1, 1, 1)])
    for minutes in range(20):
        ended_ms = int(MOMENT.timestamp() * 1000) + minutes * 600_000
        journal.append(usage_record(ended_ms=ended_ms, model="m", price_version=price.id, cost_nano_usd=0))
    async with database.acquire() as connection:
        await shipping.prepare(connection)
        await shipping.ship(connection, journal.name, journal.path)
        await partitions.settle(connection)
    journal.close()


async def test_hours_are_closed_and_everything_agrees(penstock: Command, used: None) -> None:
    said = (await penstock("billing", "roll-up")).stdout
    assert "days until" in said
    assert "Everything agrees" in (await penstock("billing", "check", "--since", "2026-03-14")).stdout


async def test_a_difference_is_named_and_ends_with_status_1(
    penstock: Command, database: asyncpg.Pool, used: None
) -> None:
    await database.execute("update billing.usage_minute set requests = requests + 1")
    said = (await penstock("billing", "check", status=1)).stdout
    assert "roll ups are sums" in said
    assert "20 differences" in said


async def test_a_day_is_exported_listed_and_restored(
    penstock: Command, asked: Command, database: asyncpg.Pool, used: None, tmp_path: Path
) -> None:
    assert "No events are in files" in (await penstock("billing", "archives")).stdout
    (made,) = await asked("billing", "export")
    assert (made["day"], made["events"]) == ("2026-03-14", 20)
    assert (tmp_path / "archive" / made["file"]).is_file()
    assert "Nothing to move" in (await penstock("billing", "export")).stdout
    assert await database.fetchval("select count(*) from billing.usage_event") == 0
    assert "the file" in (await penstock("billing", "archives")).stdout
    await penstock("billing", "check")
    assert "the database again" in (await penstock("billing", "restore", "2026-03-14")).stdout
    assert await database.fetchval("select count(*) from billing.usage_event") == 20


@pytest.mark.parametrize(
    ("arguments", "status", "says"),
    [
        (("export", "2026-03-14"), 1, "no events of 2026-03-14"),
        (("export", f"{datetime.now(UTC):%Y-%m-%d}"), 1, "stay in the database for 3 days"),
        (("restore", "2026-03-14"), 1, "no events of 2026-03-14 are in a file only"),
        (("restore",), 2, "Missing argument"),
        (("restore", "yesterday"), 2, "yesterday"),
        (("export", "9999-12-31"), 1, "stay in the database"),
        (("check", "--since", "2026-03-15", "--until", "2026-03-14"), 2, "after --until"),
        (("check", "--until", "9999-12-31"), 0, "agrees"),
    ],
)
async def test_what_cannot_be_done_is_said_in_a_sentence(
    penstock: Command, arguments: tuple[str, ...], status: int, says: str
) -> None:
    result = await penstock("billing", *arguments, status=status)
    assert says in result.output
    assert "Traceback" not in result.output


async def test_the_controller_files_what_is_older_than_the_retention(
    database: asyncpg.Pool, database_url: str, used: None, tmp_path: Path
) -> None:
    def told(days: str) -> Settings:
        return read(
            {
                "PENSTOCK_HOME": str(tmp_path),
                "PENSTOCK_DATABASE_URL": database_url,
                "PENSTOCK_REDIS_URL": "unix:///nobody",
                "PENSTOCK_EVENTS_RETENTION_DAYS": days,
            }
        )

    assert await filing.file_due(told("3650")) == []
    (made,) = await filing.file_due(told("30"))
    assert made.events == 20
    assert await filing.file_due(told("30")) == []


@pytest.fixture
async def lost_gateway(database: asyncpg.Pool) -> str:
    """A process of a machine that is gone, which held a dollar."""
    boot = "ab" * 16
    async with database.acquire() as connection, connection.transaction():
        await connection.execute(
            "insert into billing.gateway_boot (boot_id, host, seen_at) "
            "values ($1, 'gone', now() - interval '1 hour')",
            boot,
        )
        await connection.execute(
            "insert into billing.lease (boot_id, organisation_id, project_id, granted_nano_usd, "
            "promotional_granted_nano_usd, settled_nano_usd, expires_at) "
            "values ($1, 1, 0, 1000000000, 0, 250000000, now())",
            boot,
        )
    return boot


async def test_a_lost_machine_is_given_up_by_hand(
    penstock: Command, asked: Command, database: asyncpg.Pool, lost_gateway: str
) -> None:
    (told,) = await asked("billing", "gateways")
    assert (told["boot_id"], told["host"], told["lent_nano_usd"]) == (lost_gateway, "gone", 750_000_000)
    shown = (await penstock("billing", "gateways", columns=80)).stdout
    assert max(len(line) for line in shown.splitlines() if "│" in line) <= 80
    assert "penstock billing settle HOST" in shown
    assert "0.75" in (await penstock("billing", "settle", "gone", "--yes")).stdout
    assert await asked("billing", "gateways") == []
    settled = "select settled_at is not null from billing.gateway_boot where boot_id = $1"
    assert await database.fetchval(settled, lost_gateway)


async def test_a_process_that_lives_or_is_unknown_is_not_given_up(
    penstock: Command, database: asyncpg.Pool, lost_gateway: str
) -> None:
    await database.execute("update billing.gateway_boot set seen_at = now()")
    for name, says in (("gone", "stop it first"), (lost_gateway, "stop it first"), ("other", "lists them")):
        refused = await penstock("billing", "settle", name, "--yes", status=1)
        assert says in refused.stderr
    assert await database.fetchval("select count(*) from billing.gateway_boot where settled_at is null") == 1
