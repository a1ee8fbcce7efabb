"""Booking: balanced or not at all, once per reference."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import asyncpg
import pytest

from penstock_billing import invariants, ledger
from penstock_billing.errors import LedgerRefused, ReferenceReused
from penstock_billing.ledger import Account, AccountKind, Booking, TransactionKind


@pytest.fixture
async def connection(database: asyncpg.Pool) -> AsyncIterator[asyncpg.Connection]:
    async with database.acquire() as one:
        yield one


CASH = Account(1, 0, AccountKind.CASH)
PREPAID = Account(1, 0, AccountKind.PREPAID)


def top_up(nano_usd: int = 5_000, ref: str = "top-up:1", **more: object) -> Booking:
    entries = {CASH: nano_usd, PREPAID: -nano_usd}
    return Booking(ref=ref, kind=TransactionKind.TOP_UP, entries=entries, **more)  # type: ignore[arg-type]


async def balances(connection: asyncpg.Connection) -> dict[str, int]:
    return {
        row["kind"]: row["posted_nano_usd"] for row in await connection.fetch("select * from billing.account")
    }


async def test_a_booking_moves_balances_by_its_entries(connection: asyncpg.Connection) -> None:
    booked = await ledger.book(connection, top_up(note="wire 12", actor="ada"))
    assert not booked.repeated
    assert await balances(connection) == {"cash": 5_000, "prepaid": -5_000}
    assert await invariants.check(connection) == []


async def test_the_same_booking_again_is_recognised(connection: asyncpg.Connection) -> None:
    first = await ledger.book(connection, top_up())
    again = await ledger.book(connection, top_up())
    assert (again.id, again.repeated) == (first.id, True)
    assert await balances(connection) == {"cash": 5_000, "prepaid": -5_000}


@pytest.mark.parametrize(
    "other",
    [
        top_up(5_001),
        Booking(ref="top-up:1", kind=TransactionKind.PAYMENT, entries={CASH: 5_000, PREPAID: -5_000}),
        Booking(
            ref="top-up:1",
            kind=TransactionKind.TOP_UP,
            entries={CASH: 5_000, Account(2, 0, AccountKind.PREPAID): -5_000},
        ),
    ],
    ids=["amount", "kind", "account"],
)
async def test_a_used_reference_with_other_contents_is_an_error(
    connection: asyncpg.Connection, other: Booking
) -> None:
    await ledger.book(connection, top_up())
    with pytest.raises(ReferenceReused, match="top-up:1"):
        await ledger.book(connection, other)
    assert await balances(connection) == {"cash": 5_000, "prepaid": -5_000}


@pytest.mark.parametrize(
    "entries",
    [{CASH: 5, PREPAID: -4}, {CASH: 0, PREPAID: 0}, {}, {CASH: 5}, {CASH: 2**63, PREPAID: -(2**63)}],
    ids=["unbalanced", "nothing", "empty", "one-sided", "too large"],
)
async def test_what_is_no_transaction_is_refused(
    connection: asyncpg.Connection, entries: dict[Account, int]
) -> None:
    with pytest.raises(LedgerRefused):
        await ledger.book(connection, Booking(ref="x", kind=TransactionKind.TOP_UP, entries=entries))
    assert await connection.fetchval("select count(*) from billing.ledger_transaction") == 0


async def test_many_at_once_book_once(database: asyncpg.Pool) -> None:
    async def one() -> ledger.Booked:
        async with database.acquire() as connection:
            return await ledger.book(connection, top_up())  # type: ignore[arg-type]

    booked = await asyncio.gather(*(one() for _ in range(20)))
    assert sum(not each.repeated for each in booked) == 1
    assert len({each.id for each in booked}) == 1
    async with database.acquire() as connection:
        assert await balances(connection) == {"cash": 5_000, "prepaid": -5_000}  # type: ignore[arg-type]
