"""Understanding the bill: from this month's cost to the requests of a minute, credit, budgets and prices."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from benches.gateway import MODEL, until
from benches.portal import Site
from playwright.async_api import Page

from penstock_billing import wallets
from penstock_billing.leases import Wallet
from penstock_billing.record import Funding

PageAs = Callable[..., Awaitable[Page]]
CheckPage = Callable[[Page], Awaitable[None]]


async def use(site: Site) -> None:
    """Two requests of acme's, in the ledger."""
    async with site.acme.api() as client:
        for number in range(2):
            body = {
                "model": MODEL,
                "messages": [{"role": "user", "content": f"Say {number}"}],
                "max_tokens": 9,
            }
            assert (await client.post("/v1/chat/completions", json=body)).status_code == 200

    async def both() -> Any:
        found = await site.database.fetchval("select count(*) from billing.usage_event")
        return True if found == 2 else None

    await until(both)


async def test_a_bill_is_understood_from_the_month_down_to_a_request(
    site: Site, page_as: PageAs, check_page: CheckPage
) -> None:
    await use(site)
    page = await page_as("viewer")
    await page.goto("/portal/usage")
    await check_page(page)
    await page.get_by_role("link", name="Key", exact=True).click()
    for _ in ("month", "day", "hour"):
        # The chart's table says the same as its bars, and leads on likewise.
        await page.wait_for_selector("canvas[data-chart]")
        await page.get_by_text("As a table").click()
        await check_page(page)
        rows = page.locator("figure tbody tr")
        used = rows.filter(has=page.locator("td:nth-child(3)", has_text="2"))
        await used.last.get_by_role("link").click()
        await page.wait_for_load_state()
    assert "/portal/requests?since=" in page.url
    await page.goto("/portal/usage?since=yesterday")
    await page.wait_for_selector(".field.wrong")
    await check_page(page)


async def test_money_is_added_held_back_and_looked_up_on_a_phone(
    site: Site, page_as: PageAs, check_page: CheckPage
) -> None:
    async with site.database.acquire() as connection:
        await wallets.set_terms(connection, Wallet(site.acme.id, 0), Funding.PREPAID)
    page = await page_as("operator", phone=True, dark=True)
    await page.goto("/portal/billing")
    await check_page(page)
    await page.get_by_role("link", name="Add credit").click()
    await page.get_by_label("Amount in US dollars").fill("much")
    await page.get_by_role("button", name="Book it").click()
    await page.wait_for_selector(".field.wrong")
    await check_page(page)
    await page.get_by_label("Amount in US dollars").fill("25")
    await page.get_by_role("button", name="Book it").click()
    await page.wait_for_selector(".notice")
    await check_page(page)
    await page.get_by_role("link", name="Budgets").click()
    await page.get_by_role("link", name="Set the first budget").click()
    await page.get_by_label("Limit in US dollars").fill("20")
    await check_page(page)
    await page.get_by_role("button", name="Set it").click()
    await page.get_by_role("link", name="Change budget").click()
    await page.get_by_role("button", name="End it").first.click()
    await page.wait_for_selector("dialog[open]")
    await check_page(page)
    await page.locator("dialog").get_by_role("button", name="End it").click()
    await page.get_by_role("link", name="Ledger").click()
    await check_page(page)
    await page.goto("/portal/prices")
    await page.get_by_label("Search models").press_sequentially("chat")
    await page.wait_for_url("**q=chat**")
    await page.wait_for_function("document.querySelectorAll('#found tbody tr').length === 1")
    await check_page(page)
