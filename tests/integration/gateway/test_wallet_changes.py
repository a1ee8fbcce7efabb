"""A wallet that changes how it pays: what was admitted is paid as it was admitted, and no credit is lost."""

from __future__ import annotations

from typing import Any

import pytest

from penstock_billing import invariants, leases, wallets
from penstock_billing.leases import Wallet
from penstock_billing.record import Funding
from penstock_billing.wishes import Wish

CREDIT = 10_000_000_000
CHAT = {"model": "penstock/demo-chat", "messages": [{"role": "user", "content": "hello"}], "max_tokens": 8}


@pytest.fixture
async def wallet(bench: Any) -> Wallet:
    """Prepaid, with 10 dollars."""
    organisation_id = await bench.database.fetchval("select id from access.organisation")
    wallet = Wallet(organisation_id)
    async with bench.database.acquire() as connection:
        await wallets.top_up(connection, Wish(ref="t", amount_nano_usd=CREDIT), wallet)
    await change(bench, wallet, Funding.PREPAID)
    return wallet


async def change(bench: Any, wallet: Wallet, funding: Funding) -> None:
    await wallets.set_terms(bench.database, wallet, funding)
    await bench.gateway.wallets.refresh(bench.database)


async def paid(bench: Any, answer: Any) -> tuple[str, int]:
    row = await bench.event(answer.headers["x-request-id"])
    return row["funding"], row["cost_nano_usd"]


@pytest.mark.parametrize(
    ("before", "after"), [(Funding.PREPAID, Funding.POSTPAID), (Funding.POSTPAID, Funding.PREPAID)]
)
async def test_what_runs_during_a_change_is_paid_as_it_was_admitted(
    bench: Any, wallet: Wallet, before: Funding, after: Funding
) -> None:
    await bench.start_engine(tokens_per_second=8)
    await change(bench, wallet, before)
    async with bench.client() as client:
        async with client.stream("POST", "/v1/chat/completions", json=CHAT | {"stream": True}) as running:
            assert running.status_code == 200
            await change(bench, wallet, after)
            later = await client.post("/v1/chat/completions", json=CHAT)
            await running.aread()
        (old, old_cost), (new, new_cost) = await paid(bench, running), await paid(bench, later)
    assert (old, new) == (before.value, after.value)
    assert old_cost > 0
    assert new_cost > 0
    # Now as an idle gateway does within a minute: what it holds comes back, less what was used.
    purse = bench.gateway.lender.purse(wallet)
    async with bench.database.acquire() as connection:
        await leases.release(
            connection, bench.gateway.journal.boot_id.hex(), wallet, spent_nano_usd=purse.spent
        )
        (state,) = await wallets.states(connection, wallet.organisation_id)
        assert await invariants.check(connection) == []
    prepaid_cost, postpaid_cost = (old_cost, new_cost) if before is Funding.PREPAID else (new_cost, old_cost)
    assert (state.prepaid_nano_usd, state.leased_nano_usd) == (CREDIT - prepaid_cost, 0)
    assert state.owed_nano_usd == postpaid_cost


async def test_credit_that_stays_behind_is_there_when_it_is_prepaid_again(bench: Any, wallet: Wallet) -> None:
    await bench.start_engine()
    costs = {Funding.PREPAID: 0, Funding.POSTPAID: 0}
    async with bench.client() as client:
        for funding in (Funding.PREPAID, Funding.POSTPAID, Funding.PREPAID):
            await change(bench, wallet, funding)
            answer = await client.post("/v1/chat/completions", json=CHAT)
            said, cost = await paid(bench, answer)
            assert said == funding
            costs[funding] += cost
    (state,) = await wallets.states(bench.database, wallet.organisation_id)
    assert state.available_nano_usd == CREDIT - costs[Funding.PREPAID]
    assert state.owed_nano_usd == costs[Funding.POSTPAID]


async def test_a_project_that_gets_a_wallet_pays_from_it_at_once(bench: Any, wallet: Wallet) -> None:
    await bench.start_engine()
    project_id = await bench.database.fetchval("select id from access.project")
    own = Wallet(wallet.organisation_id, project_id)
    async with bench.client() as client:
        first = await client.post("/v1/chat/completions", json=CHAT)
        await change(bench, own, Funding.POSTPAID)
        second = await client.post("/v1/chat/completions", json=CHAT)
        assert [(await paid(bench, each))[0] for each in (first, second)] == ["prepaid", "postpaid"]
    row = await bench.event(second.headers["x-request-id"])
    assert row["wallet_project_id"] == project_id
    states = await wallets.states(bench.database, wallet.organisation_id)
    assert [state.owed_nano_usd for state in states] == [0, row["cost_nano_usd"]]
