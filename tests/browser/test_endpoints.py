"""An endpoint's life in a browser: made from its model in two clicks, tried, looked at, and ended."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable

from benches.portal import Site
from playwright.async_api import Page, expect

PageAs = Callable[..., Awaitable[Page]]
CheckPage = Callable[[Page], Awaitable[None]]
AT = "/portal/endpoints/serverless/demo-chat"
TABS = ("test", "usage", "latency", "errors", "keys", "settings")
SECRET = re.compile(r"sk-penstock-\w{12}-\w{46}")


async def test_an_endpoint_is_made_from_its_model_tried_and_ended(
    site: Site, page_as: PageAs, check_page: CheckPage
) -> None:
    page = await page_as("developer")
    await page.goto("/portal/endpoints")
    await check_page(page)
    await page.goto("/portal/models/penstock/demo-chat")
    await page.get_by_role("link", name="Deploy").click()
    await check_page(page)
    await page.get_by_role("button", name="Create endpoint").click()

    await expect(page.get_by_role("heading", level=1)).to_contain_text("demo-chat")
    assert len(set(SECRET.findall(await page.content()))) == 2
    await page.get_by_role("tab", name="Python").click()
    await expect(page.get_by_role("tabpanel", name="Python")).to_contain_text('api_key="sk-penstock-')
    await check_page(page)
    # Loading it again makes no second one, and shows no secret again.
    await page.reload()
    assert page.url.endswith(AT)
    assert not SECRET.findall(await page.content())
    await check_page(page)

    await site.bench.gateway.endpoints.refresh(site.database)
    await page.get_by_role("link", name="Test", exact=True).click()
    await page.get_by_label("Prompt").fill("Hello")
    await page.get_by_label("At most this many tokens").fill("12")
    await page.get_by_role("button", name="Send").click()
    await expect(page.locator("[data-cost]")).to_contain_text("$")
    await expect(page.locator("#answer")).not_to_be_empty()
    await expect(page.locator("[data-tokens]")).to_contain_text("out")
    event = await site.database.fetchrow("select * from billing.usage_event")
    assert event is not None
    assert event["endpoint"] == "demo-chat"
    await expect(page.locator("[data-request] a")).to_have_attribute(
        "href", f"/portal/requests/{event['request_id']}"
    )
    await check_page(page)

    for tab in ("Usage", "Latency", "Errors", "Keys", "Settings"):
        await page.get_by_role("link", name=tab, exact=True).last.click()
        await page.wait_for_load_state("load")
        await check_page(page)

    await page.goto(f"{AT}/keys")
    await page.get_by_role("button", name="Regenerate the primary key").click()
    await expect(page.get_by_role("dialog")).to_be_visible()
    await check_page(page)
    await page.get_by_role("dialog").get_by_role("button", name="Regenerate").click()
    await expect(page.get_by_role("heading", name="The new primary key")).to_be_visible()
    assert len(set(SECRET.findall(await page.content()))) == 1
    await check_page(page)

    await page.goto(f"{AT}/settings")
    await page.get_by_text("Delete this endpoint").click()
    await page.get_by_label("Type demo-chat to delete it").fill("demo")
    await page.get_by_role("button", name="Delete demo-chat").click()
    await expect(page.locator("#e-confirm")).to_be_visible()
    await check_page(page)
    await page.get_by_label("Type demo-chat to delete it").fill("demo-chat")
    await page.get_by_role("button", name="Delete demo-chat").click()
    await expect(page.get_by_role("status").first).to_contain_text("gone")
    await check_page(page)


async def test_endpoints_hold_on_a_phone_in_the_dark_and_for_a_viewer(
    page_as: PageAs, check_page: CheckPage
) -> None:
    maker = await page_as("developer")
    await maker.goto("/portal/endpoints/new?model=penstock/demo-chat")
    await maker.get_by_role("button", name="Create endpoint").click()
    await expect(maker.get_by_role("heading", level=1)).to_contain_text("demo-chat")
    page = await page_as("viewer", phone=True, dark=True)
    for path in (
        "/portal/endpoints",
        "/portal/endpoints/batch",
        AT,
        *(f"{AT}/{tab}" for tab in ("test", "keys", "settings")),
    ):
        await page.goto(path)
        await check_page(page)


async def test_a_page_that_is_open_says_that_its_endpoint_was_deleted(site: Site, page_as: PageAs) -> None:
    page = await page_as("developer")
    await page.goto("/portal/endpoints/new?model=penstock/demo-chat")
    await page.get_by_role("button", name="Create endpoint").click()
    await page.goto(AT)
    await site.database.execute("update endpoints.serverless set deleted_at = now(), ended_at = now()")
    await expect(page.get_by_text("demo-chat was deleted")).to_be_visible(timeout=20_000)
