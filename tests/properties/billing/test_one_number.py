"""Any order of appending, shipping, replaying, doubling, cutting and racing ends in one number."""

from __future__ import annotations

import asyncio
import contextlib
import tempfile
from datetime import UTC, datetime
from pathlib import Path

import asyncpg
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from penstock_base import ids
from penstock_billing import frames, invariants, prices, rating, record, shipping, usage
from penstock_billing.journal import Journal
from penstock_billing.prices import Offer, PriceVersion
from penstock_billing.record import Outcome, UsageRecord
from penstock_billing.testing import usage_record

OFFERS = [Offer("a", 150_000, 75_000, 600_000), Offer("b", 18_750, 8_750, 500), Offer("free", 0, 0, 0)]

request = st.fixed_dictionaries(
    {
        "organisation_id": st.integers(1, 3),
        "project_id": st.integers(1, 2),
        "input_tokens": st.integers(0, 50),
        "cached_tokens": st.just(0),
        "output_tokens": st.integers(0, 50),
        "outcome": st.sampled_from(Outcome),
        # Around two midnights, long ago: days with and without a partition of their own.
        "ended_ms": st.sampled_from([1_767_225_599_999, 1_767_225_600_000, 1_767_312_000_000]),
    }
)
limit = st.integers(1, 5)
step = st.one_of(
    st.tuples(st.just("append"), st.lists(request, min_size=1, max_size=6)),
    st.tuples(st.just("append again"), st.integers(0, 5)),
    st.tuples(st.just("rotate"), st.none()),
    st.tuples(st.just("ship"), limit),
    st.tuples(st.just("race"), limit),
    st.tuples(st.just("roll back"), limit),
    st.tuples(st.just("forget cursors"), st.none()),
    st.tuples(st.just("copy the file"), st.none()),
)


class World:
    """A journal folder and a database, and what should be in it."""

    def __init__(
        self, folder: Path, connections: list[asyncpg.Connection], listed: list[PriceVersion]
    ) -> None:
        self.journal = Journal(folder, reserve_bytes=1 << 14)
        self.expected: list[UsageRecord] = []
        self._connections = connections
        self._listed = listed

    async def do(self, name: str, argument: object) -> None:
        match name, argument:
            case "append", list(requests):
                for each in requests:
                    self._append(each)
            case "append again", int(back) if self.expected:
                # A defect upstream: the same record written twice. It still counts once.
                self.journal.append(self.expected[-1 - back % len(self.expected)])
            case "rotate", _:
                self.journal.rotate()
            case "ship", int(frames_max):
                await self._ship(self._connections[0], frames_max)
            case "race", int(frames_max):
                await asyncio.gather(*(self._ship(one, frames_max) for one in self._connections))
            case "roll back", int(frames_max):
                with contextlib.suppress(ZeroDivisionError):
                    async with self._connections[0].transaction():
                        await self._ship(self._connections[0], frames_max)
                        raise ZeroDivisionError
            case "forget cursors", _:
                await self._connections[0].execute("update billing.journal_cursor set shipped_bytes = 0")
            case "copy the file", _:
                # As after a careless restore: the same records under another journal's name.
                copy = (
                    frames.header(ids.uuid7_bytes(), 0)
                    + self.journal.path.read_bytes()[frames.HEADER_BYTES :]
                )
                (self.journal.folder / f"{ids.random_text(8)}.journal").write_bytes(copy)

    async def finish(self) -> None:
        while await self._ship(self._connections[0], 1000):
            pass

    def _append(self, changes: dict[str, object]) -> None:
        price = self._listed[len(self.expected) % len(self._listed)]
        changes = changes | {"model": price.model, "price_version": price.id}
        cost = rating.rerate(usage_record(**changes), price)
        self.expected.append(usage_record(**changes, cost_nano_usd=cost))
        self.journal.append(self.expected[-1])

    async def _ship(self, connection: asyncpg.Connection, frames_max: int) -> int:
        count = 0
        for path in sorted(self.journal.folder.glob("*.journal")):
            name = frames.read_name(path)
            assert name is not None
            count += (await shipping.ship(connection, name, path, limit=frames_max)).frames
        return count


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(step, max_size=25))
async def test_whatever_happens_each_request_counts_once_in_every_sum(
    database: asyncpg.Pool, steps: list[tuple[str, object]]
) -> None:
    async with database.acquire() as one, database.acquire() as two:
        # Each example begins with an empty database.
        await one.execute(
            "set session_replication_role = replica; truncate billing.usage_event, billing.usage_minute, "
            "billing.spend_month, billing.account, billing.entry, billing.ledger_transaction, "
            "billing.journal_cursor cascade; "
            "reset session_replication_role; select billing.ensure_usage_partition('2026-01-01')"
        )
        await prices.sync_list(one, OFFERS)
        listed = [prices.version_of(row) for row in await one.fetch(prices.SQL["all_versions"])]
        for connection in (one, two):
            await shipping.prepare(connection)
        with tempfile.TemporaryDirectory() as folder:
            world = World(Path(folder) / "journal", [one, two], listed)
            with contextlib.closing(world.journal):
                for name, argument in steps:
                    await world.do(name, argument)
                await world.finish()
        assert await invariants.check(one) == []
        await expect_sums(one, world.expected)


async def expect_sums(connection: asyncpg.Connection, expected: list[UsageRecord]) -> None:
    for organisation_id in (1, 2, 3):
        mine = [each for each in expected if each.organisation_id == organisation_id]
        paid = [each for each in mine if each.outcome.billable]
        totals = await usage.totals(
            connection, organisation_id, datetime(2025, 1, 1, tzinfo=UTC), datetime(2027, 1, 1, tzinfo=UTC)
        )
        cost_nano_usd = sum(each.cost_nano_usd for each in mine)
        assert totals == usage.UsageTotals(
            requests=len(paid),
            failed_requests=len(mine) - len(paid),
            input_tokens=sum(each.input_tokens for each in paid),
            cached_tokens=0,
            output_tokens=sum(each.output_tokens for each in paid),
            reasoning_tokens=sum(each.reasoning_tokens for each in paid),
            cost_nano_usd=cost_nano_usd,
        )
        balances = dict(
            await connection.fetch(
                "select kind, posted_nano_usd from billing.account where organisation_id = $1",
                organisation_id,
            )
        )
        assert balances.get("receivable", 0) == -balances.get("revenue", 0) == cost_nano_usd


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
async def test_the_audit_in_sql_prices_as_rating_does(database: asyncpg.Pool, data: st.DataObject) -> None:
    count, pico_usd = st.integers(0, 2**31 - 1), st.integers(0, 10**9)
    input_tokens = data.draw(count)
    price = PriceVersion(
        id=1,
        model="a",
        input_pico_usd=data.draw(pico_usd),
        cached_input_pico_usd=data.draw(pico_usd),
        output_pico_usd=data.draw(pico_usd),
        valid_from=datetime(2026, 1, 1, tzinfo=UTC),
        image_pico_usd=data.draw(pico_usd),
        audio_second_pico_usd=data.draw(pico_usd),
        document_pico_usd=data.draw(pico_usd),
        batch_discount_ppm=data.draw(st.integers(0, 1_000_000)),
    )
    one = usage_record(
        input_tokens=input_tokens,
        cached_tokens=data.draw(st.integers(0, input_tokens)),
        output_tokens=data.draw(count),
        images=data.draw(count),
        audio_ms=data.draw(count),
        documents=data.draw(count),
        batch=data.draw(st.booleans()),
        outcome=data.draw(st.sampled_from(Outcome)),
    )
    assert record.decode(record.encode(one)) == one
    assert rating.rerate(one, price) == await database.fetchval(
        "select billing.cost_nano_usd($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15)",
        one.outcome,
        one.input_tokens,
        one.cached_tokens,
        one.output_tokens,
        one.images,
        one.audio_ms,
        one.documents,
        one.batch,
        price.input_pico_usd,
        price.cached_input_pico_usd,
        price.output_pico_usd,
        price.image_pico_usd,
        price.audio_second_pico_usd,
        price.document_pico_usd,
        price.batch_discount_ppm,
    )
