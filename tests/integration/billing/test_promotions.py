"""Promotional credit: used in the order of its end, expires once, and not while a gateway holds it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import asyncpg
import pytest

from penstock_billing import invariants, leases, ledger, promotions, wallets
from penstock_billing.errors import LedgerRefused, ReferenceReused, UnknownPromotion
from penstock_billing.leases import Need, Wallet
from penstock_billing.wishes import Wish

WALLET = Wallet(1, 0)
NOW = datetime.now(UTC)
SOON, LATER = NOW + timedelta(days=1), NOW + timedelta(days=30)
AFTER_SOON, AFTER_LATER = NOW + timedelta(days=2), NOW + timedelta(days=31)
BOOT = "b" * 32


@pytest.fixture
async def connection(database: asyncpg.Pool) -> AsyncIterator[Any]:
    async with database.acquire() as one:
        yield one
        assert await invariants.check(one) == []  # type: ignore[arg-type]


async def give(connection: Any, nano_usd: int, expires_at: datetime | None, wallet: Wallet = WALLET) -> int:
    wish = Wish(ref=f"gift:{nano_usd}:{expires_at}:{wallet}", amount_nano_usd=nano_usd)
    booked = await promotions.promote(connection, wish, wallet, expires_at)
    number: int = await connection.fetchval(
        "select id from billing.promotion where transaction_id = $1", booked.id
    )
    return number


async def lend(connection: Any, nano_usd: int) -> None:
    """Have a gateway lease so much more."""
    before = await connection.fetchval(
        "select coalesce(sum(granted_nano_usd - settled_nano_usd), 0) from billing.lease"
    )
    need = Need(room_nano_usd=int(before), at_once_nano_usd=int(before) + nano_usd)
    await leases.grant(connection, BOOT, "host", WALLET, need)


async def use(connection: Any, nano_usd: int) -> None:
    """As shipping books it; there are no events, so checks that look at events do not hold after it."""
    async with connection.transaction():
        number = await connection.fetchval("select nextval('billing.ledger_transaction_id_seq')")
        moment = await connection.fetchval("select now()")
        sides = [[1], ["prepaid"], [0], [nano_usd]]
        await connection.execute(
            ledger.SQL["book_usage"], number, f"ship:{BOOT}-0:{number}", moment, moment, *sides, BOOT
        )


async def lefts(connection: Any, wallet: Wallet = WALLET) -> dict[int, int]:
    return {each.id: each.left_nano_usd for each in (await promotions.count(connection, wallet)).promotions}


async def test_what_expires_first_is_used_first(database: asyncpg.Pool) -> None:
    async with database.acquire() as connection:
        stays = await give(connection, 100_000_000, None)
        later = await give(connection, 50_000_000, LATER)
        soon = await give(connection, 20_000_000, SOON)
        await lend(connection, 60_000_000)
        assert await lefts(connection) == {soon: 20_000_000, later: 50_000_000, stays: 100_000_000}
        await use(connection, 30_000_000)
        assert await lefts(connection) == {soon: 0, later: 40_000_000, stays: 100_000_000}


async def test_a_later_gift_that_ends_earlier_expires_whole(database: asyncpg.Pool) -> None:
    async with database.acquire() as connection:
        later = await give(connection, 50_000_000, LATER)
        await lend(connection, 40_000_000)
        await use(connection, 40_000_000)
        soon = await give(connection, 20_000_000, SOON)
        assert await lefts(connection) == {soon: 20_000_000, later: 10_000_000}
        assert await promotions.expire(connection, WALLET, AFTER_SOON) == 20_000_000
        assert await lefts(connection) == {soon: 0, later: 10_000_000}


async def test_two_controllers_at_once_expire_it_once(database: asyncpg.Pool) -> None:
    async with database.acquire() as connection:
        await give(connection, 50_000_000, SOON)
        await give(connection, 5_000_000, LATER)

    async def one() -> int:
        async with database.acquire() as connection:
            return await promotions.expire_due(connection, AFTER_SOON)  # type: ignore[arg-type]

    assert sorted(await asyncio.gather(*(one() for _ in range(5)))) == [0, 0, 0, 0, 50_000_000]
    async with database.acquire() as connection:
        assert await promotions.expire_due(connection, AFTER_SOON) == 0  # type: ignore[arg-type]
        assert await promotions.expire_due(connection, AFTER_LATER) == 5_000_000  # type: ignore[arg-type]
        breakage = await connection.fetchval(
            "select posted_nano_usd from billing.account where kind = 'breakage'"
        )
        assert breakage == -55_000_000
        assert await invariants.check(connection) == []  # type: ignore[arg-type]


async def test_what_a_gateway_holds_expires_when_it_comes_back(connection: Any) -> None:
    soon = await give(connection, 50_000_000, SOON)
    await lend(connection, 20_000_000)
    assert await promotions.expire(connection, WALLET, AFTER_SOON) == 30_000_000
    assert await lefts(connection) == {soon: 20_000_000}
    await leases.release(connection, BOOT, WALLET)
    assert await promotions.expire(connection, WALLET, AFTER_SOON) == 20_000_000
    assert await lefts(connection) == {soon: 0}


async def test_ended_early_it_does_not_take_from_others(connection: Any) -> None:
    soon = await give(connection, 20_000_000, SOON)
    later = await give(connection, 50_000_000, LATER)
    assert await promotions.end(connection, 1, later) == 50_000_000
    assert await promotions.end(connection, 1, later) == 0
    assert await lefts(connection) == {soon: 20_000_000, later: 0}
    with pytest.raises(UnknownPromotion):
        await promotions.end(connection, 2, soon)


async def test_paid_credit_does_not_expire(connection: Any) -> None:
    await wallets.top_up(connection, Wish(ref="t", amount_nano_usd=7), WALLET)
    await give(connection, 3, SOON)
    assert await promotions.expire_due(connection, AFTER_SOON) == 3
    (state,) = await wallets.states(connection, 1)
    assert (state.prepaid_nano_usd, state.promotional_nano_usd) == (7, 0)


async def test_a_gift_is_given_once_per_reference(connection: Any) -> None:
    wish = Wish(ref="gift", amount_nano_usd=5)
    first = await promotions.promote(connection, wish, WALLET, SOON)
    again = await promotions.promote(connection, wish, WALLET, SOON)
    assert (again.id, again.repeated) == (first.id, True)
    with pytest.raises(ReferenceReused):
        await promotions.promote(connection, wish, WALLET, LATER)
    with pytest.raises(LedgerRefused, match="which is over"):
        await promotions.promote(connection, Wish(ref="g", amount_nano_usd=5), WALLET, NOW)
    assert await connection.fetchval("select count(*) from billing.promotion") == 1
