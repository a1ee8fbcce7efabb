"""The `penstock` command over a real database."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import asyncpg
import msgspec
import pytest
from click.testing import CliRunner, Result

from penstock.access import keys
from penstock.cli import main
from penstock_billing import prices, rating, shipping
from penstock_billing.journal import Journal
from penstock_billing.prices import Offer
from penstock_billing.record import Funding, UsageRecord
from penstock_billing.testing import usage_record

Command = Callable[..., Awaitable[Result]]


@pytest.fixture
def penstock(database_url: str, tmp_path: Path) -> Command:
    """Run a command as on a screen of `columns`; `fails` says which status is expected."""

    async def run(*arguments: str, columns: int = 120, status: int = 0) -> Result:
        env = {
            "PENSTOCK_HOME": str(tmp_path),
            "PENSTOCK_DATABASE_URL": database_url,
            "PENSTOCK_REDIS_URL": f"unix://{tmp_path}/nobody.sock",
            "PENSTOCK_KEY_PEPPER": "70" * 32,
            "COLUMNS": str(columns),
            "TERM": "dumb",
        }
        # In a thread: a command has an event loop of its own.
        result = await asyncio.to_thread(CliRunner().invoke, main, list(arguments), env=env)
        assert result.exit_code == status, (arguments, result.output, result.exception)
        return result

    return run


@pytest.fixture
def asked(penstock: Command) -> Callable[..., Awaitable[Any]]:
    """What a command says with --json."""

    async def run(*arguments: str) -> Any:
        return msgspec.json.decode((await penstock(*arguments, "--json")).stdout)

    return run


@pytest.fixture
async def acme(database: asyncpg.Pool) -> int:
    """An organisation with a key in its project `web`."""
    async with database.acquire() as connection:
        await keys.create(connection, b"p" * 32, name="a key", organisation="acme", project="web")
        return await keys.find_organisation(connection, "acme")


@pytest.fixture
def use(database: asyncpg.Pool, tmp_path: Path) -> Callable[..., Awaitable[list[UsageRecord]]]:
    """Record and ship requests that cost as many nano-dollars as asked."""

    async def run(
        organisation_id: int,
        *costs_nano_usd: int,
        funding: Funding = Funding.POSTPAID,
        wallet: int = 0,
        model: str = "penstock/demo-chat",
    ) -> list[UsageRecord]:
        journal = Journal(tmp_path / "journal", reserve_bytes=1 << 14)
        async with database.acquire() as connection:
            listed = await prices.sync_list(connection, [Offer("penstock/demo-chat", 1_000, 1_000, 1_000)])
            price = listed[0] if listed else await _price(connection)
            made = []
            for cost in costs_nano_usd:
                record = usage_record(
                    organisation_id=organisation_id,
                    model=model,
                    price_version=price.id if hasattr(price, "id") else price,
                    input_tokens=cost,
                    cached_tokens=0,
                    output_tokens=0,
                    reasoning_tokens=0,
                    cost_nano_usd=cost,
                    funding=funding,
                    wallet_project_id=wallet,
                )
                assert not listed or rating.rerate(record, price) == cost
                journal.append(record)
                made.append(record)
            await shipping.prepare(connection)
            await shipping.ship(connection, journal.name, journal.path)
        journal.close()
        return made

    async def _price(connection: asyncpg.Connection) -> Any:
        return await connection.fetchval("select max(id) from billing.price_version")

    return run
