"""Processes are really killed: what was acknowledged stays, what failed is free, and all of it heals."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

import asyncpg
import httpx
import openai
import psutil
import pytest

from penstock_billing import invariants

CHAT = "penstock/demo-chat"
HELLO: list[Any] = [{"role": "user", "content": "Hello"}]
T = TypeVar("T")


async def until(get: Callable[[], Awaitable[T | None]], within_s: float = 60) -> T:
    """Wait for something to be there."""
    end = time.monotonic() + within_s
    while (found := await get()) is None:
        assert time.monotonic() < end, "it never came"
        await asyncio.sleep(0.1)
    return found


def descendants(platform: Any, word: str) -> list[psutil.Process]:
    """Processes under `penstock up` whose command line has this word."""
    found = []
    for process in psutil.Process(platform.pid).children(recursive=True):
        try:
            if word in process.cmdline() or process.name() == word:
                found.append(process)
        except psutil.NoSuchProcess:
            continue
    return found


@pytest.fixture(autouse=True)
async def healthy_afterwards(platform: Any) -> Any:
    """Every test here leaves the platform as it found it."""
    yield

    async def ready() -> bool | None:
        try:
            async with httpx.AsyncClient() as client:
                answer = await client.get(f"{platform.root_url}/readyz", params={"model": CHAT})
            state = answer.json()
            return True if answer.status_code == 200 and state["database"] == "ok" else None
        except httpx.HTTPError:
            return None

    await until(ready)


async def test_an_engine_killed_mid_stream_is_free_and_comes_back(
    client: openai.OpenAI, ledger: asyncpg.Connection, platform: Any
) -> None:
    # Found before the stream begins: a quick engine would be done with it before they are.
    at = str(platform.engine_socket(CHAT))
    engines = [
        process
        for process in descendants(platform, "penstock_engines.zygote")
        if any(at in str(c.laddr) for c in process.net_connections("unix"))
    ]
    raw = client.chat.completions.with_raw_response.create(
        model=CHAT, messages=HELLO, stream=True, max_tokens=1900, extra_body={"ignore_eos": True}
    )
    stream = iter(raw.parse())
    for _ in range(5):
        next(stream)
    for process in engines:
        process.kill()
    with pytest.raises(openai.APIError, match="engine failed"):
        for _ in stream:
            pass
    query = "select * from billing.usage_event where request_id = $1"
    row = await until(lambda: ledger.fetchrow(query, raw.headers["x-request-id"]))
    assert (row["outcome"], row["cost_nano_usd"]) == ("engine_failed", 0)

    async def answers() -> bool | None:
        try:
            return bool(client.chat.completions.create(model=CHAT, messages=HELLO, max_tokens=1))
        except openai.APIError:
            return None

    await until(answers)


async def test_what_a_killed_gateway_had_acknowledged_is_billed(
    client: openai.OpenAI, ledger: asyncpg.Connection, platform: Any
) -> None:
    for process in descendants(platform, "postgres"):
        process.suspend()
    acknowledged = []
    try:
        for _ in range(5):
            raw = client.chat.completions.with_raw_response.create(model=CHAT, messages=HELLO, max_tokens=2)
            acknowledged.append(raw.headers["x-request-id"])
        for process in descendants(platform, "gateway"):
            process.kill()
    finally:
        for process in descendants(platform, "postgres"):
            process.resume()

    async def all_there() -> bool | None:
        query = "select count(*) from billing.usage_event where request_id = any($1)"
        return True if await ledger.fetchval(query, acknowledged) == len(acknowledged) else None

    await until(all_there)
    assert await invariants.check(ledger) == []


async def test_a_stream_of_a_killed_gateway_is_billed_as_far_as_it_was_noted(
    client: openai.OpenAI, ledger: asyncpg.Connection, platform: Any
) -> None:
    # The second time, a part of the prompt comes from the engine's cache; no event but the last tells.
    question: list[Any] = [{"role": "user", "content": "one two three four five six seven " * 60}]
    client.chat.completions.create(model=CHAT, messages=question, max_tokens=1)
    raw = client.chat.completions.with_raw_response.create(
        model=CHAT,
        messages=question,
        stream=True,
        max_tokens=1300,
        n=4,
        extra_body={"ignore_eos": True},
    )
    # Long before the end: what is read here lies behind what the engine has made.
    stream = iter(raw.parse())
    for _ in range(700):
        next(stream)
    # Only now: after an earlier test's kill, a successor that starts later may have taken the stream.
    gateways = descendants(platform, "gateway")
    for process in gateways:
        process.kill()
    with pytest.raises((openai.APIConnectionError, httpx.TransportError)):
        for _ in stream:
            pass
    query = "select * from billing.usage_event where request_id = $1"
    row = await until(lambda: ledger.fetchrow(query, raw.headers["x-request-id"]))
    assert row["outcome"] == "recovered"
    assert 700 - 256 - 64 <= row["output_tokens"] < 4 * 1300
    assert row["cached_tokens"] >= 128
    assert row["cost_nano_usd"] > 0

    async def settled() -> bool | None:
        query = "select count(*) from billing.gateway_boot where settled_at is not null"
        return True if await ledger.fetchval(query) >= len(gateways) else None

    await until(settled)
    assert await invariants.check(ledger) == []


async def test_answers_go_on_while_postgres_is_dead_and_nothing_is_lost(
    client: openai.OpenAI, platform: Any
) -> None:
    # A key that every worker knows needs no database.
    for _ in range(10):
        with openai.OpenAI(base_url=platform.base_url, api_key=platform.api_key) as fresh:
            fresh.chat.completions.create(model=CHAT, messages=HELLO, max_tokens=1)
    [server] = [p for p in descendants(platform, "postgres") if p.parent().pid == platform.pid]
    server.kill()
    raw = client.chat.completions.with_raw_response.create(model=CHAT, messages=HELLO, max_tokens=2)
    request_id = raw.headers["x-request-id"]

    async def recorded() -> bool | None:
        try:
            connection = await asyncpg.connect(platform.database_url)
        except (OSError, asyncpg.PostgresError):
            return None
        try:
            query = "select true from billing.usage_event where request_id = $1"
            found: bool | None = await connection.fetchval(query, request_id)
            return found
        finally:
            await connection.close()

    await until(recorded)


def test_the_redis_server_may_die(client: openai.OpenAI, platform: Any) -> None:
    [server] = [p for p in psutil.Process(platform.pid).children() if "valkey" in " ".join(p.cmdline())]
    server.kill()
    assert client.chat.completions.create(model=CHAT, messages=HELLO, max_tokens=1).usage


@pytest.fixture(autouse=True)
def workers_know_the_key(platform: Any) -> None:
    """A gateway that was just started learns the key with its first request."""
    for _ in range(6):
        httpx.get(f"{platform.base_url}/models", headers={"authorization": f"Bearer {platform.api_key}"})
