"""`GET /api/v1/usage`: equal to the requests however it is divided, and calm about whatever is asked."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from penstock_billing import roll_ups

JSON = {"content-type": "application/json"}


async def test_however_it_is_divided_it_is_what_the_requests_cost(
    bench: Any, chat: Callable[..., bytes]
) -> None:
    await bench.start_engine()
    costs = []
    async with bench.client() as client:
        for _ in range(3):
            answer = await client.post("/v1/chat/completions", content=chat(), headers=JSON)
            assert answer.status_code == 200, answer.text
            costs.append((await bench.event(answer.headers["x-request-id"]))["cost_nano_usd"])
        asked = {"since": f"{datetime.now(UTC) - timedelta(minutes=5):%Y-%m-%dT%H:%MZ}"}
        for closed in (False, True):
            if closed:
                # As if the hour were over: the same answers, from other rows.
                async with bench.database.acquire() as connection:
                    await roll_ups.advance(connection, datetime.now(UTC) + timedelta(days=2))
            for by in ("", "day", "hour,model", "minute,key,project,endpoint", "model,key"):
                shown = await client.get("/api/v1/usage", params=asked | {"by": by})
                assert shown.status_code == 200, shown.text
                body = shown.json()
                assert sum(line["cost_nano_usd"] for line in body["data"]) == sum(costs)
                assert sum(line["requests"] for line in body["data"]) == 3
                assert body["latest_minute"][:16] <= body["as_of"][:16]
                for word in (word for word in by.split(",") if word):
                    assert any(name.startswith(word) for name in body["data"][0])
        nothing = await client.get("/api/v1/usage", params={"key": "key_other"})
        assert nothing.json()["data"] == []


@pytest.mark.parametrize(
    ("query", "param"),
    [
        ("since=yesterday", "since"),
        ("until=9999-12-31", "until"),
        ("until=0001-01-01", "until"),
        ("since=%00", "since"),
        ("by=day,day,hour", "by"),
        ("by=%F0%9F%92%A5", "by"),
        ("project=1e3", "project"),
        ("project=99999999999999999999", "project"),
        ("model=%00", "model"),
        ("key=" + "k" * 300, "key"),
    ],
)
async def test_a_question_without_sense_is_refused_with_the_fields_name(
    bench: Any, query: str, param: str
) -> None:
    async with bench.client() as client:
        answer = await client.get(f"/api/v1/usage?{query}")
    assert (answer.status_code, answer.json()["param"]) == (400, param)
    assert answer.headers["content-type"].startswith("application/problem+json")


@pytest.mark.parametrize("query", ["since=2026-11-01&since=2026-11-02", "colour=red", "since=%FF%FE", "&&="])
async def test_odd_queries_are_no_fault_of_ours(bench: Any, query: str) -> None:
    async with bench.client() as client:
        assert (await client.get(f"/api/v1/usage?{query}")).status_code < 500
