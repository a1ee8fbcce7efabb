"""The playground's requests: paid for as every other, by whoever may, and by nobody's page but ours."""

from __future__ import annotations

import asyncio
import html
import json
import re
from typing import Any

import httpx
import pytest
from benches.gateway import EMBED, MODEL, PEPPER, until
from benches.portal import Site

from penstock.access import keys, limits, sessions
from penstock.access.limits import RateLimits
from penstock.portal import formats
from penstock_billing import invariants

CHAT = "/portal/playground/v1/chat/completions"
EMBEDDINGS = "/portal/playground/v1/embeddings"
BODY: dict[str, Any] = {"model": MODEL, "messages": [{"role": "user", "content": "Hello"}], "max_tokens": 9}


async def told(client: httpx.AsyncClient, name: str) -> dict[str, Any]:
    """What the page learns of a request, as soon as that is recorded."""

    async def look() -> dict[str, Any] | None:
        answer = await client.get(f"/portal/playground/requests/{name}")
        assert answer.status_code == 200
        found: dict[str, Any] = answer.json()
        return found if found["recorded"] else None

    return await until(look)


async def ledger(site: Site, request_id: str) -> int:
    """What the ledger took for a request, in nano-dollars."""
    event = await site.bench.event(request_id)
    revenue = "select coalesce(-sum(posted_nano_usd), 0)::bigint from billing.account where kind = 'revenue'"
    assert await site.database.fetchval(revenue) == event["cost_nano_usd"]
    async with site.database.acquire() as connection:
        assert await invariants.check(connection) == []
    return int(event["cost_nano_usd"])


async def nothing_was_done(site: Site) -> bool:
    made = [await engine.made() for engine in site.bench.engines]
    key = await site.database.fetchval("select count(*) from access.api_key where playground")
    return not any(made) and not key


async def test_an_answer_costs_on_the_page_what_it_costs_in_the_ledger(site: Site) -> None:
    client = await site.client("developer")
    answer = await client.post(CHAT, json=BODY | {"stream": True})
    assert answer.status_code == 200
    assert "data: [DONE]" in answer.text
    request_id = answer.headers["x-request-id"]
    shown = await told(client, request_id)
    cost = await ledger(site, request_id)
    assert shown["cost_nano_usd"] == cost > 0
    assert shown["cost"] == formats.usd(cost)
    event = await site.bench.event(request_id)
    assert (shown["input_tokens"], shown["output_tokens"]) == (event["input_tokens"], 9)
    assert shown["request_id"] == request_id
    assert shown["outcome"] == "done"


async def test_an_answer_that_was_stopped_costs_what_was_made(site: Site) -> None:
    slow = await site.bench.start_engine("slow", tokens_per_second=50)
    await site.database.execute("delete from engines.replica where id = 'a'")
    await site.bench.gateway.directory.refresh(site.database)
    client = await site.client("developer")
    body = BODY | {"stream": True, "max_tokens": 1500, "ignore_eos": True}
    async with client.stream(
        "POST", CHAT, json=body, headers={"x-client-request-id": "playground-1"}
    ) as answer:
        assert answer.status_code == 200
        request_id = answer.headers["x-request-id"]
        async for _ in answer.aiter_lines():
            break
    # A page that saw no head finds the record by the name that it gave.
    shown = await told(client, "playground-1")
    assert shown == await told(client, request_id)
    assert shown["outcome"] == "client_gone"
    assert 0 < shown["output_tokens"] < 1500
    assert shown["cost_nano_usd"] == await ledger(site, request_id)
    assert (await slow.made())[request_id]["completion_tokens"] == shown["output_tokens"]


async def test_embeddings_cost_on_the_page_what_they_cost_in_the_ledger(site: Site) -> None:
    await site.bench.start_engine("e", model=EMBED)
    client = await site.client("developer")
    answer = await client.post(EMBEDDINGS, json={"model": EMBED, "input": ["one", "two words", "three"]})
    assert len(answer.json()["data"]) == 3
    request_id = answer.headers["x-request-id"]
    shown = await told(client, request_id)
    assert shown["cost_nano_usd"] == await ledger(site, request_id) > 0
    assert (shown["input_tokens"], shown["output_tokens"]) == (4, 0)


@pytest.mark.parametrize(
    "headers",
    [
        {"sec-fetch-site": "cross-site"},
        {"sec-fetch-site": "same-site"},
        {"sec-fetch-site": "", "origin": "https://evil.example"},
        {"sec-fetch-site": ""},
    ],
    ids=["another site", "a sister site", "another origin", "unknown"],
)
@pytest.mark.parametrize("path", [CHAT, EMBEDDINGS])
async def test_another_sites_page_spends_nothing(site: Site, path: str, headers: dict[str, str]) -> None:
    client = await site.client("owner")
    answer = await client.post(path, json=BODY, headers=headers)
    assert answer.status_code == 403
    assert answer.json()["error"]["code"] == "forbidden"
    assert await nothing_was_done(site)


async def test_who_only_looks_spends_nothing_and_is_told_why(site: Site) -> None:
    client = await site.client("viewer")
    answer = await client.post(CHAT, json=BODY)
    assert answer.status_code == 403
    assert "role" in answer.json()["error"]["message"]
    assert await nothing_was_done(site)
    page = (await client.get("/portal/playground")).text
    assert "looks and does not spend" in page
    assert re.search(r'<textarea id="prompt"[^>]* disabled', page)


async def test_an_operator_spends_nothing_of_an_organisation_that_is_not_theirs(site: Site) -> None:
    await site.organisation("globex")
    client = await site.client("operator")
    await client.post("/portal/organisation", data={"organisation": "globex"})
    assert (await client.post(CHAT, json=BODY)).status_code == 403
    assert await nothing_was_done(site)


async def test_a_session_that_ended_is_said_in_a_way_that_the_page_reads(site: Site) -> None:
    client = await site.client("developer")
    await sessions.end(site.database, client.cookies["penstock_session"])
    answer = await client.post(CHAT, json=BODY)
    assert (answer.status_code, answer.json()["error"]["code"]) == (401, "session_ended")
    assert answer.headers["content-type"] == "application/json"
    assert (await client.get("/portal/playground/requests/req_1")).status_code == 303
    nobody = await site.visitor()
    assert (await nobody.post(CHAT, json=BODY)).json()["error"]["code"] == "session_ended"
    assert await nothing_was_done(site)


async def test_an_api_key_opens_nothing_here_and_a_session_nothing_elsewhere(site: Site) -> None:
    nobody = await site.visitor()
    bearer = {"authorization": f"Bearer {site.key}"}
    assert (await nobody.post(CHAT, json=BODY, headers=bearer)).status_code == 401
    client = await site.client("developer")
    assert (await client.post("/v1/chat/completions", json=BODY)).status_code == 401


async def test_a_projects_requests_share_one_key_named_playground(site: Site) -> None:
    client = await site.client("developer")
    answers = await asyncio.gather(*(client.post(CHAT, json=BODY) for _ in range(6)))
    assert {answer.status_code for answer in answers} == {200}
    row = await site.database.fetchrow("select * from access.api_key where playground")
    assert (row["name"], row["last_four"]) == ("Playground", "")
    noted = await site.database.fetch("select * from access.audit_entry where object_id = $1", row["id"])
    assert [(one["action"], one["actor_kind"]) for one in noted] == [("created", "person")]
    assert noted[0]["actor_name"] == "Developer of acme <developer@acme.example>"
    events = [await site.bench.event(answer.headers["x-request-id"]) for answer in answers]
    assert {event["key_id"] for event in events} == {row["id"]}
    async with site.database.acquire() as connection:
        await keys.revoke(connection, site.acme.id, row["id"])
    again = await client.post(CHAT, json=BODY)
    assert (await site.bench.event(again.headers["x-request-id"]))["key_id"] != row["id"]


async def test_the_chosen_project_pays_within_its_limits(site: Site) -> None:
    async with site.database.acquire() as connection:
        await keys.create(connection, PEPPER, name="k", organisation="acme", project="Größe")
        project_id = await keys.find_project(connection, site.acme.id, "Größe")
        await limits.limit_project(connection, site.acme.id, "Größe", RateLimits(requests_per_minute=1))
    client = await site.client("developer")
    asked = {"project": "Größe"}
    answer = await client.post(CHAT, json=BODY, params=asked)
    assert (await site.bench.event(answer.headers["x-request-id"]))["project_id"] == project_id
    refused = await client.post(CHAT, json=BODY, params=asked)
    assert (refused.status_code, refused.json()["error"]["code"]) == (429, "rate_limit_exceeded")
    assert int(refused.headers["retry-after"]) > 0
    assert (await client.post(CHAT, json=BODY)).status_code == 200


async def test_another_organisations_projects_and_requests_are_not_there(site: Site) -> None:
    globex = await site.organisation("globex")
    async with site.database.acquire() as connection:
        await keys.create(connection, PEPPER, name="k", organisation="globex", project="secret")
    client = await site.client("developer")
    answer = await client.post(CHAT, json=BODY, params={"project": "secret"})
    assert (answer.status_code, answer.json()["error"]["code"]) == (404, "project_not_found")
    # Text that Postgres does not know is refused, and breaks nothing.
    assert (await client.post(f"{CHAT}?project=%00", json=BODY)).status_code == 400
    async with globex.api() as program:
        theirs = (await program.post("/v1/chat/completions", json=BODY)).headers["x-request-id"]
    await site.bench.event(theirs)
    assert (await client.get(f"/portal/playground/requests/{theirs}")).json() == {"recorded": False}


@pytest.mark.parametrize(
    ("status", "content", "headers"),
    [
        (413, b'"' + b"x" * 120_000 + b'"', {"content-type": "application/json"}),
        (415, b"model=x", {"content-type": "application/x-www-form-urlencoded"}),
        (400, b"{", {"content-type": "application/json"}),
    ],
    ids=["too large", "a form", "no JSON"],
)
async def test_what_a_key_may_not_send_a_page_may_not_either(
    site: Site, status: int, content: bytes, headers: dict[str, str]
) -> None:
    client = await site.client("developer")
    answer = await client.post(CHAT, content=content, headers=headers)
    assert answer.status_code == status
    assert answer.json()["error"]["message"]


async def test_an_image_is_refused_in_words_where_the_model_reads_text_only(site: Site) -> None:
    client = await site.client("developer")
    image = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}
    body = BODY | {"messages": [{"role": "user", "content": [image]}]}
    answer = await client.post(CHAT, json=body)
    assert answer.status_code == 400
    assert "text only" in answer.json()["error"]["message"]


async def test_the_page_lists_what_can_be_called_and_names_are_text(site: Site) -> None:
    name = "</script><script>alert(1)</script>"
    async with site.database.acquire() as connection:
        await keys.create(connection, PEPPER, name="k", organisation="acme", project=name)
    client = await site.client("developer")
    page = (await client.get("/portal/playground")).text
    assert "<script>alert" not in page
    assert html.escape(name, quote=False) in page or html.escape(name) in page
    found = re.search(r'<script type="application/json" id="facts">(.*?)</script>', page, re.DOTALL)
    assert found is not None
    [choice] = json.loads(found[1])["choices"]
    assert (choice["value"], choice["base_url"]) == (MODEL, f"{site.url}/v1")
    assert choice["price"] == "$0.10 in, $0.40 out per 1M"
    sent_on = await client.get("/portal/playground", params={"model": EMBED})
    assert sent_on.headers["location"] == f"/portal/playground/embeddings?model={EMBED}"
    embeddings = (await client.get("/portal/playground/embeddings")).text
    assert "No embedding model is served here yet" in embeddings


async def test_an_endpoint_is_called_with_its_own_rules(site: Site) -> None:
    async with site.acme.api() as program:
        made = {"name": "front-desk", "model": MODEL}
        (await program.post("/api/v1/serverless-endpoints", json=made)).raise_for_status()
    await site.bench.gateway.endpoints.refresh(site.database)
    client = await site.client("developer")
    assert "front-desk" in (await client.get("/portal/playground")).text
    answer = await client.post(CHAT, json=BODY | {"model": "anything"}, params={"endpoint": "front-desk"})
    assert answer.status_code == 200
    assert (await site.bench.event(answer.headers["x-request-id"]))["endpoint"] == "front-desk"
    unknown = await client.post(CHAT, json=BODY, params={"endpoint": "nowhere"})
    assert (unknown.status_code, unknown.json()["error"]["code"]) == (404, "endpoint_not_found")
