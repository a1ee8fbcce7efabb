"""Serverless endpoints through a real gateway: made, called with their own keys, changed, ended."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from penstock.access import keys

Body = Callable[..., bytes]
API = "/api/v1/serverless-endpoints"
JSON = {"content-type": "application/json"}
MODEL = "penstock/demo-chat"
PEPPER = b"p" * 32


async def make(bench: Any, name: str = "front-desk", **fields: Any) -> dict[str, Any]:
    """Make an endpoint and let the gateway know it."""
    async with bench.client() as client:
        answer = await client.post(API, json={"name": name, "model": MODEL, **fields})
    assert answer.status_code == 201, answer.text
    await refresh(bench)
    made: dict[str, Any] = answer.json()
    return made


async def refresh(bench: Any) -> None:
    await bench.gateway.endpoints.refresh(bench.database)
    await bench.gateway.keyring.refresh()


async def call(bench: Any, body: bytes, key: str, name: str = "front-desk") -> Any:
    headers = JSON | {"authorization": f"Bearer {key}"}
    async with bench.client() as client:
        return await client.post(f"/serverless/{name}/v1/chat/completions", content=body, headers=headers)


async def test_an_endpoint_answers_with_either_key_whatever_the_model_is_called(
    bench: Any, chat: Body
) -> None:
    await bench.start_engine()
    made = await make(bench, tags={"team": "support"}, description="Answers guests")
    assert (made["state"], made["model"], made["tags"]) == ("online", MODEL, {"team": "support"})
    assert made["scoring_uri"].endswith("/serverless/front-desk/v1")
    for key, model in (("primary_key", MODEL), ("secondary_key", "azureai")):
        answer = await call(bench, chat(model=model), made[key])
        assert answer.status_code == 200
        event = await bench.event(answer.headers["x-request-id"])
        assert (event["endpoint"], event["model"], event["cost_nano_usd"] > 0) == ("front-desk", MODEL, True)


async def test_an_endpoints_key_opens_nothing_else(bench: Any, chat: Body) -> None:
    await bench.start_engine()
    made = await make(bench)
    await make(bench, "other")
    key = made["primary_key"]
    headers = JSON | {"authorization": f"Bearer {key}"}
    assert (await call(bench, chat(), key, "other")).json()["error"]["code"] == "wrong_endpoint"
    async with bench.client() as client:
        plain = await client.post("/v1/chat/completions", content=chat(), headers=headers)
        assert plain.status_code == 401
        assert "/serverless/front-desk/v1" in plain.json()["error"]["message"]
        for path in (f"{API}/other", API, "/api/v1/limits", "/api/v1/usage", "/v1/models"):
            refused = await client.get(path, headers=headers)
            assert refused.status_code == 401
            assert "/serverless/front-desk/v1" in refused.text
        assert (await client.delete(f"{API}/other", headers=headers)).status_code == 401


async def test_another_organisations_endpoint_is_not_there(bench: Any, chat: Body) -> None:
    await bench.start_engine()
    await make(bench)
    async with bench.database.acquire() as connection:
        stranger = await keys.create(connection, PEPPER, name="x", organisation="strangers")
    answer = await call(bench, chat(), stranger)
    assert (answer.status_code, answer.json()["error"]["code"]) == (404, "endpoint_not_found")
    async with bench.client() as client:
        shown = await client.get(f"{API}/front-desk", headers={"authorization": f"Bearer {stranger}"})
        listed = await client.get(API, headers={"authorization": f"Bearer {stranger}"})
    assert shown.status_code == 404
    assert listed.json() == {"data": []}


async def test_one_key_is_replaced_while_the_other_works_on(bench: Any, chat: Body) -> None:
    await bench.start_engine()
    made = await make(bench)
    async with bench.client() as client:
        answer = await client.post(f"{API}/front-desk/regenerate-keys", json={"key_type": "primary"})
        assert answer.status_code == 200
        assert answer.headers["cache-control"] == "no-store"
        shown = await client.get(f"{API}/front-desk/credentials")
    await refresh(bench)
    fresh = answer.json()["primary_key"]
    statuses = [
        (await call(bench, chat(), key)).status_code
        for key in (made["primary_key"], made["secondary_key"], fresh)
    ]
    assert statuses == [401, 200, 200]
    assert [key["slot"] for key in shown.json()["data"]] == ["primary", "secondary"]
    assert fresh not in shown.text


async def test_a_suspended_endpoint_refuses_and_comes_back(bench: Any, chat: Body) -> None:
    await bench.start_engine()
    made = await make(bench)
    async with bench.client() as client:
        changed = await client.patch(f"{API}/front-desk", json={"suspended": True})
        assert (changed.json()["state"], changed.json()["state_reason"]) == (
            "suspended",
            "suspended by its organisation",
        )
        await refresh(bench)
        refused = await call(bench, chat(), made["primary_key"])
        assert (refused.status_code, refused.json()["error"]["code"]) == (403, "endpoint_suspended")
        await client.patch(f"{API}/front-desk", json={"suspended": False, "description": "back"})
        await refresh(bench)
    assert (await call(bench, chat(), made["primary_key"])).status_code == 200


async def test_a_deleted_endpoint_is_gone_with_its_keys_and_its_name_is_free(bench: Any, chat: Body) -> None:
    await bench.start_engine()
    made = await make(bench)
    async with bench.client() as client:
        assert (await client.delete(f"{API}/front-desk")).status_code == 204
        assert (await client.delete(f"{API}/front-desk")).status_code == 404
    await refresh(bench)
    assert (await call(bench, chat(), made["primary_key"])).status_code == 401
    await make(bench)


async def test_an_endpoints_limits_hold_for_all_its_keys(bench: Any, chat: Body) -> None:
    await bench.start_engine()
    made = await make(bench, limits={"requests_per_minute": 2})
    statuses = [
        (await call(bench, chat(), key)).status_code
        for key in (made["primary_key"], made["secondary_key"], made["primary_key"])
    ]
    assert statuses == [200, 200, 429]


@pytest.mark.parametrize(
    ("fields", "status", "param"),
    [
        ({"name": "Front Desk"}, 400, "name"),
        ({"name": "x"}, 400, "name"),
        ({"name": "front-"}, 400, "name"),
        ({"model": "penstock/demo-chatt"}, 404, "model"),
        ({"project": "nowhere"}, 400, "project"),
        ({"tags": {"": "x"}}, 400, "tags"),
        ({"limits": {"requests_per_minute": 0}}, 400, "limits.requests_per_minute"),
        ({"limits": {"requests": 1}}, 400, None),
        ({"colour": "blue"}, 400, None),
    ],
)
async def test_what_makes_no_endpoint_is_refused_by_field(
    bench: Any, fields: dict[str, Any], status: int, param: str | None
) -> None:
    async with bench.client() as client:
        answer = await client.post(API, json={"name": "front-desk", "model": MODEL, **fields})
        assert answer.status_code == status, answer.text
        if param is not None:
            assert answer.json()["param"] == param
        assert (await client.get(API)).json() == {"data": []}


async def test_a_name_is_taken_once(bench: Any) -> None:
    await make(bench)
    async with bench.client() as client:
        again = await client.post(API, json={"name": "front-desk", "model": MODEL})
    assert (again.status_code, again.json()["param"]) == (400, "name")
    assert "choose another name" in again.json()["detail"]


async def test_a_model_must_be_named_where_no_endpoint_has_one(bench: Any, chat: Body) -> None:
    await bench.start_engine()
    made = await make(bench)
    assert (await call(bench, chat(model=""), made["primary_key"])).status_code == 200
    async with bench.client() as client:
        answer = await client.post("/v1/chat/completions", content=chat(model=""), headers=JSON)
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, "model")
    assert answer.json()["error"]["code"] == "missing_required_parameter"
