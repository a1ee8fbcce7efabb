"""Top-ups, gifts, leases, usage, refunds, corrections, expiry, repeats: in any order, as a model says.

The model is plain arithmetic. Everything else is real: a journal, its shipping, leases, and Postgres.
"""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import asyncpg
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test

from penstock_billing import giving_back, invariants, leases, prices, promotions, shipping, wallets
from penstock_billing.errors import LedgerRefused, ReferenceReused
from penstock_billing.journal import Journal
from penstock_billing.leases import Need, Wallet
from penstock_billing.ledger import AccountKind, Booked
from penstock_billing.prices import Offer
from penstock_billing.record import Funding
from penstock_billing.testing import usage_record
from penstock_billing.wishes import Wish

WALLET = Wallet(1, 0)
BEGINNING = datetime.now(UTC)
HOUR = timedelta(hours=1)
TABLES = (
    "usage_event, usage_minute, usage_hour, usage_day, earned_hour, spend_month, account, entry, "
    "ledger_transaction, refund, promotion, lease, gateway_boot, journal_cursor, wallet"
)

amounts = st.integers(1, 40)
picks = st.integers(0, 100)
Charge = dict[Funding, int]
"""What is left of a usage transaction by its funding, after what was given back."""
GIVEN_TO = {Funding.POSTPAID: "receivable", Funding.PREPAID: "prepaid"}
fundings = st.sampled_from(Funding)


@dataclass
class Gift:
    id: int
    left: int
    ends_h: int


@dataclass
class Request:
    id: str
    funding: Funding
    charge: int
    left: int


@dataclass
class Movement:
    """Something that can be turned round: what of it can, and what that undoes."""

    left: int
    whole: int
    undo: Callable[[int], None]
    takes_credit: Callable[[int], int]
    """How much credit turning a part of it round takes from the wallet."""
    split: bool = False
    """Whether it moved more than two accounts: then it is turned round whole."""


@dataclass
class Lease:
    granted: int = 0
    promotional: int = 0
    settled: int = 0

    @property
    def left(self) -> int:
        return self.granted - self.settled

    @property
    def promotional_left(self) -> int:
        return max(0, self.promotional - self.settled)


class Life(RuleBasedStateMachine):
    def __init__(self, url: str) -> None:
        super().__init__()
        self.runner = asyncio.Runner()
        self.folder = tempfile.TemporaryDirectory(prefix="penstock-test-")
        self.journal = Journal(Path(self.folder.name), reserve_bytes=1 << 14)
        self.boot = self.journal.boot_id.hex()

        async def prepare() -> asyncpg.Connection:
            one = await asyncpg.connect(url)
            tables = ", ".join(f"billing.{table.strip()}" for table in TABLES.split(","))
            await one.execute(
                f"set session_replication_role = replica; truncate {tables} cascade; "
                "reset session_replication_role"
            )
            await prices.sync_list(one, [Offer("m", 1_000, 1_000, 1_000)])
            await wallets.set_terms(one, WALLET, Funding.PREPAID)
            await shipping.prepare(one)
            return one

        self.connection = self.run(prepare())
        self.price = self.run(self.connection.fetchval("select max(id) from billing.price_version"))
        self.now_h = 0
        self.books = {kind.value: 0 for kind in AccountKind}
        self.gifts: list[Gift] = []
        self.lease: Lease | None = None
        self.charges: dict[int, Charge] = {}
        self.requests: list[Request] = []
        self.movements: dict[int, Movement] = {}
        self.asked: list[tuple[Wish, Callable[[Wish], Coroutine[Any, Any, Booked]], int]] = []

    def run(self, work: Any) -> Any:
        return self.runner.run(work)

    def now(self) -> datetime:
        return BEGINNING + self.now_h * HOUR

    def wish(self, nano_usd: int) -> Wish:
        return Wish(ref=f"wish {len(self.asked)} {self.boot}", amount_nano_usd=nano_usd)

    def ask(self, nano_usd: int, book: Callable[[Wish], Coroutine[Any, Any, Booked]]) -> int | None:
        """Have something booked: its number, or None when it was refused."""
        wish = self.wish(nano_usd)
        try:
            booked: Booked = self.run(book(wish))
        except LedgerRefused:
            return None
        assert not booked.repeated
        self.asked.append((wish, book, booked.id))
        return booked.id

    # Credit.

    def unused(self) -> int:
        return -self.books["promotional"] + (self.lease.promotional_left if self.lease else 0)

    def consume(self, before: int) -> None:
        """What became less of the promotional credit was used of what ends first."""
        used = before - self.unused()
        for gift in sorted(self.gifts, key=lambda gift: (gift.ends_h, gift.id)):
            taken = min(gift.left, used)
            gift.left -= taken
            used -= taken

    @rule(nano_usd=amounts)
    def top_up(self, nano_usd: int) -> None:
        number = self.ask(nano_usd, lambda wish: wallets.top_up(self.connection, wish, WALLET))
        assert number is not None
        self.move("cash", "prepaid", nano_usd)
        self.movements[number] = Movement(
            nano_usd, nano_usd, lambda part: self.move("prepaid", "cash", part), lambda part: part
        )

    @rule(gifts=st.lists(st.tuples(amounts, st.integers(1, 4)), min_size=1, max_size=3))
    def give(self, gifts: list[tuple[int, int]]) -> None:
        for nano_usd, hours in gifts:
            self.give_one(nano_usd, hours)

    def give_one(self, nano_usd: int, hours: int) -> None:
        ends_h = self.now_h + hours
        number = self.ask(
            nano_usd,
            lambda wish: promotions.promote(self.connection, wish, WALLET, BEGINNING + ends_h * HOUR),
        )
        assert number is not None
        found = self.run(
            self.connection.fetchval("select id from billing.promotion where transaction_id = $1", number)
        )
        self.gifts.append(Gift(found, nano_usd, ends_h))
        self.move("promotion_cost", "promotional", nano_usd)

    @rule(nano_usd=amounts)
    def lend(self, nano_usd: int) -> None:
        held = self.lease.left if self.lease else 0
        free = -(self.books["prepaid"] + self.books["promotional"])
        need = Need(room_nano_usd=leases.SIZE_MIN_NANO_USD - nano_usd)
        lent = self.run(leases.grant(self.connection, self.boot, "host", WALLET, need))
        self.lease = self.lease or Lease()
        amount = lent.granted_nano_usd - self.lease.granted
        assert amount == max(0, min(free, nano_usd))
        promotional = max(0, min(amount, -self.books["promotional"]))
        before = self.unused()
        self.lease.granted += amount
        self.lease.promotional += promotional
        self.move("prepaid", "lease", amount - promotional)
        self.move("promotional", "lease", promotional)
        self.consume(before)
        assert self.lease.left == held + amount

    @rule()
    def release(self) -> None:
        if self.lease is not None:
            self.run(leases.release(self.connection, self.boot, WALLET))
            self.move("lease", "promotional", self.lease.promotional_left)
            self.move("lease", "prepaid", self.lease.left - self.lease.promotional_left)
            self.lease = None

    @rule(hours=st.integers(0, 3), twice=st.booleans())
    def expire(self, hours: int, twice: bool) -> None:
        self.now_h += hours
        expired = self.run(promotions.expire_due(self.connection, self.now()))
        over = [gift for gift in self.gifts if gift.ends_h <= self.now_h]
        free = -self.books["promotional"] - sum(gift.left for gift in self.gifts if gift not in over)
        expected = 0
        for gift in sorted(over, key=lambda gift: (gift.ends_h, gift.id)):
            part = max(0, min(gift.left, free - expected))
            gift.left -= part
            expected += part
        assert expired == expected
        self.move("promotional", "breakage", expired)
        if twice:
            assert self.run(promotions.expire_due(self.connection, self.now())) == 0

    # Usage, and what is given back of it.

    @rule(costs=st.lists(st.tuples(amounts, fundings), min_size=1, max_size=3))
    def use(self, costs: list[tuple[int, Funding]]) -> None:
        made = []
        for cost, funding in costs:
            record = usage_record(
                model="m", price_version=self.price, input_tokens=cost, cached_tokens=0, output_tokens=0,
                reasoning_tokens=0, cost_nano_usd=cost, funding=funding,
            )  # fmt: skip
            self.journal.append(record)
            made.append(record)
        self.run(shipping.ship(self.connection, self.journal.name, self.journal.path))
        number = self.run(
            self.connection.fetchval("select max(ledger_transaction_id) from billing.usage_event")
        )
        charge = self.charges[number] = dict.fromkeys(Funding, 0)
        before = self.unused()
        for record in made:
            charge[record.funding] += record.cost_nano_usd
            self.requests.append(Request(record.request_id, record.funding, number, record.cost_nano_usd))
            side = (
                "receivable" if record.funding is Funding.POSTPAID else "lease" if self.lease else "prepaid"
            )
            self.move(side, "revenue", record.cost_nano_usd)
            if side == "lease" and self.lease:
                self.lease.settled += record.cost_nano_usd
        self.consume(before)

    @rule(pick=picks, nano_usd=st.one_of(st.just(0), amounts))
    def refund_request(self, pick: int, nano_usd: int) -> None:
        if not self.requests:
            return
        request = self.requests[pick % len(self.requests)]
        charge = self.charges[request.charge]
        left = min(request.left, charge[request.funding])
        number = self.ask(
            nano_usd, lambda wish: giving_back.refund_request(self.connection, wish, 1, request.id)
        )
        part = nano_usd or left
        assert (number is not None) == (0 < part <= left)
        if number is not None:
            self.concede(number, {request.funding: part}, charge, request)

    @rule(pick=picks, nano_usd=amounts)
    def correct_charge(self, pick: int, nano_usd: int) -> None:
        if not self.charges:
            return
        charged = sorted(self.charges)[pick % len(self.charges)]
        charge = self.charges[charged]
        number = self.ask(nano_usd, lambda wish: giving_back.correct(self.connection, wish, charged))
        assert (number is not None) == (nano_usd <= sum(charge.values()))
        if number is not None:
            owed = min(nano_usd, charge[Funding.POSTPAID])
            parts = {Funding.POSTPAID: owed, Funding.PREPAID: nano_usd - owed}
            self.concede(number, parts, charge)

    @rule(nano_usd=amounts)
    def refund_amount(self, nano_usd: int) -> None:
        left = -self.books["revenue"] - self.books["concession"]
        number = self.ask(nano_usd, lambda wish: giving_back.refund_amount(self.connection, wish, 1))
        assert (number is not None) == (nano_usd <= left)
        if number is not None:
            self.concede(number, {Funding.PREPAID: nano_usd})

    @rule(pick=picks, nano_usd=amounts, whole=st.booleans())
    def turn_round(self, pick: int, nano_usd: int, whole: bool) -> None:
        if not self.movements:
            return
        turned = sorted(self.movements)[pick % len(self.movements)]
        movement = self.movements[turned]
        part = movement.whole if whole else nano_usd
        allowed = part <= movement.left and (part == movement.whole or not movement.split)
        # Credit that was used is not taken back.
        taken = movement.takes_credit(part)
        allowed = allowed and (not taken or taken <= -self.books["prepaid"])
        number = self.ask(part, lambda wish: giving_back.correct(self.connection, wish, turned))
        assert (number is not None) == allowed
        if number is not None:
            movement.left -= part
            movement.undo(part)

    def concede(
        self,
        number: int,
        parts: dict[Funding, int],
        charge: Charge | None = None,
        request: Request | None = None,
    ) -> None:
        """Model that parts were given back, and how that is turned round again."""
        whole = sum(parts.values())

        def give(share: int, sign: int) -> None:
            for funding, part in parts.items():
                moved = sign * (part if share == whole else share if part else 0)
                self.move("concession", GIVEN_TO[funding], moved)
                if charge is not None:
                    charge[funding] -= moved
            if request is not None:
                request.left -= sign * share

        give(whole, 1)
        credit = parts.get(Funding.PREPAID, 0)
        self.movements[number] = Movement(
            whole,
            whole,
            lambda share: give(share, -1),
            lambda share: credit if share == whole else share if credit else 0,
            split=all(parts.values()) and len(parts) > 1,
        )

    # References.

    @rule(pick=picks)
    def repeat(self, pick: int) -> None:
        if self.asked:
            wish, book, number = self.asked[pick % len(self.asked)]
            again: Booked = self.run(book(wish))
            assert (again.id, again.repeated) == (number, True)

    @rule(pick=picks, more=amounts)
    def reuse(self, pick: int, more: int) -> None:
        if self.asked:
            wish, _, number = self.asked[pick % len(self.asked)]
            query = "select max(abs(amount_nano_usd)) from billing.entry where transaction_id = $1"
            moved = self.run(self.connection.fetchval(query, number))
            other = Wish(ref=wish.ref, amount_nano_usd=int(moved) + more)
            with pytest.raises(ReferenceReused):
                self.run(wallets.top_up(self.connection, other, WALLET))

    # What must hold.

    def move(self, plus: str, minus: str, nano_usd: int) -> None:
        self.books[plus] += nano_usd
        self.books[minus] -= nano_usd

    @invariant()
    def the_books_are_the_models(self) -> None:
        rows = self.run(self.connection.fetch("select kind, posted_nano_usd from billing.account"))
        held = dict.fromkeys(self.books, 0) | {row["kind"]: row["posted_nano_usd"] for row in rows}
        assert held == self.books
        assert sum(held.values()) == 0
        counted = self.run(promotions.count(self.connection, WALLET))
        assert {each.id: each.left_nano_usd for each in counted.promotions} == {
            gift.id: gift.left for gift in self.gifts
        }

    def teardown(self) -> None:
        try:
            assert self.run(invariants.check(self.connection)) == []
        finally:
            self.journal.close()
            self.run(self.connection.close())
            self.runner.close()
            self.folder.cleanup()


def test_the_books_are_as_plain_arithmetic_says(url: str) -> None:
    run_state_machine_as_test(lambda: Life(url), settings=settings(max_examples=30, stateful_step_count=40))
