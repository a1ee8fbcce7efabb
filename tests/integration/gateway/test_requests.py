"""`GET /api/v1/requests`: what each request waited for, where it ran, why there, and what it cost."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from decimal import Decimal
from typing import Any

import httpx
import pytest

from penstock.access import keys
from penstock_base import ids

Body = Callable[..., bytes]
CHAT = "/v1/chat/completions"
API = "/api/v1/requests"
JSON = {"content-type": "application/json"}
MODEL = "penstock/demo-chat"
PEPPER = b"p" * 32


async def ask(bench: Any, client: httpx.AsyncClient, body: bytes, **headers: str) -> httpx.Response:
    """Ask, and wait until the record is in the database."""
    answer = await client.post(CHAT, content=body, headers=JSON | headers)
    assert answer.status_code == 200, answer.text
    await bench.event(answer.headers["x-request-id"])
    return answer


def by_name(shown: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {stage["stage"]: stage for stage in shown["stages"]}


def check_whole(shown: dict[str, Any]) -> None:
    """Stages follow one another from arrival to end, and the charges sum up to the cost."""
    at_us = 0
    for stage in shown["stages"]:
        assert stage["after_us"] == at_us
        assert stage["took_us"] >= 0
        at_us += stage["took_us"]
    assert at_us == shown["duration_us"]
    exact = sum(Decimal(charge["usd"]) for charge in shown["charges"])
    assert abs(exact - Decimal(shown["cost_usd"])) <= Decimal("0.0000000005")


@pytest.mark.parametrize("stream", [True, False])
async def test_a_request_is_explained(bench: Any, chat: Body, stream: bool) -> None:
    await bench.set_pool(policy="least_load")
    await bench.start_engine("a")
    await bench.start_engine("b")
    async with bench.client() as client:
        answer = await ask(bench, client, chat(stream=stream), **{"x-client-request-id": "mine"})
        shown = (await client.get(f"{API}/{answer.headers['x-request-id']}")).json()
        assert (await client.get(f"{API}/mine")).json() == shown
    check_whole(shown)
    names = ["arrived", "admitted", "queued", "sent", "worked", "answered", "ended"]
    assert [stage["stage"] for stage in shown["stages"]] == names
    stages = by_name(shown)
    assert stages["queued"]["note"] == "there was room at once"
    assert f"to {shown['replica']}" in stages["sent"]["note"]
    assert "chosen from 2 engines by least_load" in stages["sent"]["note"]
    assert stages["worked"]["took_us"] > 0
    assert (shown["outcome"], shown["outcome_meaning"]) == ("done", "the whole answer was produced")
    assert (shown["pool_version"], shown["policy"], shown["candidates"]) == (1, "least_load", 2)
    assert shown["prices"] == {"input": "0.10", "cached_input": "0.05", "output": "0.40"}
    assert {charge["unit"] for charge in shown["charges"]} >= {"input", "output"}
    if not stream:
        assert answer.headers["x-penstock-cost-usd"] == shown["cost_usd"]
    ledger = await bench.database.fetchval(
        "select id from billing.ledger_transaction where kind = 'usage' order by id desc limit 1"
    )
    assert shown["ledger_transaction_id"] == ledger


async def test_what_a_request_lost_at_a_dead_engine_is_told(bench: Any, chat: Body) -> None:
    await bench.set_pool(policy="least_load")
    dead = await bench.start_engine("a")
    await bench.start_engine("b")
    dead.process.kill()
    await dead.process.wait()
    async with bench.client() as client:
        answers = [await ask(bench, client, chat(user=f"{n}")) for n in range(6)]
        shown = [(await client.get(f"{API}/{answer.headers['x-request-id']}")).json() for answer in answers]
    for each in shown:
        check_whole(each)
        assert each["replica"] == "b"
        assert each["retries"] == ("retried" in by_name(each))
    assert sum(each["retries"] for each in shown) > 0


async def test_waking_is_told_apart_from_queueing(bench: Any, chat: Body) -> None:
    await bench.set_pool()
    async with bench.client() as client:
        asked = asyncio.create_task(ask(bench, client, chat()))

        async def waits() -> bool | None:
            return True if bench.gateway.dispatcher.waiting(MODEL)[0] else None

        await bench.until(waits, 30)
        await asyncio.sleep(0.2)
        await bench.start_engine()
        answer = await asked
        shown = (await client.get(f"{API}/{answer.headers['x-request-id']}")).json()
    check_whole(shown)
    woken = by_name(shown)["woken"]
    assert woken["took_us"] == shown["wake_us"] >= 200_000
    assert "only engine with room" in by_name(shown)["sent"]["note"]


async def test_a_failure_of_ours_is_free_and_says_so(bench: Any, chat: Body) -> None:
    engine = await bench.start_engine()
    await engine.breaks(without_usage=True)
    async with bench.client() as client:
        answer = await client.post(CHAT, content=chat(), headers=JSON)
        await bench.event(answer.headers["x-request-id"])
        shown = (await client.get(f"{API}/{answer.headers['x-request-id']}")).json()
    assert (shown["outcome"], shown["cost_usd"], shown["charges"]) == ("engine_failed", "0.000000000", [])
    assert shown["ledger_transaction_id"] is None
    assert "free" in shown["stages"][-1]["note"]


async def test_requests_are_listed_narrowed_and_paged(bench: Any, chat: Body) -> None:
    await bench.start_engine()
    async with bench.database.acquire() as connection:
        other_key = await keys.create(connection, PEPPER, name="other", organisation="acme")
        stranger = await keys.create(connection, PEPPER, name="x", organisation="strangers")
    key_id = keys.parse(other_key).id  # type: ignore[union-attr]
    async with bench.client() as client:
        made = [(await ask(bench, client, chat())).headers["x-request-id"] for _ in range(5)]
        theirs = await ask(bench, client, chat(), authorization=f"Bearer {other_key}")
        made.append(theirs.headers["x-request-id"])
        seen: list[str] = []
        after: str | None = ""
        while after is not None:
            params = {"limit": "4"} | ({"after": after} if after else {})
            page = (await client.get(API, params=params)).json()
            seen += [each["request_id"] for each in page["data"]]
            after = page["next_after"]
        assert seen == made[::-1]
        for params, count in (
            ({"key": key_id}, 1),
            ({"model": MODEL}, 6),
            ({"model": "another"}, 0),
            ({"endpoint": ""}, 6),
            ({"outcome": "done,stalled"}, 6),
            ({"outcome": "stalled"}, 0),
            ({"until": "2026-01-01"}, 0),
            ({"within": "1h", "status": "200"}, 6),
            ({"status": "5xx"}, 0),
            ({"longer_than": "1h"}, 0),
            ({"id": made[1]}, 1),
        ):
            assert len((await client.get(API, params=params)).json()["data"]) == count, params
        headers = {"authorization": f"Bearer {stranger}"}
        assert (await client.get(API, headers=headers)).json()["data"] == []
        assert (await client.get(f"{API}/{made[0]}", headers=headers)).status_code == 404


async def test_an_endpoints_own_key_sees_its_own_requests_only(bench: Any, chat: Body) -> None:
    await bench.start_engine()
    async with bench.client() as client:
        plain = await ask(bench, client, chat())
        fields = {"name": "front-desk", "model": MODEL}
        made = (await client.post("/api/v1/serverless-endpoints", json=fields)).json()
        await bench.gateway.endpoints.refresh(bench.database)
        await bench.gateway.keyring.refresh()
        headers = {"authorization": f"Bearer {made['primary_key']}"}
        answer = await client.post(f"/serverless/front-desk{CHAT}", content=chat(), headers=JSON | headers)
        own = answer.headers["x-request-id"]
        assert (await bench.event(own))["endpoint"] == "front-desk"
        second = {"authorization": f"Bearer {made['secondary_key']}"}
        for key in (headers, second):
            listed = (await client.get(API, headers=key)).json()["data"]
            assert [each["request_id"] for each in listed] == [own]
            assert (await client.get(f"{API}/{own}", headers=key)).status_code == 200
            refused = await client.get(f"{API}/{plain.headers['x-request-id']}", headers=key)
            assert refused.status_code == 404
        assert len((await client.get(API)).json()["data"]) == 2


@pytest.mark.parametrize(
    ("request_id", "says"),
    [
        (f"req_{ids.uuid7_bytes().hex()}", "a second after the answer ended"),
        ("nobody-called-it-so", "looked for among the last 30 days"),
        ("a%00b", "printable"),
        ("x" * 300, "printable"),
    ],
)
async def test_who_asks_for_what_is_not_there_is_told_why(bench: Any, request_id: str, says: str) -> None:
    async with bench.client() as client:
        answer = await client.get(f"{API}/{request_id}")
    assert answer.status_code == 404
    assert answer.headers["content-type"] == "application/problem+json"
    assert says in answer.json()["detail"]


@pytest.mark.parametrize(
    ("query", "param"),
    [
        ("since=soon", "since"),
        ("since=2026-01-01&until=2026-12-01", "since"),
        ("outcome=fine", "outcome"),
        ("status=fine", "status"),
        ("longer_than=2", "longer_than"),
        ("within=1h&since=2026-11-21", "within"),
        ("id=%00", "id"),
        ("outcome=,", "outcome"),
        ("limit=0", "limit"),
        ("limit=1000", "limit"),
        ("limit=x", "limit"),
        ("after=x", "after"),
        ("after=0001-01-01T00:00:00Z/01a1fdca-a297-7b3a-b253-ab297b00d7e0", "after"),
        ("project=web", "project"),
        ("model=%00", "model"),
    ],
)
async def test_a_question_without_sense_is_refused_by_field(bench: Any, query: str, param: str) -> None:
    async with bench.client() as client:
        answer = await client.get(f"{API}?{query}")
    assert (answer.status_code, answer.json()["param"]) == (400, param), answer.text
    assert answer.headers["content-type"] == "application/problem+json"
