"""Records in any order, however late and however often, while hours close and days move: the same totals."""

from __future__ import annotations

import contextlib
import itertools
import tempfile
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import asyncpg
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from penstock_base import ids
from penstock_billing import (
    archive,
    frames,
    invariants,
    partitions,
    prices,
    rating,
    roll_ups,
    shipping,
    usage,
)
from penstock_billing.errors import ArchiveRefused
from penstock_billing.journal import Journal
from penstock_billing.prices import Offer, PriceVersion
from penstock_billing.record import Outcome, UsageRecord
from penstock_billing.testing import usage_record
from penstock_billing.usage import Dimension, Question, Step

FIRST = datetime(2026, 1, 1, tzinfo=UTC)
DAYS = [date(2026, 1, 1), date(2026, 1, 2)]
request = st.fixed_dictionaries(
    {
        "organisation_id": st.integers(1, 2),
        "input_tokens": st.integers(0, 50),
        "cached_tokens": st.just(0),
        "outcome": st.sampled_from([Outcome.DONE, Outcome.STALLED]),
        # Both ends of hours and of both days.
        "ended_ms": st.sampled_from([0, 3_599_999, 3_600_000, 86_399_999, 86_400_000, 172_799_999]).map(
            lambda offset_ms: int(FIRST.timestamp() * 1000) + offset_ms
        ),
    }
)
step = st.one_of(
    st.tuples(st.just("use"), st.lists(request, min_size=1, max_size=5)),
    st.tuples(st.just("use and ship"), st.lists(request, min_size=1, max_size=5)),
    st.tuples(st.just("ship"), st.integers(1, 6)),
    st.tuples(st.just("ship again"), st.none()),
    st.tuples(st.just("close"), st.integers(0, 60)),
    st.tuples(st.just("file"), st.sampled_from(DAYS)),
    st.tuples(st.just("restore"), st.sampled_from(DAYS)),
)


class World:
    """A journal, a database, a folder of files, and what was used."""

    def __init__(self, folder: Path, connection: asyncpg.Connection, price: PriceVersion) -> None:
        self.journal = Journal(folder / "journal", reserve_bytes=1 << 14)
        self.used: list[UsageRecord] = []
        self._files = folder / "archive"
        self._connection = connection
        self._price = price

    async def do(self, name: str, argument: object) -> None:
        match name, argument:
            case "use", list(requests):
                for each in requests:
                    self._use(each)
            case "use and ship", list(requests):
                for each in requests:
                    self._use(each)
                await self.do("ship", 1000)
            case "ship", int(limit):
                await shipping.ship(self._connection, self.journal.name, self.journal.path, limit=limit)
            case "ship again", _:
                # As after a careless restore: the same records under another journal's name.
                name = frames.journal_name(ids.uuid7_bytes(), 0)
                await shipping.ship(self._connection, name, self.journal.path)
            case "close", int(hours):
                await roll_ups.advance(self._connection, FIRST + timedelta(hours=hours))
            case "file", date() as day:
                await partitions.settle(self._connection)
                with contextlib.suppress(ArchiveRefused):
                    await archive.file_day(self._connection, self._files, day)
            case "restore", date() as day:
                with contextlib.suppress(ArchiveRefused):
                    await archive.restore(self._connection, self._files, day)

    def _use(self, changes: dict[str, object]) -> None:
        changes = changes | {"model": self._price.model, "price_version": self._price.id}
        cost_nano_usd = rating.rerate(usage_record(**changes), self._price)
        self.used.append(usage_record(**changes, cost_nano_usd=cost_nano_usd))
        self.journal.append(self.used[-1])


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=40)
@given(st.lists(step, max_size=20))
async def test_totals_are_those_of_the_requests_whatever_moves_meanwhile(
    database: asyncpg.Pool, steps: list[tuple[str, object]]
) -> None:
    async with database.acquire() as connection:
        await empty(connection)
        (price,) = await prices.sync_list(connection, [Offer("m", 150_000, 75_000, 600_000)]) or [
            prices.version_of(row) for row in await connection.fetch(prices.SQL["all_versions"])
        ]
        await shipping.prepare(connection)
        with tempfile.TemporaryDirectory() as folder:
            world = World(Path(folder), connection, price)
            with contextlib.closing(world.journal):
                for name, argument in steps:
                    await world.do(name, argument)
                    assert await invariants.check(connection) == []
                await world.do("ship", 1000)
                assert await invariants.check(connection) == []
                await expect(connection, world.used)
                for day in DAYS:
                    await world.do("restore", day)
                assert await invariants.check(connection) == []
        found = await connection.fetch("select event_id from billing.usage_event")
        assert sorted(row["event_id"].bytes for row in found) == sorted(each.event_id for each in world.used)


async def expect(connection: asyncpg.Connection, used: list[UsageRecord]) -> None:
    """Any division of any window is what its requests cost."""
    edges = [FIRST + timedelta(hours=hours) for hours in (0, 1, 24, 48)]
    for since, until in itertools.pairwise(edges):
        mine = [
            each
            for each in used
            if each.organisation_id == 1
            and since.timestamp() * 1000 <= each.ended_ms < until.timestamp() * 1000
        ]
        for unit in (Step.TOTAL, Step.DAY, Step.HOUR):
            by = frozenset({Dimension.MODEL})
            question = Question(organisation_id=1, since=since, until=until, step=unit, by=by)
            lines = await usage.read(connection, question)
            assert sum(line.cost_nano_usd for line in lines) == sum(each.cost_nano_usd for each in mine)
            assert sum(line.requests + line.failed_requests for line in lines) == len(mine)


async def empty(connection: asyncpg.Connection) -> None:
    """Each example begins with no usage, no files, and hours that are open."""
    await connection.execute(
        "set session_replication_role = replica; truncate billing.usage_event, billing.usage_minute, "
        "billing.usage_hour, billing.usage_day, billing.earned_hour, billing.spend_month, billing.account, "
        "billing.entry, billing.ledger_transaction, billing.journal_cursor, billing.archive, "
        "billing.archived_events cascade; "
        "update billing.roll_up_mark set rolled_until = 'epoch'; reset session_replication_role"
    )
