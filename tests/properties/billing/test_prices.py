"""Whatever prices do, what was charged is reproduced from its versions; and a backtest is exact."""

from __future__ import annotations

import contextlib
import tempfile
from datetime import datetime, timedelta
from fractions import Fraction
from pathlib import Path
from typing import Any

import asyncpg
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from penstock_billing import frames, invariants, price_backtest, price_changes, prices, rating, shipping
from penstock_billing.errors import PriceError
from penstock_billing.journal import Journal
from penstock_billing.price_changes import Change, When
from penstock_billing.price_proposals import Proposal, ProposedPrices
from penstock_billing.prices import Offer, PriceBook, PriceVersion
from penstock_billing.record import Outcome, UsageRecord
from penstock_billing.testing import usage_record

MODELS = ["a", "b", "c"]
ORGANISATIONS = [1, 2, 3]
CARDS = [Offer("a", 18_750, 8_750, 500), Offer("b", 150_000, 75_000, 600_000)]
LISTS = [1, 2, 3]
"""The standard one and two others."""
EMPTY = """
set session_replication_role = replica;
truncate billing.usage_event, billing.usage_minute, billing.usage_hour, billing.usage_day,
  billing.earned_hour, billing.spend_month, billing.account, billing.entry, billing.ledger_transaction,
  billing.journal_cursor, billing.price_list, billing.price_version, billing.price_assignment,
  billing.minute_price_version cascade;
insert into billing.price_list (id, name) values (1, 'standard'), (2, 'two'), (3, 'three');
reset session_replication_role
"""
# Fractions of a nano-dollar, and halves of one, so that rounding shows.
pico = st.one_of(st.sampled_from([0, 1, 500, 1500, 18_750]), st.integers(0, 10**9))
days = st.integers(0, 4)
change = st.fixed_dictionaries(
    {
        "list": st.sampled_from(LISTS),
        "model": st.sampled_from(MODELS),
        "days": days,
        "pico": st.tuples(pico, pico, pico, pico, pico, pico),
        "discount": st.sampled_from([0, 500_000, 333_333, 1_000_000]),
    }
)
count = st.one_of(st.integers(0, 5), st.integers(0, 2000))
use = st.fixed_dictionaries(
    {
        "organisation": st.sampled_from(ORGANISATIONS),
        "model": st.sampled_from(MODELS),
        "days": days,
        "tokens": st.tuples(count, count, count),
        "others": st.tuples(count, count, count),
        "batch": st.booleans(),
        "outcome": st.sampled_from(Outcome),
    }
)
assignment = st.fixed_dictionaries(
    {"organisation": st.sampled_from(ORGANISATIONS), "list": st.sampled_from(LISTS), "days": days}
)
step = st.one_of(
    st.tuples(st.just("change"), change),
    st.tuples(st.just("assign"), assignment),
    st.tuples(st.just("use"), use),
    st.tuples(st.just("use"), use),
)


class World:
    """A database with price lists, and a gateway's book and journal."""

    def __init__(self, connection: asyncpg.Connection, journal: Journal, now: datetime) -> None:
        self.connection = connection
        self.journal = journal
        self.now = now
        self.book = PriceBook()
        self.records: list[UsageRecord] = []
        self.served: dict[tuple[int, str, float], PriceVersion] = {}

    def moment(self, day: int) -> datetime | None:
        """Now, or a later day's beginning."""
        return self.now + timedelta(days=day) if day else None

    async def do(self, name: str, what: dict[str, Any]) -> None:
        match name:
            case "change":
                fields = Change.__struct_fields__[:6]
                numbers = dict(zip(fields, what["pico"], strict=True))
                numbers["cached_input_pico_usd"] = min(what["pico"][:2])
                asked = Change(**numbers, batch_discount_ppm=what["discount"])
                when = When(valid_from=self.moment(what["days"]), until_scheduled=True)
                with contextlib.suppress(PriceError):  # nothing would change
                    await price_changes.add(self.connection, what["model"], asked, when, what["list"])
            case "assign":
                when = When(valid_from=self.moment(what["days"]), until_scheduled=True)
                with contextlib.suppress(PriceError):
                    await price_changes.assign(self.connection, what["organisation"], what["list"], when)
            case "use":
                await self.book.load(self.connection)
                await self.use(what)

    async def use(self, what: dict[str, Any]) -> None:
        # The clock of the gateway that admits: a second after the moments at which changes take effect.
        at_s = (self.now + timedelta(days=what["days"], seconds=1)).timestamp()
        if not what["days"]:
            at_s = (await self.connection.fetchval("select clock_timestamp()")).timestamp()
        price = self.book.current(what["model"], what["organisation"], at_s)
        if price is None:
            return  # not served
        self.served[what["organisation"], what["model"], at_s] = price
        fresh, cached, output = what["tokens"]
        images, audio_ms, documents = what["others"]
        changes: dict[str, object] = {
            "organisation_id": what["organisation"],
            "model": what["model"],
            "price_version": price.id,
            "input_tokens": fresh + cached,
            "cached_tokens": cached,
            "output_tokens": output,
            "images": images,
            "audio_ms": audio_ms,
            "documents": documents,
            "batch": what["batch"],
            "outcome": what["outcome"],
            "ended_ms": int(self.now.timestamp() * 1000),
        }
        cost = rating.rerate(usage_record(**changes), price)
        self.records.append(usage_record(**changes, cost_nano_usd=cost))
        self.journal.append(self.records[-1])

    async def finish(self) -> None:
        await shipping.prepare(self.connection)
        for path in sorted(self.journal.folder.glob("*.journal")):
            name = frames.read_name(path)
            assert name is not None
            while (await shipping.ship(self.connection, name, path, limit=1000)).frames:
                pass


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(step, min_size=3, max_size=30), st.lists(change, max_size=2), st.data())
async def test_the_whole_history_is_reproduced_and_a_backtest_is_exact(
    database: asyncpg.Pool,
    steps: list[tuple[str, dict[str, Any]]],
    afterwards: list[dict[str, Any]],
    data: st.DataObject,
) -> None:
    async with database.acquire() as connection:
        await connection.execute(EMPTY)
        await prices.sync_list(connection, CARDS)
        with tempfile.TemporaryDirectory() as folder:
            now = await connection.fetchval("select clock_timestamp()")
            with contextlib.closing(Journal(Path(folder), reserve_bytes=1 << 14)) as journal:
                world = World(connection, journal, now)
                for name, what in steps:
                    await world.do(name, what)
                await world.finish()
        # What is changed afterwards is scheduled or holds from now on: nothing that was served is touched.
        for what in afterwards:
            await world.do("change", what | {"days": 5})
        assert await invariants.check(connection) == []
        await world.book.load(connection)
        for (_, _, at_s), price in world.served.items():
            assert world.book.version(price.id) == price
            assert price.valid_from.timestamp() <= at_s
        for each in world.records:
            version = world.book.version(each.price_version)
            assert version is not None
            assert rating.rerate(each, version) == each.cost_nano_usd
        await expect_exact(connection, world, data)


async def expect_exact(connection: asyncpg.Connection, world: World, data: st.DataObject) -> None:
    """Simulate a random list, and compare with rating request by request."""
    models = data.draw(st.lists(st.sampled_from(MODELS), min_size=1, unique=True))
    usd = st.integers(0, 10**9).map(lambda pico: f"{Fraction(pico, 10**6).__float__():.6f}")
    proposal = Proposal(
        models={
            model: ProposedPrices(
                input="1000",
                cached_input=data.draw(usd),
                output=data.draw(usd),
                image=data.draw(usd),
                audio_minute="0.006",
                document=data.draw(usd),
                batch_discount=data.draw(st.sampled_from(["0%", "50%", "33.3333%"])),
            )
            for model in models
        }
    )
    proposed = {version.model: version for version in proposal.versions}
    day = timedelta(days=1)
    for organisations in (None, [2, 3]):
        found = await price_backtest.simulate(
            connection, proposal, world.now - day, world.now + day, organisations
        )
        expected: dict[tuple[int, str], list[int]] = {}
        for each in world.records:
            if organisations is None or each.organisation_id in organisations:
                sums = expected.setdefault((each.organisation_id, each.model), [0, 0, 0])
                sums[0] += 1
                sums[1] += each.cost_nano_usd
                price = proposed.get(each.model)
                sums[2] += each.cost_nano_usd if price is None else rating.rerate(each, price)
        assert {
            (row.organisation_id, row.model): [row.requests, row.paid_nano_usd, row.would_pay_nano_usd]
            for row in found.models
        } == expected
        assert all(row.proposed is (row.model in proposed) for row in found.models)
        assert found.total.would_pay_nano_usd == sum(sums[2] for sums in expected.values())
    # Nothing of another window.
    empty = await price_backtest.simulate(connection, proposal, world.now - 2 * day, world.now - day)
    assert (empty.models, empty.minutes, empty.total.paid_nano_usd) == ([], [], 0)
