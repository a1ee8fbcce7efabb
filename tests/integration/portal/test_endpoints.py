"""Pages of endpoints: made, shown, changed and ended by the way that programs take, by those who may."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import Any, cast

import asyncpg
import httpx
import msgspec
import pytest
from benches.gateway import EMBED, MODEL
from benches.portal import Site

from penstock.portal import formats
from penstock_billing import intervals, minutes, prices
from penstock_billing.intervals import IntervalKind, Subject
from penstock_billing.testing import in_the_past
from penstock_catalog.cards import EndpointKind

SECRET = re.compile(r"sk-penstock-[a-z0-9]{12}-[a-z0-9]{46}")
AT = "/portal/endpoints/serverless/front-desk"
TABS = ("/test", "/usage", "/latency", "/errors", "/keys", "/settings", "/swagger.json")
HOSTILE = "<script>alert(1)</script>\u202e"


async def make(client: httpx.AsyncClient, name: str = "front-desk", **more: str) -> list[str]:
    """Create an endpoint in the portal; the keys that were shown, primary first."""
    answer = await client.post("/portal/endpoints/new", data={"name": name, "model": MODEL} | more)
    assert answer.status_code == 201, answer.text
    return list(dict.fromkeys(SECRET.findall(answer.text)))


async def call(site: Site, key: str, name: str = "front-desk", **more: Any) -> httpx.Response:
    """One request to an endpoint, once its gateway knows it."""
    await site.bench.gateway.endpoints.refresh(site.database)
    body = {"messages": [{"role": "user", "content": "Hello"}], "max_tokens": 5, "model": "any"} | more
    async with httpx.AsyncClient(base_url=site.url, timeout=20) as client:
        return await client.post(
            f"/serverless/{name}/v1/chat/completions",
            headers={"authorization": f"Bearer {key}"},
            json=body,
        )


async def called(site: Site, key: str, **more: Any) -> Any:
    """The event of a request that was answered, as soon as it is there."""
    answer = await call(site, key, **more)
    assert answer.status_code == 200, answer.text
    return await site.bench.event(answer.headers["x-request-id"])


async def test_an_endpoint_is_made_in_two_steps_and_answers_with_the_keys_that_were_shown(site: Site) -> None:
    client = await site.client("developer")
    empty = await client.get("/portal/endpoints")
    assert "No endpoints yet" in empty.text
    assert "/portal/endpoints/new" in empty.text
    form = await client.get("/portal/endpoints/new", params={"model": MODEL})
    assert 'value="demo-chat"' in form.text
    primary, secondary = await make(client, "demo-chat")
    for key in (primary, secondary):
        assert (await call(site, key, "demo-chat")).status_code == 200
    # A second one of the model is not called like the first.
    assert 'value="demo-chat-2"' in (await client.get("/portal/endpoints/new", params={"model": MODEL})).text


async def test_keys_are_shown_once_and_the_pages_after_have_their_last_four(site: Site) -> None:
    client = await site.client("developer")
    primary, secondary = await make(client)
    for tab in ("", "/keys", "/settings", "/usage", "/test"):
        page = await client.get(AT + tab)
        assert page.status_code == 200
        assert not SECRET.findall(page.text)
    page = (await client.get(AT + "/keys")).text
    [row] = await site.database.fetch(
        "select last_four from access.api_key where slot = 'primary' and revoked_at is null"
    )
    assert f"…{row['last_four']}" in page
    assert primary != secondary


async def test_what_is_wrong_is_said_beside_the_field_and_what_was_typed_stays(site: Site) -> None:
    client = await site.client("developer")
    await make(client)
    typed = {
        "model": MODEL,
        "name": "front-desk",
        "description": HOSTILE,
        "requests_per_minute": "7",
    }
    taken = await client.post("/portal/endpoints/new", data=typed)
    assert taken.status_code == 422
    assert "There is an endpoint named" in taken.text
    assert "&lt;script&gt;alert(1)" in taken.text
    assert "<script>alert" not in taken.text
    assert 'value="7"' in taken.text
    for field, value, told in (
        ("name", "No Name!", "e-name"),
        ("requests_per_minute", "many", "e-requests_per_minute"),
        ("concurrent_requests", "0", "e-concurrent_requests"),
        ("tags", "no tag", "e-tags"),
        ("project", "nowhere", "e-project"),
    ):
        wrong = await client.post("/portal/endpoints/new", data=typed | {"name": "other", field: value})
        assert wrong.status_code == 422, field
        assert f'id="{told}"' in wrong.text, field
    assert await site.database.fetchval("select count(*) from endpoints.serverless") == 1


async def test_a_model_that_is_not_offered_serverless_is_refused_with_what_it_is_offered_as(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    card = site.bench.gateway.shelf.get(EMBED)
    assert card is not None
    dedicated = msgspec.structs.replace(card, endpoints=[EndpointKind.ONLINE, EndpointKind.BATCH])
    monkeypatch.setitem(site.bench.gateway.shelf._by_id, EMBED, dedicated)
    client = await site.client("developer")
    for answer in (
        await client.get("/portal/endpoints/new", params={"model": EMBED}),
        await client.post("/portal/endpoints/new", data={"name": "vectors", "model": EMBED}),
    ):
        assert answer.status_code == 422
        assert "is not offered serverless" in answer.text
        assert "<strong>online</strong>, <strong>batch</strong>" in answer.text
    unknown = await client.get("/portal/endpoints/new", params={"model": HOSTILE})
    assert unknown.status_code == 404
    assert "<script>alert" not in unknown.text
    assert await site.database.fetchval("select count(*) from endpoints.serverless") == 0


async def test_a_viewer_looks_at_everything_and_changes_nothing(site: Site) -> None:
    await make(await site.client("developer"))
    viewer = await site.client("viewer")
    for tab in ("", *TABS):
        assert (await viewer.get(AT + tab)).status_code == 200, tab
    assert "/portal/endpoints/new" not in (await viewer.get("/portal/endpoints")).text
    assert (await viewer.get("/portal/endpoints/new")).status_code == 403
    for path, form in (
        ("/portal/endpoints/new", {"name": "mine", "model": MODEL}),
        (AT + "/keys", {"slot": "primary"}),
        (AT + "/settings", {"description": "mine"}),
        (AT + "/suspend", {}),
        (AT + "/resume", {}),
        (AT + "/delete", {"confirm": "front-desk"}),
    ):
        assert (await viewer.post(path, data=form)).status_code == 403, path
    row = await site.database.fetchrow("select * from endpoints.serverless")
    assert row is not None
    assert (row["suspended"], row["deleted_at"], row["description"]) == (None, None, "")


async def test_an_endpoint_of_others_is_not_there(site: Site) -> None:
    await make(await site.client("developer"))
    globex = await (await site.organisation("globex")).client("owner")
    for tab in (
        "",
        "/state",
        "/test",
        "/usage",
        "/latency",
        "/errors",
        "/keys",
        "/settings",
        "/swagger.json",
    ):
        answer = await globex.get(AT + tab)
        assert MODEL not in answer.text
        assert answer.status_code in {404, 286}, tab
    for path, form in (
        (AT + "/keys", {"slot": "primary"}),
        (AT + "/settings", {"description": "mine"}),
        (AT + "/suspend", {}),
        (AT + "/delete", {"confirm": "front-desk"}),
    ):
        assert (await globex.post(path, data=form)).status_code == 404, path
    assert "front-desk" not in (await globex.get("/portal/endpoints")).text


async def test_use_and_cost_are_the_ledgers_to_the_last_digit(site: Site) -> None:
    client = await site.client("developer")
    primary, _ = await make(client)
    events = [await called(site, primary) for _ in range(3)]
    cost = sum(event["cost_nano_usd"] for event in events)
    assert cost > 0
    endpoint = await site.database.fetchrow("select * from endpoints.serverless")
    assert endpoint is not None
    now = datetime.now(UTC)
    subject = Subject(
        kind=IntervalKind.ENDPOINT,
        id=str(endpoint["id"]),
        priced_as="serverless",
        organisation_id=endpoint["organisation_id"],
        project_id=endpoint["project_id"],
        model=MODEL,
        endpoint="front-desk",
    )
    async with site.database.acquire() as taken:
        connection = cast("asyncpg.Connection", taken)
        # Charged minutes have passed: this one began in the last minute.
        async with in_the_past(connection):
            await prices.set_first_minute(connection, "endpoint", "serverless", 100_003, "")
            await connection.execute(
                "update billing.minute_price_version set valid_from = now() - interval '1 hour'"
            )
        await intervals.open_interval(connection, subject, now - timedelta(minutes=1), holder=None)
        fee = (await minutes.accrue(connection, now)).cost_nano_usd
    assert fee > 0
    booked = await site.database.fetchval(
        "select -sum(posted_nano_usd)::bigint from billing.account where kind = 'revenue'"
    )
    assert booked == cost + fee
    shown = formats.usd(cost + fee)
    page = (await client.get("/portal/endpoints")).text
    assert shown in page
    assert ">3<" in page.replace(" ", "").replace("\n", "")
    assert shown in (await client.get(AT)).text
    for window in ("24h", "7d", "30d", "nonsense"):
        used = (await client.get(f"{AT}/usage", params={"window": window})).text
        assert shown in used, window
        assert formats.count(sum(event["input_tokens"] for event in events)) in used


async def test_a_name_that_is_used_again_has_no_use_of_the_one_before(site: Site) -> None:
    client = await site.client("developer")
    primary, _ = await make(client)
    await called(site, primary, stream=True)
    await client.post(f"{AT}/delete", data={"confirm": "front-desk"})
    # As if it had been some time ago: usage is told apart by minutes.
    await site.database.execute(
        "update endpoints.serverless set ended_at = now(), created_at = created_at - interval '1 hour'"
    )
    await make(client)
    await site.database.execute(
        "update endpoints.serverless set created_at = now() + interval '1 minute' where deleted_at is null"
    )
    for tab in ("", "/usage", "/latency", "/errors"):
        page = (await client.get(AT + tab)).text
        assert formats.usd(0) in page or "in this time" in page or "answered whole" in page, tab
    assert "Nothing was answered in this time" in (await client.get(f"{AT}/latency")).text
    assert "No requests in this time" in (await client.get(f"{AT}/usage")).text


async def test_latency_says_what_it_covers(site: Site) -> None:
    client = await site.client("developer")
    primary, _ = await make(client)
    assert "Nothing was answered" in (await client.get(f"{AT}/latency")).text
    event = await called(site, primary, stream=True)
    page = (await client.get(f"{AT}/latency", params={"window": "7d"})).text
    assert formats.duration(event["first_token_us"]) in page
    assert formats.duration(event["duration_us"]) in page
    assert "From all 1 requests" in page


async def test_a_request_that_failed_is_counted_and_leads_to_its_record(site: Site) -> None:
    client = await site.client("developer")
    primary, _ = await make(client)
    assert "Every request was answered whole" in (await client.get(f"{AT}/errors")).text
    [engine] = site.bench.engines
    await engine.breaks(hang_at_token=1)
    await call(site, primary, stream=True, max_tokens=50)
    event = await site.bench.until(
        lambda: site.database.fetchrow("select * from billing.usage_event where outcome <> 'done'")
    )
    page = (await client.get(f"{AT}/errors")).text
    assert f"/portal/requests/{event['request_id']}" in page
    assert event["outcome"].replace("_", " ") in page
    assert ">primary<" in page


async def test_one_key_is_replaced_and_the_other_works_on(site: Site) -> None:
    client = await site.client("developer")
    primary, secondary = await make(client)
    page = await client.post(f"{AT}/keys", data={"slot": "primary"})
    [renewed] = set(SECRET.findall(page.text))
    await site.bench.gateway.keyring.refresh()
    assert (await call(site, primary)).status_code == 401
    assert (await call(site, secondary)).status_code == 200
    assert (await call(site, renewed)).status_code == 200
    assert (await client.post(f"{AT}/keys", data={"slot": "third"})).status_code == 404


async def test_what_is_changed_holds_for_requests(site: Site) -> None:
    client = await site.client("developer")
    primary, _ = await make(client)
    wanted = {"description": HOSTILE, "tags": "team=support\n\ntier = gold", "requests_per_minute": "1"}
    answer = await client.post(f"{AT}/settings", data=wanted)
    assert answer.headers["location"] == f"{AT}/settings?notice=endpoint-changed"
    page = (await client.get(AT)).text
    assert "tier=gold" in page
    assert "<script>alert" not in page
    assert "1 requests a minute" in page
    assert [(await call(site, primary)).status_code for _ in range(2)] == [200, 429]
    wrong = await client.post(f"{AT}/settings", data={"tokens_per_minute": "-1", "description": "kept"})
    assert wrong.status_code == 422
    assert "kept" in wrong.text
    assert "No limit" not in page


async def test_a_suspended_endpoint_refuses_until_it_is_resumed(site: Site) -> None:
    client = await site.client("developer")
    primary, _ = await make(client)
    answer = await client.post(f"{AT}/suspend")
    assert answer.headers["location"].startswith(f"{AT}?notice=endpoint-suspended")
    assert (await call(site, primary)).status_code == 403
    assert "suspended by its organisation" in (await client.get(AT)).text
    told = "suspended: suspended by its organisation"
    assert (await client.get(f"{AT}/state", params={"was": told})).status_code == 204
    assert told.split(": ")[1] in (await client.get(f"{AT}/state", params={"was": "online"})).text
    assert "It takes no requests" in (await client.get(f"{AT}/test")).text
    assert "front-desk" not in (await client.get("/portal/endpoints", params={"state": "online"})).text
    await client.post(f"{AT}/resume")
    assert (await call(site, primary)).status_code == 200


async def test_an_endpoint_whose_model_has_no_engine_says_why_it_is_unhealthy(site: Site) -> None:
    client = await site.client("developer")
    await make(client)
    [engine] = site.bench.engines
    await site.bench.set_state(engine, "gone")
    page = (await client.get(AT)).text
    assert "unhealthy" in page
    assert "no engine of the model runs" in page


async def test_deleting_asks_for_the_name_and_open_pages_are_told(site: Site) -> None:
    client = await site.client("developer")
    primary, _ = await make(client)
    wrong = await client.post(f"{AT}/delete", data={"confirm": "front"})
    assert wrong.status_code == 422
    assert (await call(site, primary)).status_code == 200
    answer = await client.post(f"{AT}/delete", data={"confirm": "front-desk"})
    assert answer.headers["location"] == "/portal/endpoints?notice=endpoint-deleted"
    # Its last minute is being ended: it is shown so, and takes no change.
    page = (await client.get(AT)).text
    assert "deleting" in page
    assert "It is being deleted" in (await client.get(f"{AT}/settings")).text
    assert (await client.post(f"{AT}/settings", data={"description": "late"})).status_code == 404
    await site.database.execute("update endpoints.serverless set ended_at = now()")
    gone = await client.get(f"{AT}/state", headers={"hx-request": "true"})
    assert gone.status_code == 286
    assert "was deleted" in gone.text
    assert (await client.get(AT)).status_code == 404


async def test_the_list_is_filtered_by_words_and_state(site: Site) -> None:
    client = await site.client("developer")
    await make(client, "front-desk", tags="team=support")
    await make(client, "night-shift", description="Answers at night")
    for words, shown in (("support", "front-desk"), ("NIGHT answers", "night-shift")):
        rows = await client.get("/portal/endpoints", params={"q": words}, headers={"hx-request": "true"})
        assert rows.text.count("/portal/endpoints/serverless/") == 1
        assert f"/portal/endpoints/serverless/{shown}" in rows.text
        assert "<html" not in rows.text
    assert "No endpoint is like that" in (await client.get("/portal/endpoints", params={"q": "nothing"})).text


async def test_kinds_that_are_not_here_yet_say_so(site: Site) -> None:
    client = await site.client("viewer")
    for kind in ("online", "batch"):
        page = await client.get(f"/portal/endpoints/{kind}")
        assert page.status_code == 200
        assert "are not here yet" in page.text


async def test_the_description_is_that_of_the_endpoints_own_url(site: Site) -> None:
    client = await site.client("viewer")
    primary, _ = await make(await site.client("developer"))
    await site.bench.gateway.endpoints.refresh(site.database)
    async with httpx.AsyncClient(base_url=site.url) as program:
        own = await program.get(
            "/serverless/front-desk/swagger.json", headers={"authorization": f"Bearer {primary}"}
        )
    assert (await client.get(f"{AT}/swagger.json")).json() == own.json()
