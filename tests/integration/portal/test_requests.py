"""The pages of requests: searched, followed, explained up to the cost; nobody sees anything of another's."""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest
from benches.gateway import MODEL
from benches.portal import Site

from penstock_base import ids
from penstock_billing import requests

HERE = "/portal/requests"
HTMX = {"hx-request": "true"}
PLACE = re.compile(r'data-place="([^"]+)"')


async def ask(site: Site, key: str | None = None, **headers: str) -> str:
    """Ask the model, and wait until the record is in the database; the request's id."""
    body = {"model": MODEL, "messages": [{"role": "user", "content": "Hello"}], "max_tokens": 8}
    authorization = {"authorization": f"Bearer {key or site.key}"}
    async with httpx.AsyncClient(base_url=site.url, timeout=20) as client:
        answer = await client.post("/v1/chat/completions", json=body, headers=authorization | headers)
    assert answer.status_code == 200, answer.text
    request_id: str = answer.headers["x-request-id"]
    await site.bench.event(request_id)
    return request_id


def shown(page: str) -> list[str]:
    """The ids of the requests in a list."""
    return re.findall(r'title="(req_[0-9a-f]{32})"', page)


async def test_requests_are_listed_the_latest_first_and_page_on(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("penstock.portal.pages.requests.PAGE", 2)
    made = [await ask(site) for _ in range(5)]
    client = await site.client("viewer")
    seen, address = [], HERE
    for _ in range(4):
        page = (await client.get(address)).text
        seen += shown(page)
        older = re.search(r'data-older href="([^"]+)"', page)
        if older is None:
            break
        address = older[1].replace("&amp;", "&")
    assert seen == made[::-1]


async def test_filters_narrow_the_list_and_stay_in_the_links(site: Site) -> None:
    request_id = await ask(site)
    client = await site.client("viewer")
    for kept in ("status=200", "outcome=done", "within=1h", f"model={MODEL}", "endpoint=-", "longer_than=0s"):
        page = (await client.get(f"{HERE}?{kept}&key=")).text
        assert shown(page) == [request_id], kept
        assert f'{request_id}?{httpx.QueryParams(kept)}"' in page
    for other in (
        "status=5xx",
        "outcome=stalled,shutdown",
        "longer_than=2h",
        "model=another",
        "until=2026-01-02&since=2026-01-01",
    ):
        answer = await client.get(f"{HERE}?{other}")
        assert answer.status_code == 200
        assert shown(answer.text) == [], other
        assert "None is like that" in answer.text or "No requests in this time" in answer.text


@pytest.mark.parametrize(
    ("query", "field", "words"),
    [
        ("longer_than=soon", "longer_than", "500ms"),
        ("longer_than=90d", "longer_than", "at most"),
        ("status=teapot", "status", "5xx"),
        ("since=yesterday", "since", "2026-11-21"),
        ("since=2026-01-01&until=2026-11-01", "since", "at most 31 days"),
        ("id=%01", "id", "printable"),
    ],
)
async def test_what_makes_no_sense_is_said_beside_its_field(
    site: Site, query: str, field: str, words: str
) -> None:
    answer = await (await site.client("viewer")).get(f"{HERE}?{query}")
    assert answer.status_code == 422
    found = re.search(rf'id="e-{field}">([^<]+)<', answer.text)
    assert found is not None
    assert words.lower() in found[1].lower()


async def test_an_id_leads_to_its_request(site: Site) -> None:
    request_id = await ask(site, **{"x-client-request-id": "order-7"})
    client = await site.client("viewer")
    for name in (request_id, "order-7"):
        answer = await client.get(HERE, params={"id": name})
        assert (answer.status_code, answer.headers["location"]) == (303, f"{HERE}/{request_id}")
    # A client that gives several requests one name sees them all.
    again = await ask(site, **{"x-client-request-id": "order-7"})
    assert shown((await client.get(HERE, params={"id": "order-7"})).text) == [again, request_id]
    assert "No request has this id" in (await client.get(HERE, params={"id": "order-8"})).text


async def test_a_request_is_explained_with_the_record_that_programs_get(site: Site) -> None:
    request_id = await ask(site, **{"x-client-request-id": '<script>alert("1")</script>'})
    client = await site.client("viewer")
    page = (await client.get(f"{HERE}/{request_id}?outcome=done")).text
    async with site.acme.api() as api:
        record: dict[str, Any] = (await api.get(f"/api/v1/requests/{request_id}")).json()
    raw = re.search(r"<code>(\{.*?\n\})</code>", page, re.DOTALL)
    assert raw is not None
    assert json.loads(raw[1].replace("&#34;", '"').replace("&lt;", "<").replace("&gt;", ">")) == record
    for stage in record["stages"]:
        assert stage["stage"].capitalize() in page
    for charge in record["charges"]:
        assert charge["usd"] in page
    assert f"That is the stored cost, {record['cost_usd']} USD" in page
    assert f"/portal/billing/ledger/{record['ledger_transaction_id']}" in page
    assert "<script>alert" not in page
    assert ' style="' not in page


async def test_the_way_on_stays_in_the_list_that_one_came_from(site: Site) -> None:
    first, second, third = [await ask(site) for _ in range(3)]
    client = await site.client("viewer")
    page = (await client.get(f"{HERE}/{second}?outcome=done")).text
    assert f'href="{HERE}/{first}?outcome=done" rel="next"' in page
    assert f'href="{HERE}/{third}?outcome=done" rel="prev"' in page
    page = (await client.get(f"{HERE}/{second}?outcome=stalled")).text
    assert 'rel="next"' not in page
    assert 'rel="prev"' not in page


async def test_anothers_request_looks_like_one_that_never_was(site: Site) -> None:
    globex = await site.organisation("globex")
    theirs = await ask(site, globex.key, **{"x-client-request-id": "secret-order"})
    never = f"req_{ids.uuid7_bytes().hex()}"
    client = await site.client("owner")

    async def page_of(name: str, as_part: bool = False) -> tuple[int, str]:
        answer = await client.get(f"{HERE}/{name}", headers=HTMX if as_part else {})
        return answer.status_code, answer.text.replace(name, "NAME")

    assert await page_of(theirs) == await page_of(never)
    assert await page_of(theirs, as_part=True) == await page_of(never, as_part=True)
    assert await page_of("secret-order") == await page_of("never-ordered")
    assert (await page_of(theirs))[0] == 404
    for name in (theirs, "secret-order"):
        answer = await client.get(HERE, params={"id": name})
        assert (answer.status_code, shown(answer.text)) == (200, [])
    assert shown((await client.get(HERE)).text) == []
    assert (
        shown((await client.get(f"{HERE}?newer=2026-01-01T00:00:00.000Z/{'0' * 32}", headers=HTMX)).text)
        == []
    )
    assert theirs in (await (await globex.client("viewer")).get(f"{HERE}/{theirs}")).text


async def test_a_page_of_what_may_still_come_looks_again_and_then_gives_up(site: Site) -> None:
    client = await site.client("viewer")
    young = f"req_{ids.uuid7_bytes().hex()}"
    answer = await client.get(f"{HERE}/{young}")
    assert answer.status_code == 404
    assert "Not here yet" in answer.text
    tries = 0
    while looks := re.search(r'hx-get="([^"]+)"', answer.text):
        answer = await client.get(looks[1].replace("&amp;", "&"), headers=HTMX)
        tries += 1
        assert tries < 20
    assert tries == 8
    assert "Look again" in answer.text
    # And once it is there, the browser loads the page anew.
    request_id = await ask(site)
    answer = await client.get(f"{HERE}/{request_id}?try=1", headers=HTMX)
    assert answer.headers["hx-refresh"] == "true"


async def test_an_archived_day_is_said(site: Site) -> None:
    day = datetime.now(UTC).date() - timedelta(days=10)
    await site.database.execute(
        """insert into billing.archive (day, part, file, size_bytes, events, input_tokens, cached_tokens,
             output_tokens, reasoning_tokens, images, audio_ms, documents, cost_nano_usd, sha256, detached_at)
           values ($1, 1, 'x', 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, '', now())""",
        day,
    )
    noon_ms = int(datetime(day.year, day.month, day.day, 12, tzinfo=UTC).timestamp() * 1000)
    client = await site.client("viewer")
    answer = await client.get(f"{HERE}/req_{ids.uuid7_bytes(noon_ms).hex()}")
    assert answer.status_code == 404
    assert "In an archive file" in answer.text
    assert "hx-get" not in answer.text
    assert f"Requests of {day}" in (await client.get(f"{HERE}?within=31d")).text


async def test_new_rows_come_since_a_place_and_none_is_missed(site: Site) -> None:
    client = await site.client("viewer")
    first = await ask(site)
    (place,) = PLACE.findall((await client.get(HERE)).text)
    second = await ask(site)
    answer = await client.get(HERE, params={"newer": place}, headers=HTMX)
    # The one before comes again: another that ended with it may have been recorded later.
    assert shown(answer.text) == [second, first]
    assert "<html" not in answer.text
    other = await client.get(HERE, params={"newer": place, "outcome": "stalled"}, headers=HTMX)
    assert shown(other.text) == []
    for broken in ("x", "9999-12-31T23:59:59Z/x", "2026-01-01T00:00:00/x"):
        assert (await client.get(HERE, params={"newer": broken}, headers=HTMX)).status_code == 200


async def test_a_search_that_is_stopped_says_what_to_narrow(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    await ask(site)
    slow = requests.SQL["wanted"] + " and pg_sleep(1) is not null"
    monkeypatch.setitem(requests.SQL, "wanted", slow)
    monkeypatch.setitem(requests.SQL, "limit_time", "set local statement_timeout = '50ms'")
    answer = await (await site.client("viewer")).get(f"{HERE}?within=7d&model={MODEL}")
    assert "That search takes too long" in answer.text
    assert "7 days" in answer.text
    assert "of that model" in answer.text
    assert "within=1h" in answer.text


async def test_an_empty_endpoint_is_none_for_programs_and_any_for_the_form(site: Site) -> None:
    request_id = await ask(site)
    client = await site.client("viewer")
    for query, chosen in (
        ("endpoint=", '<option value="-" selected>'),
        ("endpoint=&outcome=", '<option value="" selected>'),
    ):
        page = (await client.get(f"{HERE}?{query}")).text
        assert shown(page) == [request_id]
        assert chosen in page.partition('name="endpoint"')[2].partition("</select>")[0]


async def test_every_link_of_a_request_and_of_the_first_page_leads_somewhere(site: Site) -> None:
    request_id = await ask(site)
    client = await site.client("operator")
    async with site.acme.api() as api:
        made = await api.post("/api/v1/serverless-endpoints", json={"name": "desk", "model": MODEL})
        assert made.status_code == 201
        made = await api.put("/api/v1/budgets", json={"limit_usd": "0.000000001"})
        assert made.status_code == 200
    await site.bench.gateway.prices.load(site.database)
    broken = []
    for page in (f"{HERE}/{request_id}", "/portal"):
        text = (await client.get(page)).text
        assert "desk" in text or page != "/portal"
        for link in sorted(set(re.findall(r'<a [^>]*href="(/[^"#]*)', text))):
            answer = await client.get(link.replace("&amp;", "&"))
            if answer.status_code != 200:
                broken.append((page, link, answer.status_code))
    assert broken == []
