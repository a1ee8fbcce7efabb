"""Any order of starts, stops, crashes, takeovers, price changes and charging follows the rule."""

from __future__ import annotations

import asyncio
import itertools
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import asyncpg
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from penstock_billing import intervals, invariants, minutes
from penstock_billing.intervals import IntervalKind, Subject

MINUTE = timedelta(minutes=1)
BEGIN = datetime(2051, 3, 1, 23, 30, tzinfo=UTC)
"""In the future, so that prices can begin around it: none begins in the past."""
_worlds = itertools.count(1)

# Around whole minutes as often as anywhere.
pause = st.one_of(
    st.integers(0, 10 * 60 * 10**6).map(lambda us: timedelta(microseconds=us)),
    st.integers(0, 10).map(lambda count: count * MINUTE),
    st.integers(1, 10).map(lambda count: count * MINUTE - timedelta(microseconds=1)),
)
controller, subject = st.integers(0, 1), st.integers(0, 2)
step = st.one_of(
    st.tuples(st.just("ready"), controller, subject, pause),
    st.tuples(st.just("ready"), controller, subject, pause),
    st.tuples(st.just("see"), controller, subject, pause),
    st.tuples(st.just("see"), controller, subject, pause),
    st.tuples(st.just("stop"), controller, subject, pause),
    st.tuples(st.just("crash"), controller, subject, pause),
    st.tuples(st.just("lead"), controller, subject, pause),
    st.tuples(st.just("charge"), controller, subject, pause),
    st.tuples(st.just("charge at once"), controller, subject, pause),
    st.tuples(st.just("fail while charging"), controller, subject, pause),
    st.tuples(st.just("price"), st.integers(0, 1), st.integers(0, 1000), pause),
    st.tuples(st.just("own price"), st.integers(0, 1), st.integers(0, 1000), pause),
    st.tuples(st.just("own list"), st.integers(0, 1), st.integers(0, 1), pause),
)


@dataclass
class Ran:
    """What the model knows of one interval."""

    subject: int
    holder: str | None
    start: datetime
    seen: datetime
    stop: datetime | None = None


class World:
    """Two controllers, two instances and an endpoint of two organisations, and what should be charged."""

    def __init__(self, connections: list[asyncpg.Connection]) -> None:
        self.number = next(_worlds)
        self.connections = connections
        self.now = BEGIN
        self.boots = [0, 0]
        self.ran: list[Ran] = []
        self.standard: list[tuple[datetime, int, int]] = []
        """When, which price, nano-dollars."""
        self.own: list[tuple[datetime, int, int]] = []
        self.assigned: list[tuple[datetime, int, bool]] = []
        self.own_list = 0

    def organisation(self, index: int) -> int:
        return self.number * 10 + index % 2 + 1

    def priced_as(self, which: int) -> str:
        return f"{self.number}-{which}"

    def subject(self, index: int) -> Subject:
        return Subject(
            kind=IntervalKind.ENDPOINT if index == 2 else IntervalKind.INSTANCE,
            id=f"{self.number}-{index}",
            priced_as=self.priced_as(index // 2),
            organisation_id=self.organisation(index),
        )

    def holder(self, who: int, index: int) -> str | None:
        return None if index == 2 else f"{self.number}-{who}-{self.boots[who]}"

    def open(self, index: int) -> Ran | None:
        return next((ran for ran in self.ran if ran.subject == index and ran.stop is None), None)

    async def begin(self) -> None:
        """Everything has a price and is ready: most of what follows then matters."""
        self.own_list = await self.connections[0].fetchval(
            "insert into billing.price_list (name) values ($1) returning id", f"list {self.number}"
        )
        for which, amount in ((0, 100), (1, 1000)):
            await self.reprice("price", which, amount)
        for index in range(3):
            await self.ready(0, index)

    async def do(self, name: str, who: int, index: int, pause: timedelta) -> None:
        self.now += pause
        match name:
            case "ready":
                await self.ready(who, index)
            case "see":
                await self.see(who, index % 2)
            case "stop":
                await self.stop(who, index)
            case "crash":
                self.boots[who] += 1
            case "lead":
                await self.lead(who)
            case "charge":
                await minutes.accrue(self.connections[who], self.now)
            case "charge at once":
                moments = (self.now, self.now - MINUTE / 3)
                pairs = zip(self.connections, moments, strict=True)
                await asyncio.gather(*(minutes.accrue(one, until) for one, until in pairs))
            case "fail while charging":
                transaction = self.connections[who].transaction()
                await transaction.start()
                await minutes.accrue(self.connections[who], self.now)
                await transaction.rollback()
            case "price" | "own price" | "own list":
                await self.reprice(name, who, index)

    async def ready(self, who: int, index: int) -> None:
        holder, there = self.holder(who, index), self.open(index)
        await intervals.open_interval(self.connections[who], self.subject(index), self.now, holder=holder)
        if there is not None and there.holder == holder:
            return
        if there is not None:
            there.stop = there.seen
        ends = [ran.stop for ran in self.ran if ran.subject == index and ran.stop is not None]
        start = max([self.now, *ends])
        self.ran.append(Ran(index, holder, start, start))

    async def see(self, who: int, index: int) -> None:
        holder, told = self.holder(who, index), self.subject(index)
        assert holder is not None
        await intervals.see(self.connections[who], told.kind, [told.id], self.now, holder=holder)
        if (ran := self.open(index)) and ran.holder == holder:
            ran.seen = max(ran.seen, self.now)

    async def lead(self, who: int) -> None:
        holder = self.holder(who, 0)
        assert holder is not None
        await intervals.close_abandoned(self.connections[who], holder)
        for ran in self.ran:
            if ran.stop is None and ran.holder not in {None, holder}:
                ran.stop = ran.seen

    async def stop(self, who: int, index: int) -> None:
        holder, told = self.holder(who, index), self.subject(index)
        # Told late, by up to a minute and a half: never before what was charged or proven.
        at = self.now - (MINUTE * 1.5 if index != 2 else timedelta())
        await intervals.close_interval(self.connections[who], told.kind, told.id, at, holder=holder)
        if (ran := self.open(index)) and ran.holder == holder:
            ran.stop = max(at, ran.seen)

    async def reprice(self, name: str, which: int, amount: int) -> None:
        """Change a price from a whole minute on, from now on, or between them."""
        since = self.now
        if name == "own list":
            self.assigned.append((since, which, bool(amount)))
            await self.connections[0].execute(
                "insert into billing.price_assignment (organisation_id, price_list_id, valid_from) "
                "values ($1, $2, $3)",
                self.organisation(which),
                self.own_list if amount else 1,
                since,
            )
            return
        own = name == "own price"
        (self.own if own else self.standard).append((since, which, amount))
        for kind in ("instance", "endpoint"):
            await self.connections[0].execute(
                "insert into billing.minute_price_version "
                "(price_list_id, kind, subject, nano_usd_per_minute, valid_from) values ($1, $2, $3, $4, $5)",
                self.own_list if own else 1,
                kind,
                self.priced_as(which),
                amount,
                since,
            )

    def price(self, index: int, minute: datetime) -> int | None:
        """What a subject's minute costs, as a person would look it up."""

        def latest(listed: list[tuple[datetime, int, int]]) -> int | None:
            known = [amount for since, which, amount in listed if which == index // 2 and since <= minute]
            return known[-1] if known else None

        lists = [own for since, which, own in self.assigned if which == index % 2 and since <= minute]
        if lists and lists[-1] and (amount := latest(self.own)) is not None:
            return amount
        return latest(self.standard)

    def expected(self) -> dict[int, tuple[int, int]]:
        """Minutes and cost by organisation, minute by minute."""
        totals = {self.organisation(0): (0, 0), self.organisation(1): (0, 0)}
        for ran in self.ran:
            end = ran.stop or (self.now if ran.holder is None else ran.seen)
            minute = ran.start.replace(second=0, microsecond=0)
            while minute < min(end, self.now):
                if minute >= ran.start and (amount := self.price(ran.subject, minute)) is not None:
                    count, cost = totals[self.organisation(ran.subject)]
                    totals[self.organisation(ran.subject)] = (count + 1, cost + amount)
                minute += MINUTE
        return totals


@settings(
    suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=3 * settings().max_examples
)
@given(st.lists(step, min_size=8, max_size=40))
async def test_whatever_happens_each_minute_is_charged_by_the_rule(
    database: asyncpg.Pool, steps: list[tuple[str, int, int, timedelta]]
) -> None:
    async with database.acquire() as one, database.acquire() as two:
        world = World([one, two])
        await world.begin()
        for name, who, index, pause in steps:
            await world.do(name, who, index, pause)
        await minutes.accrue(one, world.now)
        rows = await one.fetch(
            "select organisation_id, sum(minutes)::bigint as minutes, sum(cost_nano_usd)::bigint as cost "
            "from billing.minute_charge where organisation_id / 10 = $1 group by 1",
            world.number,
        )
        charged = {row["organisation_id"]: (row["minutes"], row["cost"]) for row in rows}
        expected = world.expected()
        assert {org: charged.get(org, (0, 0)) for org in expected} == expected
        owed = dict(
            await one.fetch(
                "select organisation_id, posted_nano_usd from billing.account "
                "where kind = 'receivable' and organisation_id / 10 = $1",
                world.number,
            )
        )
        assert {org: owed.get(org, 0) for org in expected} == {
            org: cost for org, (_, cost) in expected.items()
        }
        assert await invariants.check(one) == []
