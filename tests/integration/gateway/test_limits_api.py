"""Limits over the management API, in force a moment later: a tenant's own keys and projects, no others."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from penstock.access import keys, plans
from penstock.access.limits import RateLimits

Body = Callable[..., bytes]
API = "/api/v1/limits"
CHAT = "/v1/chat/completions"
JSON = {"content-type": "application/json"}
PEPPER = b"p" * 32
NO_LIMITS = {"requests_per_minute": None, "tokens_per_minute": None, "concurrent_requests": None}


async def make_key(bench: Any, organisation: str = "acme", project: str = "default") -> tuple[str, str]:
    """A key, and its id."""
    async with bench.database.acquire() as connection:
        text = await keys.create(connection, PEPPER, name="small", organisation=organisation, project=project)
    parsed = keys.parse(text)
    assert parsed is not None
    return text, parsed.id


def bearer(key: str) -> dict[str, str]:
    return JSON | {"authorization": f"Bearer {key}"}


async def test_a_key_is_limited_and_freed_within_a_second(bench: Any, chat: Body) -> None:
    await bench.start_engine()
    key, key_id = await make_key(bench)
    async with bench.client() as client:

        async def statuses(count: int) -> list[int]:
            found = [await client.post(CHAT, content=chat(), headers=bearer(key)) for _ in range(count)]
            return [answer.status_code for answer in found]

        async def limited(most: int | None) -> bool | None:
            now = (await bench.gateway.keyring.authenticate(key)).key_limits.requests_per_minute
            return True if now == most else None

        assert await statuses(3) == [200] * 3
        answer = await client.put(f"{API}/keys/{key_id}", json={"requests_per_minute": 1})
        assert answer.json() == NO_LIMITS | {"requests_per_minute": 1}
        # Nobody tells the gateway but its own look into the database, every second.
        await bench.until(lambda: limited(1), 10)
        assert await statuses(3) == [200, 429, 429]
        assert (await client.get(f"{API}/keys/{key_id}")).json()["requests_per_minute"] == 1
        assert (await client.delete(f"{API}/keys/{key_id}")).status_code == 204
        await bench.until(lambda: limited(None), 10)
        assert await statuses(3) == [200] * 3


async def test_everything_that_limits_an_organisation_is_shown(bench: Any) -> None:
    _, key_id = await make_key(bench, project="web")
    async with bench.database.acquire() as connection:
        await plans.create(connection, "small", 0.5, RateLimits(concurrent_requests=9))
        await plans.assign(connection, "acme", "small")
    async with bench.client() as client:
        await client.put(f"{API}/keys/{key_id}", json={"tokens_per_minute": 500})
        await client.put(f"{API}/projects/web", json={"concurrent_requests": 3})
        shown = (await client.get(API)).json()
    assert shown == {
        "organisation": {
            "plan": "small",
            "weight": 0.5,
            "limits": NO_LIMITS | {"concurrent_requests": 9},
        },
        "projects": [{"project": "web", "limits": NO_LIMITS | {"concurrent_requests": 3}}],
        "keys": [{"key_id": key_id, "name": "small", "limits": NO_LIMITS | {"tokens_per_minute": 500}}],
    }


async def test_a_plans_limits_hold_for_all_keys_of_an_organisation_together(bench: Any, chat: Body) -> None:
    await bench.start_engine()
    pair = [(await make_key(bench, project=project))[0] for project in ("one", "two")]
    stranger, _ = await make_key(bench, "strangers")
    async with bench.database.acquire() as connection:
        await plans.create(connection, "small", 1, RateLimits(requests_per_minute=2))
        await plans.assign(connection, "acme", "small")
    await bench.gateway.keyring.refresh()
    async with bench.client() as client:
        answers = [
            await client.post(CHAT, content=chat(), headers=bearer(key)) for key in (*pair, pair[0], stranger)
        ]
    assert [answer.status_code for answer in answers] == [200, 200, 429, 200]
    assert "the organisation is limited to 2 requests per minute" in answers[2].json()["error"]["message"]


async def test_requests_at_once_are_limited_and_there_is_room_when_one_ends(bench: Any, chat: Body) -> None:
    await bench.start_engine(tokens_per_second=20, answer_tokens=40)
    key, key_id = await make_key(bench)
    async with bench.client() as client:
        await client.put(f"{API}/keys/{key_id}", json={"concurrent_requests": 1})
        await bench.gateway.keyring.refresh()
        body = chat(max_tokens=40, ignore_eos=True)
        long = asyncio.create_task(client.post(CHAT, content=body, headers=bearer(key)))

        async def runs() -> bool | None:
            return True if bench.gateway.directory.all_targets()[0].in_flight else None

        await bench.until(runs)
        refused = await client.post(CHAT, content=chat(), headers=bearer(key))
        assert (refused.status_code, refused.headers["retry-after"]) == (429, "1")
        assert refused.json()["error"]["limit"] == "requests at once"
        assert (await long).status_code == 200
        assert (await client.post(CHAT, content=chat(), headers=bearer(key))).status_code == 200


async def test_our_own_failures_use_up_no_tokens(bench: Any, chat: Body) -> None:
    engine = await bench.start_engine()
    key, key_id = await make_key(bench)
    async with bench.client() as client:
        await client.put(f"{API}/keys/{key_id}", json={"tokens_per_minute": 1000})
        await bench.gateway.keyring.refresh()
        await engine.breaks(cut_at_token=5)
        body = chat(max_tokens=20, stream=True, ignore_eos=True)
        failed = await client.post(CHAT, content=body, headers=bearer(key))
        event = await bench.event(failed.headers["x-request-id"])
        assert (event["outcome"], event["cost_nano_usd"], event["output_tokens"] > 0) == (
            "engine_failed",
            0,
            True,
        )
        await engine.mend()
        left = [
            (await client.post(CHAT, content=chat(), headers=bearer(key))).headers[
                "x-ratelimit-remaining-tokens"
            ]
            for _ in range(2)
        ]
    assert left[0] == "1000"
    assert int(left[1]) < 1000


async def test_a_limited_key_cannot_free_itself(bench: Any) -> None:
    key, key_id = await make_key(bench)
    async with bench.client() as client:
        await client.put(f"{API}/keys/{key_id}", json={"requests_per_minute": 100})
        await bench.gateway.keyring.refresh()
        for path in (f"keys/{key_id}", "projects/default"):
            answer = await client.put(f"{API}/{path}", json={}, headers=bearer(key))
            assert (answer.status_code, answer.json()["code"]) == (403, "forbidden")
            assert (await client.delete(f"{API}/{path}", headers=bearer(key))).status_code == 403
        assert (await client.get(f"{API}/keys/{key_id}")).json()["requests_per_minute"] == 100


async def test_other_organisations_keys_and_projects_are_not_there(bench: Any) -> None:
    stranger, stranger_id = await make_key(bench, "strangers", "theirs")
    async with bench.client() as client:
        for path in (f"keys/{stranger_id}", "projects/theirs", "keys/nothing"):
            assert (await client.put(f"{API}/{path}", json={"requests_per_minute": 1})).status_code == 404
            assert (await client.get(f"{API}/{path}")).status_code == 404
            assert (await client.delete(f"{API}/{path}")).status_code == 404
        shown = (await client.get(API, headers=bearer(stranger))).json()
    assert shown["keys"] == shown["projects"] == []


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ({"requests_per_minute": 0}, "requests_per_minute"),
        ({"tokens_per_minute": -5}, "tokens_per_minute"),
        ({"concurrent_requests": "many"}, "concurrent_requests"),
        ({"requests": 5}, "requests"),
    ],
)
async def test_what_is_no_limit_is_refused_by_field(bench: Any, body: dict[str, Any], said: str) -> None:
    _, key_id = await make_key(bench)
    async with bench.client() as client:
        answer = await client.put(f"{API}/keys/{key_id}", json=body)
        assert answer.status_code == 400, answer.text
        assert said in answer.text
        assert (await client.get(f"{API}/keys/{key_id}")).json() == NO_LIMITS
