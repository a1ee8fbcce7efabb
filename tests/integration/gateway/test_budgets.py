"""Budgets as a client meets them: 402 with what is wrong, from a real gateway."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import Any

import pytest

from penstock_base import money
from penstock_billing import budgets
from penstock_billing.budgets import Period, Plan, Scope

CHAT = {"model": "penstock/demo-chat", "messages": [{"role": "user", "content": "hello"}], "max_tokens": 8}

Limiting = Callable[..., Awaitable[int]]


@pytest.fixture
def limit_spending(bench: Any) -> Limiting:
    """Set a budget of the test's organisation, and have the gateway know it."""

    async def run(nano_usd: int, *, enforced: bool = True, period: Period = Period.MONTH) -> int:
        async with bench.database.acquire() as connection:
            organisation_id = await connection.fetchval("select id from access.organisation")
            plan = Plan(limit_nano_usd=nano_usd, enforced=enforced)
            made = await budgets.put(connection, Scope(organisation_id), period, plan)
        await bench.gateway.budgets.refresh(bench.database)
        return made

    return run


async def test_a_used_up_budget_refuses_with_402_and_says_what_to_do(
    bench: Any, limit_spending: Limiting
) -> None:
    await bench.start_engine()
    budget = await limit_spending(5)
    async with bench.client() as client:
        refused = await client.post("/v1/chat/completions", json=CHAT)
    assert refused.status_code == 402
    error = refused.json()["error"]
    assert error["code"] == "budget_exceeded"
    assert (error["budget"], error["scope"], error["period"]) == (str(budget), "organisation", "month")
    assert (error["limit_usd"], error["spent_usd"]) == ("0.000000005", "0.00")
    resets = budgets.month_after(datetime.now(UTC))
    assert error["resets_at"] == resets.isoformat()
    assert f"begins anew on {resets:%Y-%m-%d}" in error["message"]
    assert "max_tokens" in error["message"]


async def test_what_was_spent_a_moment_ago_counts_before_postgres_has_it(
    bench: Any, limit_spending: Limiting
) -> None:
    await bench.start_engine()
    await limit_spending(1)
    async with bench.client() as client:
        needed = (await client.post("/v1/chat/completions", json=CHAT)).json()["error"]["needed_usd"]
        # The shipper stands still, so that only the gateway knows what it spent.
        async with bench.database.acquire() as connection, connection.transaction():
            await connection.execute("lock table billing.usage_event in exclusive mode")
            await limit_spending(money.usd_to_nano(needed))
            answers = [await client.post("/v1/chat/completions", json=CHAT) for _ in range(2)]
    assert [answer.status_code for answer in answers] == [200, 402]
    cost = answers[0].headers["x-penstock-cost-usd"]
    assert money.usd_to_nano(answers[1].json()["error"]["spent_usd"]) == money.usd_to_nano(cost) > 0


async def test_room_that_running_requests_hold_is_worth_waiting_for(
    bench: Any, limit_spending: Limiting
) -> None:
    await bench.start_engine(tokens_per_second=4)
    await limit_spending(1)
    async with bench.client() as client:
        needed = (await client.post("/v1/chat/completions", json=CHAT)).json()["error"]["needed_usd"]
        await limit_spending(money.usd_to_nano(needed) * 3 // 2)
        async with client.stream("POST", "/v1/chat/completions", json=CHAT | {"stream": True}) as running:
            assert running.status_code == 200
            held = await client.post("/v1/chat/completions", json=CHAT)
            await running.aread()
        assert (held.status_code, held.json()["error"]["code"]) == (429, "budget_held")
        assert held.headers["retry-after"] == "1"
        assert (await client.post("/v1/chat/completions", json=CHAT)).status_code == 200


async def test_a_soft_budget_refuses_nothing(bench: Any, limit_spending: Limiting) -> None:
    await bench.start_engine()
    await limit_spending(0, enforced=False)
    async with bench.client() as client:
        assert (await client.post("/v1/chat/completions", json=CHAT)).status_code == 200


async def test_a_refused_or_failed_request_holds_nothing(bench: Any, limit_spending: Limiting) -> None:
    engine = await bench.start_engine()
    await limit_spending(1)
    async with bench.client() as client:
        needed = (await client.post("/v1/chat/completions", json=CHAT)).json()["error"]["needed_usd"]
        await limit_spending(money.usd_to_nano(needed))
        await engine.breaks(cut_at_token=2)
        assert (await client.post("/v1/chat/completions", json=CHAT)).status_code == 502
        await engine.mend()
        assert (await client.post("/v1/chat/completions", json=CHAT | {"n": 0})).status_code == 400
        assert (await client.post("/v1/chat/completions", json=CHAT)).status_code == 200
