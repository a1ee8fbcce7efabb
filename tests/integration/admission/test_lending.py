"""Who waits for credit, how long, and what becomes of leases that nobody needs."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Awaitable, Callable

import asyncpg
import pytest

from penstock.admission.credit import lending
from penstock.admission.credit.errors import CreditHeld, CreditUnavailable, InsufficientCredit
from penstock.admission.credit.lending import Lender
from penstock.admission.credit.purse import Purse
from penstock.admission.credit.wallets import Wallets
from penstock_billing import leases
from penstock_billing.leases import Wallet
from penstock_billing.testing import credit_nano_usd, fund

CENT = 10_000_000
WALLET = Wallet(1)


class Watched:
    """A pool that counts its uses, and from which nothing comes while it is `frozen`."""

    def __init__(self, pool: asyncpg.Pool) -> None:
        self._pool = pool
        self.uses = 0
        self.moves = asyncio.Event()
        self.moves.set()

    @contextlib.asynccontextmanager
    async def acquire(self) -> AsyncIterator[asyncpg.Connection]:
        self.uses += 1
        await self.moves.wait()
        async with self._pool.acquire() as connection:
            yield connection  # type: ignore[misc]


@pytest.fixture
async def pool(database: asyncpg.Pool) -> Watched:
    return Watched(database)


@pytest.fixture
async def lender(pool: Watched) -> AsyncIterator[Lender]:
    made = Lender(pool, b"a" * 16, Wallets())  # type: ignore[arg-type]
    yield made
    pool.moves.set()
    await made.drain(10)


@pytest.fixture
async def credit(database: asyncpg.Pool) -> Callable[[int], Awaitable[None]]:
    async def add(nano_usd: int) -> None:
        async with database.acquire() as connection:
            await fund(connection, WALLET, nano_usd)  # type: ignore[arg-type]

    return add


async def rest(purse: Purse) -> None:
    """Wait until nobody talks with the database about it."""
    async with asyncio.timeout(20):
        while purse.errand is not None:
            await asyncio.wait({purse.errand})
            await asyncio.sleep(0)


async def test_all_who_find_a_cold_wallet_share_one_grant(
    lender: Lender, pool: Watched, credit: Callable[[int], Awaitable[None]]
) -> None:
    await credit(1000 * CENT)
    purse = lender.purse(WALLET)
    held = await asyncio.gather(*(lender.reserve(purse, CENT, CENT) for _ in range(50)))
    assert held == [CENT] * 50
    assert purse.held == 50 * CENT
    assert pool.uses <= 2


async def test_with_a_warm_lease_nobody_waits_and_it_is_renewed_behind_their_backs(
    lender: Lender, pool: Watched, credit: Callable[[int], Awaitable[None]]
) -> None:
    await credit(1000 * CENT)
    purse = lender.purse(WALLET)
    await lender.reserve(purse, CENT // 10, CENT // 10)
    await rest(purse)
    uses = pool.uses
    pool.moves.clear()
    while pool.uses == uses:
        # Half of it is there when the lender is sent for more, and it is in nobody's way.
        assert purse.hold(CENT // 10)
        await asyncio.sleep(0)
    assert purse.room > 0
    pool.moves.set()
    granted = purse.granted
    await rest(purse)
    assert purse.granted > granted


async def test_a_database_that_says_nothing_is_waited_for_once_and_not_for_long(
    lender: Lender,
    pool: Watched,
    credit: Callable[[int], Awaitable[None]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    await credit(CENT)
    monkeypatch.setattr(lending, "WAIT_S", 0.2)
    monkeypatch.setattr(lending, "AWAY_S", 600.0)
    pool.moves.clear()
    purse = lender.purse(WALLET)
    with pytest.raises(CreditUnavailable):
        await asyncio.wait_for(lender.reserve(purse, 5, 5), 10)
    began_s = time.monotonic()
    for _ in range(100):
        with pytest.raises(CreditUnavailable):
            await lender.reserve(purse, 5, 5)
    assert time.monotonic() - began_s < 100 * 0.2
    assert (purse.held, purse.waiting) == (0, [])


async def test_who_leaves_while_waiting_takes_nothing_along(
    lender: Lender, pool: Watched, credit: Callable[[int], Awaitable[None]]
) -> None:
    await credit(CENT)
    pool.moves.clear()
    purse = lender.purse(WALLET)
    waiting = [asyncio.create_task(lender.reserve(purse, 5, 5)) for _ in range(3)]
    while not purse.waiting:  # noqa: ASYNC110 - the tasks make it so
        await asyncio.sleep(0)
    waiting[0].cancel()
    pool.moves.set()
    assert await waiting[1] == await waiting[2] == 5
    assert purse.held == 10
    await asyncio.gather(waiting[0], return_exceptions=True)
    assert purse.held == 10


async def test_less_than_wanted_is_taken_where_it_is_enough(
    lender: Lender, credit: Callable[[int], Awaitable[None]]
) -> None:
    await credit(CENT)
    purse = lender.purse(WALLET)
    assert await lender.reserve(purse, 3 * CENT, CENT // 2) == CENT


async def test_what_is_held_and_what_is_missing_are_told_apart(
    lender: Lender, credit: Callable[[int], Awaitable[None]]
) -> None:
    await credit(CENT)
    purse = lender.purse(WALLET)
    await lender.reserve(purse, CENT - 10, CENT - 10)
    with pytest.raises(CreditHeld):
        await lender.reserve(purse, 11, 11)
    with pytest.raises(InsufficientCredit) as caught:
        await lender.reserve(purse, CENT + 1, CENT + 1)
    assert caught.value.available_nano_usd == CENT


async def test_a_lease_that_nobody_uses_is_ended_and_too_much_goes_back(
    lender: Lender,
    database: asyncpg.Pool,
    credit: Callable[[int], Awaitable[None]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    await credit(1000 * CENT)
    purse = lender.purse(WALLET)
    held = await lender.reserve(purse, 90 * CENT, 90 * CENT)
    await rest(purse)
    purse.settle(held, 0)
    purse.age(3600)
    lender._tend(purse, time.monotonic())
    await rest(purse)
    assert purse.room == purse.granted == CENT
    monkeypatch.setattr(lending, "IDLE_S", -1.0)
    lender._tend(purse, time.monotonic())
    await rest(purse)
    lender._tend(purse, time.monotonic())
    assert lender._purses == {}
    async with database.acquire() as connection:
        assert await connection.fetchval("select count(*) from billing.lease where released_at is null") == 0
        assert await credit_nano_usd(connection, WALLET) == 1000 * CENT  # type: ignore[arg-type]


async def test_a_new_gateway_leases_for_wallets_that_are_in_use(
    pool: Watched, database: asyncpg.Pool, credit: Callable[[int], Awaitable[None]]
) -> None:
    await credit(1000 * CENT)
    async with database.acquire() as connection:
        await leases.grant(connection, "b" * 32, "there", WALLET, leases.Need())  # type: ignore[arg-type]
    wallets = Wallets()
    await wallets.refresh(database)
    new = Lender(pool, b"n" * 16, wallets)  # type: ignore[arg-type]
    running = asyncio.create_task(new.run())
    async with asyncio.timeout(20):
        while new.purse(WALLET).room < CENT:  # noqa: ASYNC110 - its task makes it so
            await asyncio.sleep(0.01)
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    await new.drain(10)
