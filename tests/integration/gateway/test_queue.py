"""Requests that have to wait: for a sleeping model, for their turn, for room under a limit."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any

import pytest

from penstock.access import keys, limits
from penstock.access.limits import RateLimits

Body = Callable[..., bytes]
CHAT = "/v1/chat/completions"
JSON = {"content-type": "application/json"}
MODEL = "penstock/demo-chat"
PEPPER = b"p" * 32


async def waiting(bench: Any) -> int | None:
    """How many requests wait, as controllers are told."""
    load = await bench.database.fetchrow("select * from engines.load where model = $1", MODEL)
    return load["waiting_requests"] if load is not None else None


async def until_waiting(bench: Any, count: int) -> None:
    async def told() -> bool | None:
        return True if await waiting(bench) == count else None

    await bench.until(told, 30)


async def test_requests_for_a_sleeping_model_wait_and_are_answered_when_it_wakes(
    bench: Any, chat: Body
) -> None:
    await bench.set_pool()
    async with bench.client() as client:
        assert (await client.get("/v1/models")).json()["data"][0]["id"] == MODEL
        asked = [asyncio.create_task(client.post(CHAT, content=chat(), headers=JSON)) for _ in range(5)]
        await until_waiting(bench, 5)
        assert not any(task.done() for task in asked)
        await bench.start_engine()
        answers = await asyncio.gather(*asked)
    assert [answer.status_code for answer in answers] == [200] * 5
    event = await bench.event(answers[0].headers["x-request-id"])
    assert event["queue_us"] > 100_000
    assert 100_000 < event["wake_us"] <= event["wait_us"] <= event["queue_us"] - event["admit_us"]
    assert (event["candidates"], event["policy"], event["retries"]) == (1, "prefix_affinity", 0)
    await until_waiting(bench, 0)


async def test_what_a_start_took_does_not_count_as_the_time_to_first_token(bench: Any, chat: Body) -> None:
    await bench.set_pool()
    async with bench.client() as client:
        asked = asyncio.create_task(client.post(CHAT, content=chat(stream=True), headers=JSON))
        await until_waiting(bench, 1)
        await bench.start_engine()
        event = await bench.event((await asked).headers["x-request-id"])
    took_s = bench.gateway.first_tokens.p90_s(MODEL)
    assert 0 < took_s <= (event["first_token_us"] - event["wake_us"]) / 1e6 + 0.001
    assert event["wake_us"] > 100_000


async def test_who_leaves_while_waiting_is_forgotten_and_pays_nothing(bench: Any, chat: Body) -> None:
    await bench.set_pool()
    async with bench.client() as client:
        asked = asyncio.create_task(client.post(CHAT, content=chat(), headers=JSON))
        await until_waiting(bench, 1)
        asked.cancel()
        await until_waiting(bench, 0)
    engine = await bench.start_engine()
    assert await engine.made() == {}
    assert await bench.database.fetchval("select count(*) from billing.usage_event") == 0


async def test_a_flood_from_one_tenant_does_not_hold_up_another(bench: Any, chat: Body) -> None:
    await bench.set_pool(waiting_max=500)
    await bench.start_engine(batch_max=2, tokens_per_second=100, answer_tokens=20)
    async with bench.database.acquire() as connection:
        other_key = await keys.create(connection, PEPPER, name="other", organisation="other")
    async with bench.client() as client:

        async def ask(key: str) -> tuple[int, float]:
            began = time.monotonic()
            headers = JSON | {"authorization": f"Bearer {key}"}
            answer = await client.post(CHAT, content=chat(max_tokens=20), headers=headers, timeout=120)
            return answer.status_code, time.monotonic() - began

        flood = [asyncio.create_task(ask(bench.key)) for _ in range(60)]

        async def in_line() -> bool | None:
            return True if bench.gateway.dispatcher.waiting(MODEL)[0] > 50 else None

        await bench.until(in_line, 30)
        quiet = [await ask(other_key) for _ in range(5)]
        left = sum(not task.done() for task in flood)
        flooded = await asyncio.gather(*flood)
    assert {status for status, _ in (*quiet, *flooded)} == {200}
    # Five requests one after another took turns with the flood: most of it was still waiting afterwards.
    assert left > 30


async def test_a_limited_key_is_told_its_limit_and_when_to_come_back(bench: Any, chat: Body) -> None:
    await bench.start_engine()
    async with bench.database.acquire() as connection:
        key = await keys.create(connection, PEPPER, name="small", organisation="acme")
        organisation_id = await keys.find_organisation(connection, "acme")
        key_id = keys.parse(key).id  # type: ignore[union-attr]
        await limits.limit_key(connection, organisation_id, key_id, RateLimits(requests_per_minute=2))
    headers = JSON | {"authorization": f"Bearer {key}"}
    async with bench.client() as client:
        answers = [await client.post(CHAT, content=chat(), headers=headers) for _ in range(3)]
        unlimited = await client.post(CHAT, content=chat(), headers=JSON)
    assert [answer.status_code for answer in answers] == [200, 200, 429]
    assert unlimited.status_code == 200
    error = answers[2].json()["error"]
    assert error["code"] == "rate_limit_exceeded"
    assert "limited to 2 requests per minute" in error["message"]
    assert int(answers[2].headers["retry-after"]) <= 120
    assert (error["scope"], error["limit"], error["allowed"], error["used"]) == (
        f"key {key_id}",
        "requests per minute",
        2,
        2,
    )
    left = [answer.headers["x-ratelimit-remaining-requests"] for answer in answers]
    assert left == ["1", "0", "0"]
    assert {answer.headers["x-ratelimit-limit-requests"] for answer in answers} == {"2"}
    assert all(answer.headers["x-ratelimit-reset-requests"].endswith("s") for answer in answers)
    assert not any(name.startswith("x-ratelimit") for name in unlimited.headers)


async def test_a_limited_project_counts_the_tokens_of_all_its_keys(bench: Any, chat: Body) -> None:
    await bench.start_engine()
    async with bench.database.acquire() as connection:
        organisation_id = await keys.find_organisation(connection, "acme")
        pair = [
            await keys.create(connection, PEPPER, name=name, organisation="acme", project="p")
            for name in ("one", "two")
        ]
        await limits.limit_project(connection, organisation_id, "p", RateLimits(tokens_per_minute=30))
    async with bench.client() as client:
        statuses = []
        for key in (*pair, pair[0]):
            headers = JSON | {"authorization": f"Bearer {key}"}
            body = chat(max_tokens=20, ignore_eos=True)
            statuses.append((await client.post(CHAT, content=body, headers=headers)).status_code)
    assert statuses == [200, 200, 429]


@pytest.mark.parametrize(("tier", "status"), [("flex", 200), ("auto", 200), ("cheap", 400)])
async def test_service_tiers_are_known_or_refused(bench: Any, chat: Body, tier: str, status: int) -> None:
    await bench.start_engine()
    async with bench.client() as client:
        answer = await client.post(CHAT, content=chat(service_tier=tier), headers=JSON)
    assert answer.status_code == status
    if status == 400:
        assert answer.json()["error"]["param"] == "service_tier"
