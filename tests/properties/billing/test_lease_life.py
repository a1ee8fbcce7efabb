"""Any order of leasing, holding, spending, shipping, giving back, dying and reaping keeps a wallet's credit.

None is lost, none is spent twice, and what is held is surely there.

The leases are real, in a real Postgres, and so are the purses; two gateways share a wallet. Answers of the
database get lost, before its commit and after it. Modelled is only how much there should be.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

import asyncpg
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from penstock.admission.credit.lending import Lender
from penstock.admission.credit.purse import Purse
from penstock.admission.credit.wallets import Wallets
from penstock_base import ids
from penstock_billing import invariants, leases, ledger
from penstock_billing.invariants import Check
from penstock_billing.leases import Wallet
from penstock_billing.testing import fund

WALLET = Wallet(1, 0)
GATEWAYS = 2
CENT = 10_000_000
CHECKS = frozenset({Check.TRANSACTIONS_BALANCE, Check.BALANCES_ARE_SUMS, Check.LEASES_ARE_HELD})
CLEAR = """
set session_replication_role = replica;
truncate billing.lease, billing.gateway_boot, billing.entry, billing.account, billing.ledger_transaction
  cascade;
reset session_replication_role
"""

gateways = st.integers(0, GATEWAYS - 1)
amounts = st.sampled_from([1, 1000, CENT // 3, CENT, 5 * CENT, 30 * CENT])
picks = st.integers(0, 100)


class LossyPool:
    """A pool whose next connection may break: before anything, or when only the answer is still to come."""

    def __init__(self, pool: asyncpg.Pool) -> None:
        self._pool = pool
        self.breaks = ""

    @contextlib.asynccontextmanager
    async def acquire(self) -> AsyncIterator[asyncpg.Connection]:
        breaks, self.breaks = self.breaks, ""
        if breaks == "before":
            raise ConnectionError("the database is away")
        async with self._pool.acquire() as connection:
            yield connection  # type: ignore[misc]
        if breaks == "after":
            raise ConnectionError("the answer is lost")


@dataclass(eq=False)
class Gateway:
    """One life of a gateway process."""

    pool: LossyPool
    boot_id: bytes
    lender: Lender
    holds: list[int] = field(default_factory=list)
    journal: list[int] = field(default_factory=list)
    """Costs that are recorded and not in the database yet."""

    @property
    def purse(self) -> Purse:
        return self.lender.purse(WALLET)


class Life(RuleBasedStateMachine):
    def __init__(self, url: str) -> None:
        super().__init__()
        self.runner = asyncio.Runner()
        self.run = self.runner.run

        async def connect() -> asyncpg.Pool:
            return await asyncpg.create_pool(url, min_size=1, max_size=GATEWAYS)

        self.pool = self.run(connect())
        self.run(self.pool.execute(CLEAR))
        self.given = 0
        self.promotional = 0
        self.spent = 0
        """What is recorded, whether shipped or not."""
        self.gateways = [self.gateway() for _ in range(GATEWAYS)]
        self.dead: list[Gateway] = []
        self.add_credit(30 * CENT, CENT // 2)

    def gateway(self) -> Gateway:
        pool, boot_id = LossyPool(self.pool), ids.uuid7_bytes()
        return Gateway(pool, boot_id, Lender(pool, boot_id, Wallets()))  # type: ignore[arg-type]

    @rule(amount=amounts, promotional=st.sampled_from([0, 0, CENT // 2, 3 * CENT]))
    def add_credit(self, amount: int, promotional: int) -> None:
        async def add() -> None:
            async with self.pool.acquire() as connection:
                await fund(connection, WALLET, amount, promotional_nano_usd=promotional)  # type: ignore[arg-type]

        self.run(add())
        self.given += amount + promotional
        self.promotional += promotional

    @rule(at=gateways, amount=amounts, breaks=st.sampled_from(["", "", "before", "after"]))
    def lease(self, at: int, amount: int, breaks: str) -> None:
        gateway = self.gateways[at]
        gateway.pool.breaks = breaks
        gateway.purse.wanting = amount
        self.errand(gateway, gateway.lender._fill)

    @rule(at=gateways, amount=amounts)
    def hold(self, at: int, amount: int) -> None:
        gateway = self.gateways[at]
        if gateway.purse.hold(amount):
            gateway.purse.users += 1
            gateway.holds.append(amount)

    @rule(at=gateways, pick=picks, share=st.sampled_from([0.0, 0.5, 1.0]))
    def spend(self, at: int, pick: int, share: float) -> None:
        gateway = self.gateways[at]
        if gateway.holds:
            held = gateway.holds.pop(pick % len(gateway.holds))
            cost = int(held * share)
            if cost:
                gateway.journal.append(cost)
            gateway.purse.settle(held, cost)
            gateway.purse.users -= 1
            self.spent += cost

    @rule(at=gateways, amount=amounts, share=st.sampled_from([0.5, 1.0]))
    def serve(self, at: int, amount: int, share: float) -> None:
        """A whole request, credit and all."""
        self.lease(at, amount, "")
        before = len(self.gateways[at].holds)
        self.hold(at, amount)
        if len(self.gateways[at].holds) > before:
            self.spend(at, before, share)

    @rule(at=gateways, breaks=st.sampled_from(["", "", "before", "after"]))
    def give_back(self, at: int, breaks: str) -> None:
        """What is free here: another gateway asked for it, or it is too much."""
        gateway = self.gateways[at]
        gateway.pool.breaks = breaks
        self.errand(gateway, lambda purse: gateway.lender._give_back(purse, max(0, purse.room)))

    @rule(at=gateways, breaks=st.sampled_from(["", "", "before", "after"]))
    def end(self, at: int, breaks: str) -> None:
        gateway = self.gateways[at]
        if not gateway.holds:
            gateway.pool.breaks = breaks
            self.errand(gateway, gateway.lender._end)

    def errand(self, gateway: Gateway, errand: Any) -> None:
        """As the lender does it, one at a time, and none in the background: rules alone decide."""
        self.run(errand(gateway.purse))
        gateway.purse.quiet_until_s = math.inf

    @rule(at=gateways)
    def kill(self, at: int) -> None:
        self.dead.append(self.gateways[at])
        self.gateways[at] = self.gateway()

    @rule(pick=picks)
    def ship(self, pick: int) -> None:
        everybody = [*self.gateways, *self.dead]
        gateway = everybody[pick % len(everybody)]
        if gateway.journal:
            self.run(self.book(gateway.boot_id.hex(), sum(gateway.journal)))
            gateway.journal.clear()

    async def book(self, boot_id: str, cost: int) -> None:
        """As shipping does."""
        number = await self.pool.fetchval("select nextval('billing.ledger_transaction_id_seq')")
        now = await self.pool.fetchval("select now()")
        ref = f"ship:{boot_id}-0:{number}"
        await self.pool.execute(
            ledger.SQL["book_usage"], number, ref, now, now, [1], ["prepaid"], [0], [cost], boot_id
        )

    @precondition(lambda self: self.dead)
    @rule(pick=picks)
    def settle(self, pick: int) -> None:
        gateway = self.dead.pop(pick % len(self.dead))
        self.dead.append(gateway)
        self.ship(GATEWAYS + len(self.dead) - 1)
        self.run(
            self.pool.execute(
                "update billing.gateway_boot set settled_at = now() where boot_id = $1", gateway.boot_id.hex()
            )
        )

    @rule(reapers=st.integers(1, 2))
    def reap(self, reapers: int) -> None:
        async def one() -> None:
            async with self.pool.acquire() as connection:
                await leases.release_orphaned(connection)  # type: ignore[arg-type]

        async def at_once() -> None:
            await asyncio.gather(*(one() for _ in range(reapers)))

        self.run(at_once())

    async def balances(self) -> dict[str, int]:
        rows = await self.pool.fetch(
            "select kind, sum(posted_nano_usd)::bigint as amount from billing.account group by kind"
        )
        return {row["kind"]: -row["amount"] for row in rows}

    @invariant()
    def the_books_hold(self) -> None:
        async def check() -> list[invariants.Difference]:
            async with self.pool.acquire() as connection:
                return await invariants.check(connection, CHECKS)  # type: ignore[arg-type]

        assert self.run(check()) == []
        balances = self.run(self.balances())
        unshipped = sum(sum(gateway.journal) for gateway in (*self.gateways, *self.dead))
        credit = sum(balances.get(kind, 0) for kind in ("prepaid", "promotional", "lease"))
        assert credit == self.given - (self.spent - unshipped)
        # Nothing was let in that is not paid for: not even what may still come of dead processes.
        assert balances.get("prepaid", 0) >= 0
        assert balances.get("promotional", 0) >= 0
        assert balances.get("lease", 0) >= unshipped

    @invariant()
    def nobody_believes_in_more_than_was_lent(self) -> None:
        rows = self.run(self.pool.fetch("select * from billing.lease where released_at is null"))
        left = {row["boot_id"]: row["granted_nano_usd"] - row["settled_nano_usd"] for row in rows}
        for gateway in self.gateways:
            purse = gateway.purse
            assert purse.held == sum(gateway.holds)
            promised = max(0, purse.room) + purse.held + sum(gateway.journal)
            assert promised <= left.get(gateway.boot_id.hex(), 0)

    def teardown(self) -> None:
        for gateway in list(self.gateways):
            self.kill(self.gateways.index(gateway))
        for _ in self.dead:
            self.settle(0)
        for at in range(len(self.dead)):
            self.ship(GATEWAYS + at)
        self.reap(2)
        balances = self.run(self.balances())
        assert balances.get("lease", 0) == 0
        assert balances.get("prepaid", 0) + balances.get("promotional", 0) == self.given - self.spent
        # Given credit is used before paid credit, as far as both were there; none of it comes from nowhere.
        assert 0 <= balances.get("promotional", 0) <= self.promotional
        self.run(self.pool.close())
        self.runner.close()


def test_credit_is_neither_lost_nor_doubled(url: str) -> None:
    run_state_machine_as_test(
        lambda: Life(url),
        settings=settings(max_examples=settings().max_examples // 2, stateful_step_count=40),
    )
