"""/api/v1/budgets: the tenant comes from the key, changes happen once, gateways hear of them."""

from __future__ import annotations

from typing import Any

import httpx
import pytest

from penstock.access import keys

PEPPER = b"p" * 32


async def test_a_budget_is_put_found_and_deleted(bench: Any) -> None:
    async with bench.client() as client:
        made = await client.put("/api/v1/budgets", json={"limit_usd": "25.5", "project": "default"})
        assert made.status_code == 200
        budget = made.json()
        assert (budget["scope"], budget["project"], budget["period"]) == ("project", "default", "month")
        assert (budget["limit_usd"], budget["left_usd"], budget["hard"]) == ("25.500000000",) * 2 + (True,)
        found = (await client.get("/api/v1/budgets")).json()
        assert (found["data"], found["alerts"]) == ([budget], [])
        assert (await client.delete(f"/api/v1/budgets/{budget['id']}")).status_code == 204
        again = await client.delete(f"/api/v1/budgets/{budget['id']}")
        assert again.status_code == 404
        assert again.headers["content-type"].startswith("application/problem+json")
        assert (await client.get("/api/v1/budgets")).json()["data"] == []


async def test_putting_again_with_the_same_idempotency_key_says_the_same(bench: Any) -> None:
    async with bench.client() as client:
        headers = {"idempotency-key": "once"}
        first = await client.put("/api/v1/budgets", json={"limit_usd": "1"}, headers=headers)
        again = await client.put("/api/v1/budgets", json={"limit_usd": "1"}, headers=headers)
    assert first.json() == again.json()
    assert again.headers["idempotent-replayed"] == "true"


async def test_another_organisations_budgets_can_neither_be_seen_nor_removed(bench: Any) -> None:
    async with bench.database.acquire() as connection:
        other = await keys.create(connection, PEPPER, name="other", organisation="other")
    async with bench.client() as client:
        made = (await client.put("/api/v1/budgets", json={"limit_usd": "1"})).json()
        foreign = {"authorization": f"Bearer {other}"}
        assert (await client.get("/api/v1/budgets", headers=foreign)).json()["data"] == []
        removed = await client.delete(f"/api/v1/budgets/{made['id']}", headers=foreign)
        assert removed.status_code == 404
        own_key = (await client.get("/api/v1/budgets")).json()["data"]
        assert [each["id"] for each in own_key] == [made["id"]]


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"limit_usd": "lots"}, "limit_usd"),
        ({"limit_usd": "-1"}, "limit_usd"),
        ({"limit_usd": "1", "project": "nowhere"}, "project"),
        ({"limit_usd": "1", "key_id": "nobody"}, "key_id"),
        ({"limit_usd": "1", "alert_percents": [0]}, "alert_percents"),
    ],
)
async def test_what_is_no_budget_is_refused_by_its_field(bench: Any, body: Any, param: str) -> None:
    async with bench.client() as client:
        refused = await client.put("/api/v1/budgets", json=body)
    assert refused.status_code == 400
    assert refused.json()["param"] == param


@pytest.mark.parametrize("body", [{}, {"limit_usd": 5}, {"limit_usd": "1", "organisation_id": 2}])
async def test_a_body_of_another_shape_is_refused(bench: Any, body: Any) -> None:
    async with bench.client() as client:
        refused: httpx.Response = await client.put("/api/v1/budgets", json=body)
    assert refused.status_code == 400
    assert "Traceback" not in refused.text
