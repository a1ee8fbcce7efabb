"""A journal, prices and records that fit together, and a PostgreSQL that a test may hurt."""

from __future__ import annotations

import asyncio
import contextlib
import random
import shutil
import signal
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path

import asyncpg
import pytest

from penstock.local import postgres
from penstock_base import migrations
from penstock_billing import invariants, prices, rating
from penstock_billing.journal import Journal
from penstock_billing.prices import Offer, PriceVersion
from penstock_billing.record import Outcome, UsageRecord
from penstock_billing.shipper import Shipper
from penstock_billing.testing import usage_record

OFFERS = [
    Offer("penstock/demo-chat", 150_000, 75_000, 600_000),
    # Fractions of a nano-dollar, so that rounding shows.
    Offer("penstock/demo-embed", 18_750, 8_750, 0),
]


@pytest.fixture
async def price_list(database: asyncpg.Pool) -> list[PriceVersion]:
    async with database.acquire() as connection:
        return await prices.sync_list(connection, OFFERS)


@pytest.fixture
def make(price_list: list[PriceVersion]) -> Callable[..., UsageRecord]:
    """Make a record whose cost follows from its tokens and one of the listed prices."""
    dice = random.Random(7)

    def one(**changes: object) -> UsageRecord:
        price = dice.choice(price_list)
        input_tokens = dice.randrange(5000)
        tokens: dict[str, object] = {
            "input_tokens": input_tokens,
            "cached_tokens": dice.randrange(input_tokens + 1),
            "output_tokens": dice.randrange(800),
            "organisation_id": dice.randrange(1, 5),
            "outcome": dice.choice(list(Outcome)),
            "model": price.model,
            "price_version": price.id,
        }
        record = usage_record(**(tokens | changes))
        return usage_record(**(tokens | changes | {"cost_nano_usd": rating.rerate(record, price)}))

    return one


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "journal"


@pytest.fixture
def journal(folder: Path) -> Iterator[Journal]:
    with contextlib.closing(Journal(folder)) as opened:
        yield opened


@pytest.fixture
async def shipper(database_url: str, journal: Journal) -> AsyncIterator[Shipper]:
    one = Shipper(database_url, journal.folder, journal)
    yield one
    await one.close()


@pytest.fixture
def expect(database: asyncpg.Pool) -> Callable[[list[UsageRecord]], Awaitable[None]]:
    """Assert that just these records are in the database, each once, and that every sum agrees."""

    async def check(records: list[UsageRecord]) -> None:
        async with database.acquire() as connection:
            assert await invariants.check(connection) == []
            rows = await connection.fetch("select event_id, cost_nano_usd from billing.usage_event")
            revenue = await connection.fetchval(
                "select coalesce(-sum(posted_nano_usd), 0) from billing.account where kind = 'revenue'"
            )
        assert {row["event_id"].bytes: row["cost_nano_usd"] for row in rows} == {
            each.event_id: each.cost_nano_usd for each in records
        }
        assert len(rows) == len(records)
        assert revenue == sum(each.cost_nano_usd for each in records)

    return check


class HurtablePostgres:
    """A PostgreSQL of one test's own, to be stopped as a power cut would and started again."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._server: postgres.Postgres | None = None

    @property
    def url(self) -> str:
        assert self._server is not None
        return self._server.url

    async def start(self) -> None:
        self._server = await postgres.start(self._folder)

    async def stop_at_once(self) -> None:
        """Stop as `immediate`: no checkpoint, every session cut; the next start recovers."""
        if self._server is not None:
            await self._server.child.stop(with_signal=signal.SIGQUIT, patience_s=15)
            self._server = None


@pytest.fixture
async def hurtable_postgres() -> AsyncIterator[HurtablePostgres]:
    """Started and migrated for billing."""
    folder = Path(tempfile.mkdtemp(prefix="penstock-test-"))
    server = HurtablePostgres(folder / "postgres")
    await server.start()
    connection = await asyncpg.connect(server.url)
    await migrations.apply(connection, migrations.read("billing", "penstock_billing"))
    await connection.close()
    yield server
    await server.stop_at_once()
    shutil.rmtree(folder)


@pytest.fixture
def until() -> Callable[[Callable[[], Awaitable[bool]]], Awaitable[None]]:
    """Wait for a state, at most 20 s."""

    async def wait(holds: Callable[[], Awaitable[bool]]) -> None:
        deadline_s = time.monotonic() + 20
        while not await holds():
            assert time.monotonic() < deadline_s, "it did not come to pass within 20 s"
            await asyncio.sleep(0.02)

    return wait
