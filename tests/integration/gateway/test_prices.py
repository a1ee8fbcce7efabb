"""Which price a request gets: its organisation's, in force as it is admitted, with Postgres or without."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import asyncpg
import pytest

from penstock.access import keys
from penstock.local import postgres
from penstock_billing import invariants, price_changes
from penstock_billing.price_changes import Change, When

JSON = {"content-type": "application/json"}
MODEL = "penstock/demo-chat"
Body = Callable[..., bytes]


async def add(database: asyncpg.Pool, output_pico_usd: int, list_id: int = 1, **when: Any) -> int:
    """Give the model another output price; the id of its version."""
    async with database.acquire() as connection:
        change = Change(output_pico_usd=output_pico_usd)
        added = await price_changes.add(connection, MODEL, change, When(**when), list_id)
    return added.after.id


async def own_list(database: asyncpg.Pool, organisation: str) -> int:
    """A price list of an organisation's own, from now on."""
    async with database.acquire() as connection:
        own = await price_changes.new_list(connection, f"{organisation}-list")
        organisation_id = await keys.find_organisation(connection, organisation)
        await price_changes.assign(connection, organisation_id, own.id, When())
    return own.id


async def chat_once(bench: Any, chat: Body) -> str:
    async with bench.client() as client:
        answer = await client.post("/v1/chat/completions", content=chat(), headers=JSON)
    assert answer.status_code == 200, answer.text
    return str(answer.headers["x-request-id"])


async def in_force(bench: Any, version: int, organisation_id: int) -> None:
    """Wait until the gateway has learnt it by itself."""

    async def known() -> bool | None:
        price = bench.gateway.prices.current(MODEL, organisation_id)
        return True if price is not None and price.id == version else None

    await bench.until(known, 30)


async def test_an_organisation_pays_by_its_own_list_and_sees_it(
    bench: Any, chat: Body, database: asyncpg.Pool
) -> None:
    await bench.start_engine()
    own = await own_list(database, "acme")
    version = await add(database, 70_000, own)
    async with database.acquire() as connection:
        acme = await keys.find_organisation(connection, "acme")
        stranger = await keys.create(connection, b"p" * 32, name="other", organisation="globex")
    await in_force(bench, version, acme)
    row = await bench.event(await chat_once(bench, chat))
    assert row["price_version"] == version
    assert row["cost_nano_usd"] == row["input_tokens"] * 100 + row["output_tokens"] * 70
    async with bench.client() as client:
        [model] = (await client.get("/v1/models")).json()["data"]
        mine = (await client.get("/api/v1/prices")).json()
        client.headers["authorization"] = f"Bearer {stranger}"
        theirs = (await client.get("/api/v1/prices")).json()
    expected = {"input": "0.10", "cached_input": "0.05", "output": "0.07"}
    assert model["prices_usd_per_1m_tokens"] == expected
    assert mine["list"] == "acme-list"
    [price] = [each for each in mine["data"] if each["model"] == MODEL]
    assert (price["prices_usd"], price["price_version"], price["status"]) == (expected, version, "in force")
    assert theirs["list"] == "standard"
    assert "acme" not in str(theirs)
    assert [each["prices_usd"]["output"] for each in theirs["data"] if each["model"] == MODEL] == ["0.40"]


async def test_what_is_scheduled_is_told_to_who_will_pay_it(bench: Any, database: asyncpg.Pool) -> None:
    later = datetime(2030, 1, 1, tzinfo=UTC)
    await add(database, 900_000, valid_from=later)
    await bench.gateway.prices.load(database)
    async with bench.client() as client:
        told = (await client.get("/api/v1/prices", params={"model": MODEL})).json()
        unknown = await client.get("/api/v1/prices", params={"model": "penstock/demo-cat"})
    assert [(each["status"], each["prices_usd"]["output"]) for each in told["data"]] == [
        ("in force", "0.40"),
        ("scheduled", "0.90"),
    ]
    assert told["data"][1]["since"] == "2030-01-01T00:00:00Z"
    assert unknown.status_code == 404
    assert "did you mean penstock/demo-chat" in unknown.json()["detail"]


async def test_a_scheduled_price_takes_effect_on_time_while_postgres_is_away(
    bench: Any, chat: Body, database: asyncpg.Pool, database_url: str, postgres_server: postgres.Postgres
) -> None:
    await bench.start_engine()
    before = await bench.event(await chat_once(bench, chat))
    moment = datetime.now(UTC) + timedelta(seconds=8)
    version = await add(database, 10, valid_from=moment)
    await bench.gateway.prices.load(database)
    name = await database.fetchval("select current_database()")
    server = await asyncpg.connect(postgres_server.url.replace("@/penstock?", "@/postgres?"))
    try:
        await server.execute(f"alter database {name} with allow_connections false")
        await server.execute(
            "select pg_terminate_backend(pid) from pg_stat_activity where datname = $1", name
        )
        with pytest.raises(asyncpg.PostgresError):
            await asyncpg.connect(database_url)
        await asyncio.sleep(max(0.0, (moment - datetime.now(UTC)).total_seconds()) + 0.05)
        request_id = await chat_once(bench, chat)
        await server.execute(f"alter database {name} with allow_connections true")
    finally:
        await server.close()

    async def shipped() -> asyncpg.Record | None:
        query = "select * from billing.usage_event where request_id = $1"
        try:
            found: asyncpg.Record | None = await database.fetchrow(query, request_id)
        except (asyncpg.PostgresError, asyncpg.InterfaceError):
            return None
        return found

    row = await bench.until(shipped, 30)
    assert (before["price_version"], row["price_version"]) == (1, version)
    async with database.acquire() as connection:
        assert await invariants.check(connection) == []


async def test_a_request_keeps_the_price_that_it_was_admitted_with(
    bench: Any, chat: Body, database: asyncpg.Pool
) -> None:
    await bench.start_engine(tokens_per_second=40, answer_tokens=1000)
    async with (
        bench.client() as client,
        client.stream(
            "POST", "/v1/chat/completions", content=chat(stream=True, max_tokens=60), headers=JSON
        ) as answer,
    ):
        lines = answer.aiter_lines()
        await anext(lines)
        version = await add(database, 10)
        await bench.gateway.prices.load(database)
        async for _ in lines:
            pass
    row = await bench.event(answer.headers["x-request-id"])
    assert row["price_version"] == 1 != version
    assert row["cost_nano_usd"] == row["input_tokens"] * 100 + row["output_tokens"] * 400


async def test_a_model_without_a_price_is_not_served(bench: Any, chat: Body) -> None:
    await bench.start_engine()
    bench.gateway.prices.fill([])
    async with bench.client() as client:
        answer = await client.post("/v1/chat/completions", content=chat(), headers=JSON)
        [model] = (await client.get("/v1/models")).json()["data"]
    assert answer.status_code == 503
    assert answer.json()["error"]["code"] == "model_without_price"
    assert "retry-after" in answer.headers
    assert model["prices_usd_per_1m_tokens"] is None
