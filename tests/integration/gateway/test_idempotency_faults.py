"""Requests sent again while gateways die and the database is away: never two executions charged."""

from __future__ import annotations

import asyncio
import contextlib
import math
from collections.abc import AsyncIterator, Callable
from typing import Any

import asyncpg
import httpx
import pytest

JSON = {"content-type": "application/json"}
CHAT = "/v1/chat/completions"
SDK_ID = "x-ms-client-request-id"
Body = Callable[..., bytes]


def keyed(key: str, header: str = "idempotency-key") -> dict[str, str]:
    return {**JSON, header: key}


async def send(bench: Any, body: bytes, headers: dict[str, str]) -> httpx.Response:
    async with bench.client() as client:
        return await client.post(CHAT, content=body, headers=headers, timeout=60)


async def costs(bench: Any) -> list[int]:
    await bench.gateway.shipper.ship_once()
    rows = await bench.database.fetch("select cost_nano_usd from billing.usage_event order by 1")
    return [row["cost_nano_usd"] for row in rows]


async def charged(bench: Any) -> int:
    """How many executions were charged."""
    return sum(cost > 0 for cost in await costs(bench))


async def claim(bench: Any) -> Any:
    """The one claim, once it is there."""
    return await bench.until(lambda: bench.database.fetchrow("select * from admission.claim"), 30)


def adopt_nothing(bench: Any) -> None:
    """Until `settle`, the gateway that lives does not look for dead processes' files."""
    bench.gateway.shipper._scan_at_s = math.inf


async def settle(bench: Any, boot_id: str) -> None:
    """The gateway that lives adopts what the dead one left."""

    async def settled() -> bool | None:
        bench.gateway.shipper._scan_at_s = 0.0
        await bench.gateway.shipper.ship_once()
        query = "select true from billing.gateway_boot where boot_id = $1 and settled_at is not null"
        found: bool | None = await bench.database.fetchval(query, boot_id)
        return found

    await bench.until(settled, 30)


async def test_what_a_killed_gateway_had_not_charged_is_executed_by_another(
    bench: Any, chat: Body, second_gateway: Any
) -> None:
    await bench.start_engine(first_token_ms=30_000)
    adopt_nothing(bench)
    async with second_gateway() as (other, process):
        lost = asyncio.create_task(other.post(CHAT, content=chat(), headers=keyed("a")))
        held = await claim(bench)
        process.kill()
        with pytest.raises(httpx.TransportError):
            await lost
        await process.wait()
        early = await send(bench, chat(), keyed("a"))
        assert early.status_code == 409
        assert early.json()["error"]["code"] == "idempotency_in_progress"
        await settle(bench, held["boot_id"])
        await bench.set_state(bench.engines[0], "gone")
        await bench.start_engine("b")
        # Many come at once, and one of them takes it over.
        answers = await asyncio.gather(*(send(bench, chat(), keyed("a")) for _ in range(10)))
        assert sum(a.status_code == 200 and "idempotent-replayed" not in a.headers for a in answers) == 1
        assert {a.status_code for a in answers} <= {200, 409}
        again = await send(bench, chat(), keyed("a"))
        assert again.headers["idempotent-replayed"] == "true"
        assert await charged(bench) == 1


async def test_what_a_killed_gateway_had_charged_is_not_executed_again(
    bench: Any, chat: Body, second_gateway: Any
) -> None:
    await bench.start_engine(tokens_per_second=20)
    adopt_nothing(bench)
    async with second_gateway() as (other, process):
        lost = asyncio.create_task(other.post(CHAT, content=chat(), headers=keyed("a")))
        held = await claim(bench)
        async with bench.database.acquire() as connection, connection.transaction():
            # Hold up the claim's end: the record is there before the last byte.
            await connection.execute("select from admission.claim for update")
            await bench.event(held["request_id"])
            process.kill()
            with pytest.raises(httpx.TransportError):
                await lost
            await process.wait()
            # The server would still do what its client, now dead, had asked.
            await connection.execute(
                "select pg_terminate_backend(pid) from pg_stat_activity where wait_event_type = 'Lock'"
                " and datname = current_database()"
            )
        early = await send(bench, chat(), keyed("a"))
        assert early.json()["error"]["code"] == "idempotency_in_progress"
        await settle(bench, held["boot_id"])
        late = await send(bench, chat(), keyed("a"))
        assert late.status_code == 409
        assert late.json()["error"]["code"] == "idempotency_answer_lost"
        assert held["request_id"] in late.json()["error"]["message"]
        assert late.headers["x-original-request-id"] == held["request_id"]
        other_body = await send(bench, chat(max_tokens=3), keyed("a"))
        assert other_body.status_code == 422
        assert await charged(bench) == 1


@contextlib.asynccontextmanager
async def database_away(bench: Any, database_url: str) -> AsyncIterator[None]:
    """Postgres lets the gateway in no more, and ends its sessions."""
    name = await bench.database.fetchval("select current_database()")
    connection = await asyncpg.connect(database_url.replace(f"@/{name}?", "@/postgres?"))
    async with contextlib.AsyncExitStack() as stack:
        stack.push_async_callback(connection.close)
        await connection.execute(f"alter database {name} allow_connections false")
        await connection.execute(
            "select pg_terminate_backend(pid) from pg_stat_activity "
            "where datname = $1 and application_name like 'penstock %'",
            name,
        )
        try:
            yield
        finally:
            await connection.execute(f"alter database {name} allow_connections true")


async def test_without_the_database_only_a_key_is_refused(bench: Any, chat: Body, database_url: str) -> None:
    engine = await bench.start_engine()
    async with database_away(bench, database_url):
        refused = await send(bench, chat(), keyed("a"))
        assert refused.status_code == 503
        assert refused.json()["error"]["code"] == "idempotency_unavailable"
        assert int(refused.headers["retry-after"]) >= 1
        assert not await engine.made()
        hinted = [await send(bench, chat(), keyed("b", SDK_ID)) for _ in range(3)]
        plain = await send(bench, chat(), JSON)
        assert {a.status_code for a in [*hinted, plain]} == {200}
        assert not any("idempotent-replayed" in a.headers for a in hinted)
    answer = await bench.until(lambda: accepted(bench, chat(), keyed("a")), 30)
    assert "idempotent-replayed" not in answer.headers
    again = await send(bench, chat(), keyed("a"))
    assert again.headers["idempotent-replayed"] == "true"


async def accepted(bench: Any, body: bytes, headers: dict[str, str]) -> httpx.Response | None:
    answer = await send(bench, body, headers)
    return answer if answer.status_code == 200 else None


async def test_a_database_that_hangs_delays_nobody_long_and_leaves_no_claim_behind(
    bench: Any, chat: Body
) -> None:
    engine = await bench.start_engine()
    async with bench.database.acquire() as connection, connection.transaction():
        await connection.execute("lock table admission.claim in access exclusive mode")
        refused = await send(bench, chat(), keyed("a"))
        assert refused.json()["error"]["code"] == "idempotency_unavailable"
        hinted = await send(bench, chat(), keyed("b", SDK_ID))
        assert hinted.status_code == 200
    assert len(await engine.made()) == 1
    for headers in (keyed("a"), keyed("b", SDK_ID)):
        answer = await bench.until(lambda headers=headers: accepted(bench, chat(), headers), 60)
        assert "idempotent-replayed" not in answer.headers
    assert await charged(bench) == 3


async def test_an_end_that_cannot_be_written_holds_no_answer_up_and_is_written_later(
    bench: Any, chat: Body
) -> None:
    await bench.start_engine(tokens_per_second=20)
    call = asyncio.create_task(send(bench, chat(), keyed("a")))
    await claim(bench)
    async with bench.database.acquire() as connection, connection.transaction():
        await connection.execute("select from admission.claim for update")
        first = await call
        assert first.status_code == 200
        early = await send(bench, chat(), keyed("a"))
        assert early.json()["error"]["code"] == "idempotency_in_progress"
    again = await bench.until(lambda: accepted(bench, chat(), keyed("a")), 30)
    assert again.content == first.content
    assert again.headers["idempotent-replayed"] == "true"
    assert await charged(bench) == 1


async def test_what_waits_is_written_before_a_gateway_ends(bench: Any, chat: Body) -> None:
    await bench.start_engine(tokens_per_second=20)
    call = asyncio.create_task(send(bench, chat(), keyed("a")))
    held: asyncpg.Record = await claim(bench)
    async with bench.database.acquire() as connection, connection.transaction():
        await connection.execute("select from admission.claim for update")
        await call
    bench.server.should_exit = True

    async def written() -> bool | None:
        query = "select state = 'answered' from admission.claim where id = $1"
        return await bench.database.fetchval(query, held["id"]) or None

    await bench.until(written, 30)
