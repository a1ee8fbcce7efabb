"""Leases: credit moves into them and back, whole, once, and never more than there is."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable

import asyncpg
import pytest

from penstock_billing import invariants, leases, ledger
from penstock_billing.errors import LeaseRefused
from penstock_billing.leases import Need, Release, Wallet
from penstock_billing.testing import fund

CENT = 10_000_000
WALLET = Wallet(1, 0)
A, B = "a" * 32, "b" * 32


@pytest.fixture
async def connection(database: asyncpg.Pool) -> AsyncIterator[asyncpg.Connection]:
    async with database.acquire() as one:
        yield one


async def credit(
    connection: asyncpg.Connection, nano_usd: int, promotional: int = 0, wallet: Wallet = WALLET
) -> None:
    await fund(connection, wallet, nano_usd, promotional_nano_usd=promotional)


async def use(connection: asyncpg.Connection, boot_id: str, nano_usd: int, wallet: Wallet = WALLET) -> None:
    """As shipping books it."""
    async with connection.transaction():
        number = await connection.fetchval("select nextval('billing.ledger_transaction_id_seq')")
        await connection.execute(
            ledger.SQL["book_usage"],
            number,
            f"ship:{boot_id}-0:{number}",
            await connection.fetchval("select now()"),
            await connection.fetchval("select now()"),
            [wallet.organisation_id],
            ["prepaid"],
            [wallet.project_id],
            [nano_usd],
            boot_id,
        )


async def balances(connection: asyncpg.Connection, wallet: Wallet = WALLET) -> dict[str, int]:
    """What there is, so with the sign turned, and nothing of what is 0."""
    rows = await connection.fetch(
        "select kind, posted_nano_usd from billing.account where organisation_id = $1 and project_id = $2",
        wallet.organisation_id,
        wallet.project_id,
    )
    return {
        row["kind"]: -row["posted_nano_usd"]
        for row in rows
        if row["posted_nano_usd"] and row["kind"] in {"prepaid", "promotional", "lease"}
    }


async def sound(connection: asyncpg.Connection) -> None:
    checks = frozenset(
        {
            invariants.Check.TRANSACTIONS_BALANCE,
            invariants.Check.BALANCES_ARE_SUMS,
            invariants.Check.LEASES_ARE_HELD,
        }
    )
    assert await invariants.check(connection, checks) == []


async def test_credit_is_lent_and_all_of_it_comes_back(connection: asyncpg.Connection) -> None:
    await credit(connection, 100 * CENT)
    lent = await leases.grant(connection, A, "here", WALLET, Need())
    assert lent.granted_nano_usd == CENT
    assert lent.free_nano_usd == 99 * CENT
    assert await balances(connection) == {"prepaid": 99 * CENT, "lease": CENT}
    assert await leases.release(connection, A, WALLET) is Release.DONE
    assert await balances(connection) == {"prepaid": 100 * CENT}
    assert await leases.release(connection, A, WALLET) is Release.NONE
    await sound(connection)


async def test_what_was_used_does_not_come_back(connection: asyncpg.Connection) -> None:
    await credit(connection, 100 * CENT)
    lent = await leases.grant(connection, A, "here", WALLET, Need(at_once_nano_usd=5 * CENT))
    await use(connection, A, 3 * CENT)
    spent = {"lease_id": lent.lease_id, "spent_nano_usd": 3 * CENT}
    assert await leases.release(connection, A, WALLET, **spent) is Release.DONE
    assert await balances(connection) == {"prepaid": 97 * CENT}
    await sound(connection)


async def test_a_living_holder_keeps_its_lease_until_all_is_shipped(connection: asyncpg.Connection) -> None:
    await credit(connection, 100 * CENT)
    lent = await leases.grant(connection, A, "here", WALLET, Need())
    spent = {"lease_id": lent.lease_id, "spent_nano_usd": 11}
    await use(connection, A, 10)
    assert await leases.release(connection, A, WALLET, **spent) is Release.TOO_EARLY
    await use(connection, A, 1)
    assert await leases.release(connection, A, WALLET, **spent) is Release.DONE


async def test_more_used_than_lent_is_taken_from_the_wallet(connection: asyncpg.Connection) -> None:
    await credit(connection, CENT)
    await leases.grant(connection, A, "here", WALLET, Need())
    await use(connection, A, CENT + 7)
    assert await leases.release(connection, A, WALLET) is Release.DONE
    assert await balances(connection) == {"prepaid": -7}
    lent = await leases.grant(connection, A, "here", WALLET, Need(at_once_nano_usd=5))
    assert (lent.granted_nano_usd, lent.free_nano_usd) == (0, -7)
    await sound(connection)


async def test_given_credit_is_used_before_paid_credit(connection: asyncpg.Connection) -> None:
    await credit(connection, 100 * CENT, promotional=CENT // 2)
    await leases.grant(connection, A, "here", WALLET, Need())
    assert await balances(connection) == {"prepaid": 100 * CENT - CENT // 2, "lease": CENT}
    await use(connection, A, CENT // 4)
    # A quarter is used and a quarter held: what comes back first is what was paid for.
    back = await leases.give_back(connection, A, WALLET, CENT // 2)
    assert back is not None
    assert back[1] == CENT // 2
    assert await balances(connection) == {"prepaid": 100 * CENT, "lease": CENT // 4}
    assert await leases.release(connection, A, WALLET) is Release.DONE
    assert await balances(connection) == {"prepaid": 100 * CENT, "promotional": CENT // 4}
    await sound(connection)


async def test_nobody_lends_what_is_not_there(database: asyncpg.Pool) -> None:
    async with database.acquire() as connection:
        await credit(connection, 10 * CENT)  # type: ignore[arg-type]

    async def one(boot_id: str) -> int:
        async with database.acquire() as connection:
            need = Need(at_once_nano_usd=4 * CENT)
            return (await leases.grant(connection, boot_id, "here", WALLET, need)).granted_nano_usd  # type: ignore[arg-type]

    lent = await asyncio.gather(*(one(f"{number:032x}") for number in range(5)))
    assert sorted(lent) == [0, 0, 2 * CENT, 4 * CENT, 4 * CENT]
    async with database.acquire() as connection:
        assert await balances(connection) == {"lease": 10 * CENT}  # type: ignore[arg-type]
        await sound(connection)  # type: ignore[arg-type]


async def test_first_leases_of_a_wallet_do_not_wait_for_each_other_for_ever(
    database: asyncpg.Pool, until: Callable[[Callable[[], Awaitable[bool]]], Awaitable[None]]
) -> None:
    """One makes the account of leases, one came before it was there, one comes after: in this very order."""

    async def wait_for_locks(count: int) -> None:
        async def waiting() -> bool:
            query = "select count(*) from pg_stat_activity where wait_event_type = 'Lock'"
            return bool(await database.fetchval(query + " and datname = current_database()") == count)

        await until(waiting)

    async with database.acquire() as first, database.acquire() as second, database.acquire() as third:
        await credit(first, 100 * CENT)  # type: ignore[arg-type]
        async with database.acquire() as obstacle:
            in_the_way = obstacle.transaction()
            await in_the_way.start()
            # The second one's booking, as far as it will get.
            await obstacle.execute(
                "insert into billing.ledger_transaction (ref, kind, period_start, period_end)"
                " values ('lease:2:1', 'lease_grant', now(), now())"
            )
            makes_it = first.transaction()
            await makes_it.start()
            await leases.grant(first, A, "here", WALLET, Need())  # type: ignore[arg-type]
            before = asyncio.create_task(leases.grant(second, B, "here", WALLET, Need()))  # type: ignore[arg-type]
            await wait_for_locks(1)
            await makes_it.commit()
            after = asyncio.create_task(leases.grant(third, "c" * 32, "here", WALLET, Need()))  # type: ignore[arg-type]
            await wait_for_locks(2)
            await in_the_way.rollback()
        assert (await before).granted_nano_usd == (await after).granted_nano_usd == CENT
        await sound(first)  # type: ignore[arg-type]


async def test_no_more_is_given_back_than_is_left(connection: asyncpg.Connection) -> None:
    await credit(connection, 100 * CENT)
    lease_id = (await leases.grant(connection, A, "here", WALLET, Need())).lease_id
    await use(connection, A, CENT - 5)
    assert await leases.give_back(connection, A, WALLET, CENT) == (lease_id, CENT - 5)
    assert await balances(connection) == {"prepaid": 99 * CENT + 5}
    assert await leases.give_back(connection, A, WALLET, CENT) == (lease_id, CENT - 5)
    assert await leases.give_back(connection, B, WALLET, CENT) is None
    await sound(connection)


async def test_a_dead_process_keeps_its_lease_until_it_is_settled(connection: asyncpg.Connection) -> None:
    await credit(connection, 100 * CENT)
    await leases.grant(connection, A, "here", WALLET, Need())
    assert await leases.release_orphaned(connection) == 0
    await use(connection, A, 400)
    await connection.execute("update billing.gateway_boot set settled_at = now() where boot_id = $1", A)
    assert await leases.release_orphaned(connection) == 1
    assert await balances(connection) == {"prepaid": 100 * CENT - 400}
    with pytest.raises(LeaseRefused, match="settled"):
        await leases.grant(connection, A, "here", WALLET, Need())
    await sound(connection)


async def test_two_reapers_release_a_lease_once(database: asyncpg.Pool) -> None:
    async with database.acquire() as connection:
        await credit(connection, 100 * CENT)  # type: ignore[arg-type]
        for number in range(8):
            await leases.grant(connection, f"{number:032x}", "here", WALLET, Need())  # type: ignore[arg-type]
        await connection.execute("update billing.gateway_boot set settled_at = now()")

    async def reap() -> int:
        async with database.acquire() as connection:
            return await leases.release_orphaned(connection)  # type: ignore[arg-type]

    assert sum(await asyncio.gather(*(reap() for _ in range(4)))) == 8
    async with database.acquire() as connection:
        assert await balances(connection) == {"prepaid": 100 * CENT}  # type: ignore[arg-type]
        await sound(connection)  # type: ignore[arg-type]


async def test_what_another_holds_and_does_not_need_is_asked_for(connection: asyncpg.Connection) -> None:
    await credit(connection, CENT)
    await leases.grant(connection, A, "here", WALLET, Need())
    lent = await leases.grant(connection, B, "there", WALLET, Need(at_once_nano_usd=5))
    assert (lent.granted_nano_usd, lent.free_nano_usd, lent.elsewhere_nano_usd) == (0, 0, CENT)
    await leases.recall(connection, B, WALLET)
    assert await leases.recalled(connection, A) == [WALLET]
    assert await leases.recalled(connection, B) == []
    await leases.give_back(connection, A, WALLET, CENT - 2)
    assert await leases.recalled(connection, A) == []
    lent = await leases.grant(connection, B, "there", WALLET, Need(at_once_nano_usd=5))
    assert lent.granted_nano_usd == CENT - 2


async def test_leases_and_shipping_at_once_stay_in_balance(database: asyncpg.Pool) -> None:
    wallets = [Wallet(1, 0), Wallet(1, 5), Wallet(2, 0)]
    async with database.acquire() as connection:
        for wallet in wallets:
            await credit(connection, 50 * CENT, CENT, wallet)  # type: ignore[arg-type]

    async def work(boot_id: str, what: Callable[[asyncpg.Connection, Wallet], object]) -> None:
        for number in range(15):
            async with database.acquire() as connection:
                await what(connection, wallets[number % 3])  # type: ignore[misc, arg-type]

    await asyncio.gather(
        work(A, lambda c, w: leases.grant(c, A, "h", w, Need(at_once_nano_usd=CENT))),
        work(B, lambda c, w: leases.grant(c, B, "h", w, Need(at_once_nano_usd=CENT))),
        work(A, lambda c, w: use(c, A, 1000, w)),
        work(B, lambda c, w: leases.give_back(c, B, w, CENT // 3)),
        work(B, lambda c, w: use(c, B, 500, w)),
    )
    async with database.acquire() as connection:
        for boot_id in (A, B):
            for wallet in wallets:
                await leases.release(connection, boot_id, wallet)  # type: ignore[arg-type]
        total = 0
        for wallet in wallets:
            left = await balances(connection, wallet)  # type: ignore[arg-type]
            assert "lease" not in left
            total += sum(left.values())
        assert total == 3 * 51 * CENT - 15 * 1500
        await sound(connection)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("free", "need", "lent"),
    [
        (10**12, Need(), CENT),
        (10**12, Need(burn_nano_usd=30 * CENT), 30 * CENT),
        (10**12, Need(burn_nano_usd=10**11), 100 * CENT),
        (100 * CENT, Need(burn_nano_usd=10**11), 5 * CENT),
        (10 * CENT, Need(burn_nano_usd=10**11), CENT),
        (CENT // 2, Need(burn_nano_usd=10**11), CENT // 2),
        (100 * CENT, Need(at_once_nano_usd=70 * CENT), 70 * CENT),
        (100 * CENT, Need(at_once_nano_usd=170 * CENT), 100 * CENT),
        (10**12, Need(room_nano_usd=CENT // 4), CENT - CENT // 4),
        (10**12, Need(room_nano_usd=5 * CENT), 0),
        (-5, Need(at_once_nano_usd=70 * CENT), 0),
    ],
)
def test_a_lease_is_comfortable_and_a_small_part_of_what_there_is(free: int, need: Need, lent: int) -> None:
    assert leases.size(free, need) == lent
