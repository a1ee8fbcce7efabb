"""Gateways that share a hard budget: one alone never exceeds it, several by no more than each did not see.

Journals, shipping and Postgres are real; requests begin, end, are shipped and are read in any order.
"""

from __future__ import annotations

import asyncio
import contextlib
import tempfile
import time
from pathlib import Path
from typing import Any

import asyncpg
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test

from penstock.access.keyring import Principal
from penstock.admission.budgets import BudgetExceeded, BudgetHeld, Budgets, Reservation
from penstock_billing import budgets, shipping
from penstock_billing.budgets import Period, Plan, Scope
from penstock_billing.journal import Journal
from penstock_billing.testing import usage_record

LIMIT = 100
REFUSED = (BudgetExceeded, BudgetHeld)
WHO = Principal(1, 1, "k")
GATEWAYS = 2

gateways = st.integers(0, GATEWAYS - 1)
amounts = st.integers(0, 40)
picks = st.integers(0, 100)


class Gateway:
    def __init__(self, folder: Path) -> None:
        # Small parts, so that a record is soon in another part than the one that is asked about.
        self.journal = Journal(folder, part_bytes=1 << 12, reserve_bytes=1 << 11)
        self.budgets = Budgets(self.journal)
        self.running: list[Reservation] = []
        self.recorded = 0
        """What this one recorded, in nano-dollars."""
        self.read_of_others = 0
        """How much of what the others recorded this one has read."""

    @property
    def held(self) -> int:
        return sum(each.held_nano_usd for each in self.running)


class Spending(RuleBasedStateMachine):
    def __init__(self, url: str) -> None:
        super().__init__()
        self.runner = asyncio.Runner()
        self.folder = tempfile.TemporaryDirectory(prefix="penstock-test-")

        async def prepare() -> asyncpg.Pool:
            pool = await asyncpg.create_pool(url, min_size=1, max_size=2)
            async with pool.acquire() as one:
                await one.execute(
                    "set session_replication_role = replica; truncate billing.usage_event, "
                    "billing.usage_minute, billing.spend_month, billing.account, billing.entry, "
                    "billing.ledger_transaction, billing.journal_cursor, billing.budget cascade; "
                    "reset session_replication_role"
                )
                for scope in (Scope(1), Scope(1, 1), Scope(1, None, "k")):
                    for period in Period:
                        await budgets.put(one, scope, period, Plan(limit_nano_usd=LIMIT))  # type: ignore[arg-type]
            return pool

        self.pool = self.run(prepare())
        self.gateways = [Gateway(Path(self.folder.name) / str(n)) for n in range(GATEWAYS)]
        for gateway in self.gateways:
            self.run(gateway.budgets.refresh(self.pool))

    def run(self, work: Any) -> Any:
        return self.runner.run(work)

    def unseen(self, gateway: Gateway) -> int:
        """What the others spent or may yet spend, beyond what this one has read."""
        others = [other for other in self.gateways if other is not gateway]
        return sum(other.recorded + other.held for other in others) - gateway.read_of_others

    def total(self) -> int:
        return sum(gateway.recorded + gateway.held for gateway in self.gateways)

    @invariant()
    def what_each_knows_is_exact(self) -> None:
        for gateway in self.gateways:
            known = gateway.recorded + gateway.held + gateway.read_of_others
            left = LIMIT - known
            if left > 0:
                just = gateway.budgets.reserve(WHO, lambda left=left: left)  # type: ignore[misc]
                assert just is not None
                just.close()
            with pytest.raises(REFUSED):
                gateway.budgets.reserve(WHO, lambda left=left: max(0, left) + 1)

    @rule(at=gateways, worst=amounts)
    def begin(self, at: int, worst: int) -> None:
        gateway = self.gateways[at]
        with contextlib.suppress(*REFUSED):
            reservation = gateway.budgets.reserve(WHO, lambda: worst)
            assert reservation is not None
            gateway.running.append(reservation)
            assert self.total() <= LIMIT + self.unseen(gateway)

    @rule(at=gateways, cost=amounts)
    def answer(self, at: int, cost: int) -> None:
        self.begin(at, cost)
        self.end(at, -1, 4)

    @rule(at=gateways, pick=picks, share=st.integers(0, 4))
    def end(self, at: int, pick: int, share: int) -> None:
        gateway = self.gateways[at]
        if gateway.running:
            reservation = gateway.running.pop(pick % len(gateway.running))
            cost = reservation.held_nano_usd * share // 4
            now_ms = time.time_ns() // 1_000_000
            record = usage_record(key_id="k", cost_nano_usd=cost, price_version=1, ended_ms=now_ms)
            gateway.journal.append(record)
            gateway.recorded += cost
            reservation.settle(cost, now_ms)

    @rule(at=gateways, pick=picks)
    def fail(self, at: int, pick: int) -> None:
        gateway = self.gateways[at]
        if gateway.running:
            reservation = gateway.running.pop(pick % len(gateway.running))
            reservation.close()
            reservation.close()

    @rule(at=gateways, frames=st.integers(1, 5))
    def ship(self, at: int, frames: int) -> None:
        async def work() -> None:
            async with self.pool.acquire() as connection:
                await shipping.prepare(connection)
                for path in sorted(self.gateways[at].journal.folder.glob("*.journal")):
                    await shipping.ship(connection, path.stem, path, limit=frames)

        self.run(work())

    @rule(at=gateways)
    def rotate(self, at: int) -> None:
        self.gateways[at].journal.rotate()

    @rule(at=gateways)
    def read(self, at: int) -> None:
        gateway = self.gateways[at]
        self.run(gateway.budgets.refresh(self.pool))
        others = [other for other in self.gateways if other is not gateway]
        gateway.read_of_others = sum(self.run(self.shipped_of(other)) for other in others)

    async def shipped_of(self, gateway: Gateway) -> int:
        cost: int = await self.pool.fetchval(
            "select coalesce(-sum(entry.amount_nano_usd), 0)::bigint from billing.entry "
            "join billing.account on account.id = account_id and account.kind = 'revenue' "
            "join billing.ledger_transaction as booked on booked.id = transaction_id "
            "where booked.ref like 'ship:' || $1 || '-%'",
            gateway.journal.boot_id.hex(),
        )
        return cost

    def teardown(self) -> None:
        for gateway in self.gateways:
            for reservation in list(gateway.running):
                reservation.close()
            gateway.journal.close()
        self.run(self.pool.close())
        self.runner.close()
        self.folder.cleanup()


def test_gateways_exceed_a_budget_by_no_more_than_they_did_not_see(url: str) -> None:
    run_state_machine_as_test(
        lambda: Spending(url), settings=settings(max_examples=30, stateful_step_count=25)
    )
