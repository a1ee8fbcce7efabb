"""From the list to one request and back, and the list that fills by itself."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from benches.gateway import MODEL
from benches.portal import Site
from playwright.async_api import Page, expect

PageAs = Callable[..., Awaitable[Page]]
CheckPage = Callable[[Page], Awaitable[None]]


async def ask(site: Site, **headers: str) -> str:
    body = {
        "model": MODEL,
        "messages": [{"role": "user", "content": "Hello"}],
        "max_tokens": 8,
        "stream": True,
    }
    async with site.acme.api() as api:
        answer = await api.post("/v1/chat/completions", json=body, headers=headers)
    assert answer.status_code == 200
    request_id: str = answer.headers["x-request-id"]
    await site.bench.event(request_id)
    return request_id


async def test_one_finds_a_request_and_understands_it(
    site: Site, page_as: PageAs, check_page: CheckPage
) -> None:
    request_id = await ask(site, **{"x-client-request-id": "<script>alert(1)</script>"})
    await ask(site)
    page = await page_as("viewer")
    await page.goto("/portal/requests")
    await check_page(page)
    await expect(page.locator("#rows tr")).to_have_count(2)
    await page.get_by_label("Took longer than").fill("1h")
    await page.get_by_label("Took longer than").press("Tab")
    await expect(page.get_by_text("None is like that")).to_be_visible()
    assert page.url.endswith("/portal/requests?longer_than=1h")
    await check_page(page)
    await page.get_by_label("Took longer than").fill("a while")
    await page.get_by_label("Took longer than").press("Tab")
    await expect(page.locator("#e-longer_than")).to_contain_text("Write a time with its unit")
    await page.goto("/portal/requests")
    await page.get_by_label("Find one by its id").fill(request_id)
    await page.get_by_role("button", name="Find", exact=True).click()
    await expect(page.get_by_role("heading", level=1)).to_contain_text(request_id[-8:])
    await expect(page.get_by_text("That is the stored cost")).to_be_visible()
    await page.get_by_text("JSON", exact=True).click()
    await expect(page.locator("details.raw pre").first).to_contain_text(request_id)
    await check_page(page)
    await page.get_by_role("link", name="Newer").click()
    await page.wait_for_url(lambda url: request_id not in url)
    await (
        page.get_by_role("navigation", name="Requests around this one")
        .get_by_role("link", name="Requests")
        .click()
    )
    await expect(page.locator("#rows tr")).to_have_count(2)


async def test_the_list_fills_while_one_looks_and_stops_when_told(
    site: Site, page_as: PageAs, check_page: CheckPage
) -> None:
    page = await page_as("viewer", phone=True)
    await page.goto("/portal/requests")
    await expect(page.get_by_text("No requests in this time")).to_be_visible()
    await page.get_by_role("button", name="Follow live").click()
    await ask(site)
    await ask(site)
    await expect(page.locator("#rows tr")).to_have_count(2, timeout=10_000)
    await expect(page.locator("#told")).to_contain_text("new request", timeout=15_000)
    await check_page(page)
    assert page.url.endswith("live=1")
    await page.get_by_role("button", name="Following live").click()
    await expect(page.locator("#told")).to_have_text("Paused")
    looks: list[str] = []
    page.on("request", lambda request: looks.append(request.url))
    await ask(site)
    await page.wait_for_timeout(2500)
    assert looks == []
    await page.get_by_role("button", name="Follow live").click()
    await expect(page.locator("#rows tr")).to_have_count(3, timeout=10_000)
    places = await page.locator("#rows tr").evaluate_all("rows => rows.map((row) => row.dataset.place)")
    assert places == sorted(places, reverse=True)


async def test_following_moves_nothing_under_the_reader_and_rests_while_the_tab_is_hidden(
    site: Site, page_as: PageAs
) -> None:
    for _ in range(8):
        await ask(site)
    page = await page_as("viewer", phone=True)
    await page.goto("/portal/requests?live=1")
    await expect(page.get_by_role("button", name="Following live")).to_be_visible()
    last = page.locator("#rows tr").last
    await last.scroll_into_view_if_needed()
    before = await last.bounding_box()
    await ask(site)
    await expect(page.locator("#rows tr")).to_have_count(9, timeout=10_000)
    await expect(page.locator("#rows tr").first).to_have_class("new")
    after = await last.bounding_box()
    assert before is not None
    assert after is not None
    assert abs(before["y"] - after["y"]) < 3
    hide = """hidden => {
        Object.defineProperty(document, 'hidden', {value: hidden, configurable: true});
        document.dispatchEvent(new Event('visibilitychange'));
    }"""
    await page.evaluate(hide, True)
    looks: list[str] = []
    page.on("request", lambda request: looks.append(request.url))
    await ask(site)
    await page.wait_for_timeout(2500)
    assert looks == []
    await page.evaluate(hide, False)
    await expect(page.locator("#rows tr")).to_have_count(10, timeout=10_000)
