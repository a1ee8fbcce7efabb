"""Refunds and corrections: to where it was paid from, once, and never more than was charged."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import asyncpg
import pytest

from penstock_billing import giving_back, invariants, wallets
from penstock_billing.errors import AmountRefused, LedgerRefused, ReferenceReused, UnknownRequest
from penstock_billing.journal import Journal
from penstock_billing.leases import Wallet
from penstock_billing.record import Funding, Outcome, UsageRecord
from penstock_billing.shipper import Shipper
from penstock_billing.wishes import Wish

Make = Callable[..., UsageRecord]


@pytest.fixture
async def shipped(journal: Journal, shipper: Shipper, make: Make) -> Callable[..., Any]:
    """Record and ship requests that cost something, in one batch."""

    async def run(*changes: dict[str, object]) -> list[UsageRecord]:
        records = [
            make(**({"organisation_id": 1, "outcome": Outcome.DONE, "output_tokens": 700} | each))
            for each in changes
        ]
        for record in records:
            journal.append(record)
        await shipper.ship_once()
        return [record for record in records if record.cost_nano_usd]

    return run


@pytest.fixture
async def connection(database: asyncpg.Pool) -> Any:
    async with database.acquire() as one:
        yield one
        found = await invariants.check(one)  # type: ignore[arg-type]
        assert [each for each in found if each.check is not invariants.Check.COSTS_ARE_REPRODUCED] == []


async def balance(connection: Any, kind: str, organisation: int = 1, project: int = 0) -> int:
    query = (
        "select coalesce(sum(posted_nano_usd), 0) from billing.account "
        "where organisation_id = $1 and project_id = $2 and kind = $3"
    )
    return int(await connection.fetchval(query, organisation, project, kind))


def wish(ref: str, nano_usd: int = 0) -> Wish:
    return Wish(ref=ref, amount_nano_usd=nano_usd)


async def test_a_refund_goes_where_the_request_was_paid_from(connection: Any, shipped: Any) -> None:
    owed, paid, project = await shipped(
        {},
        {"funding": Funding.PREPAID},
        {"funding": Funding.PREPAID, "wallet_project_id": 4},
    )
    for number, record in enumerate((owed, paid, project)):
        await giving_back.refund_request(connection, wish(f"r{number}"), 1, record.request_id)
    assert await balance(connection, "receivable") == 0
    assert await balance(connection, "prepaid") == 0
    assert await balance(connection, "prepaid", project=4) == 0
    assert await balance(connection, "concession") == owed.cost_nano_usd + paid.cost_nano_usd
    assert await balance(connection, "concession", project=4) == project.cost_nano_usd


async def test_no_more_than_its_cost_is_refunded_however_many_try(
    database: asyncpg.Pool, connection: Any, shipped: Any
) -> None:
    record, _ = await shipped({}, {})
    half = record.cost_nano_usd // 2

    async def one(number: int) -> bool:
        async with database.acquire() as own:
            try:
                await giving_back.refund_request(own, wish(f"r{number}", half), 1, record.request_id)  # type: ignore[arg-type]
            except AmountRefused:
                return False
            return True

    assert sum(await asyncio.gather(*(one(number) for number in range(6)))) == 2
    rest = record.cost_nano_usd - 2 * half
    if rest:
        await giving_back.refund_request(connection, wish("rest"), 1, record.request_id)
    assert await balance(connection, "concession") == record.cost_nano_usd
    with pytest.raises(AmountRefused, match=r"0\.000000000 USD of it is left"):
        await giving_back.refund_request(connection, wish("more", 1), 1, record.request_id)


async def test_a_repeat_is_known_by_its_reference_and_its_contents(connection: Any, shipped: Any) -> None:
    record, other = await shipped({}, {})
    first = await giving_back.refund_request(connection, wish("r"), 1, record.request_id)
    again = await giving_back.refund_request(connection, wish("r"), 1, record.request_id)
    assert (again.id, again.repeated) == (first.id, True)
    for attempt in (
        giving_back.refund_request(connection, wish("r"), 1, other.request_id),
        giving_back.refund_request(connection, wish("r", 1), 1, record.request_id),
        giving_back.refund_amount(connection, wish("r", record.cost_nano_usd), 1),
        giving_back.correct(connection, wish("r", 1), first.id),
        wallets.top_up(connection, wish("r", record.cost_nano_usd), Wallet(1)),
    ):
        with pytest.raises(ReferenceReused):
            await attempt


async def test_a_correction_and_refunds_share_the_limit_of_the_charge(connection: Any, shipped: Any) -> None:
    first, second = await shipped({}, {})
    charged = await connection.fetchval("select ledger_transaction_id from billing.usage_event limit 1")
    total = first.cost_nano_usd + second.cost_nano_usd
    await giving_back.correct(connection, wish("c", total - 1), charged)
    with pytest.raises(AmountRefused):
        await giving_back.refund_request(connection, wish("r", 2), 1, first.request_id)
    await giving_back.refund_request(connection, wish("r"), 1, first.request_id)
    assert await balance(connection, "receivable") == 0


async def test_what_was_given_back_by_mistake_can_be_taken_back_and_given_again(
    connection: Any, shipped: Any
) -> None:
    (record,) = await shipped({})
    refund = await giving_back.refund_request(connection, wish("r"), 1, record.request_id)
    await giving_back.correct(connection, wish("c", record.cost_nano_usd), refund.id)
    assert await balance(connection, "receivable") == record.cost_nano_usd
    await giving_back.refund_request(connection, wish("r2"), 1, record.request_id)
    assert await balance(connection, "receivable") == 0
    with pytest.raises(AmountRefused):
        await giving_back.refund_request(connection, wish("r3"), 1, record.request_id)


async def test_an_amount_is_bounded_by_all_that_was_charged(connection: Any, shipped: Any) -> None:
    (record,) = await shipped({})
    with pytest.raises(AmountRefused):
        await giving_back.refund_amount(connection, wish("a", record.cost_nano_usd + 1), 1)
    with pytest.raises(LedgerRefused, match="no wallet of its own"):
        await giving_back.refund_amount(connection, wish("c", 1), 1, 9)
    await giving_back.refund_amount(connection, wish("b", record.cost_nano_usd), 1)
    assert await balance(connection, "receivable") == 0


async def test_an_amount_becomes_credit_of_a_prepaid_wallet(connection: Any, shipped: Any) -> None:
    await shipped({})
    await wallets.set_terms(connection, Wallet(1), Funding.PREPAID)
    await giving_back.refund_amount(connection, wish("a", 5), 1)
    assert await balance(connection, "prepaid") == -5


async def test_a_batch_of_many_organisations_must_be_told_whose(connection: Any, shipped: Any) -> None:
    await shipped({}, {"organisation_id": 2})
    charged = await connection.fetchval("select ledger_transaction_id from billing.usage_event limit 1")
    with pytest.raises(LedgerRefused, match="--organisation"):
        await giving_back.correct(connection, wish("c", 1), charged)
    await giving_back.correct(connection, wish("c", 1), charged, 2)
    assert await balance(connection, "concession", 2) == 1


async def test_leases_and_expiries_are_not_corrected(connection: Any) -> None:
    from penstock_billing import promotions

    booked = await promotions.promote(connection, wish("g", 5), Wallet(1), None)
    with pytest.raises(LedgerRefused, match="penstock credit expire"):
        await giving_back.correct(connection, wish("c", 1), booked.id)


async def test_another_organisations_request_is_unknown(connection: Any, shipped: Any) -> None:
    (record,) = await shipped({})
    with pytest.raises(UnknownRequest):
        await giving_back.refund_request(connection, wish("r"), 2, record.request_id)
