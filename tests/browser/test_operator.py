"""An operator's walk: pools and their settings, hardware, margins, prices and a simulation."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from playwright.async_api import Page

PageAs = Callable[..., Awaitable[Page]]
CheckPage = Callable[[Page], Awaitable[None]]
MODEL = "penstock/demo-chat"
EMBED = "penstock/demo-embed"


async def test_an_operator_changes_a_pool_and_simulates_prices(
    page_as: PageAs, check_page: CheckPage
) -> None:
    page = await page_as("operator")
    await page.goto("/portal/operator/pools")
    await page.get_by_role("button", name="Serve a model").first.click()
    await page.get_by_label("Model", exact=True).select_option(EMBED)
    await check_page(page)
    await page.get_by_role("button", name="Make its pool").click()
    await page.wait_for_url(f"**/operator/pools/{EMBED}*")
    await check_page(page)
    await page.get_by_label("Longest wait, seconds").fill("99999")
    await page.get_by_role("button", name="Save").click()
    await page.get_by_text("nearest: 3600").wait_for()
    assert await page.get_by_label("Longest wait, seconds").input_value() == "99999"
    for path in ("organisations", "hardware", "margins", "reconciliation", "prices"):
        await page.goto(f"/portal/operator/{path}")
        await check_page(page)
    await page.get_by_role("button", name="Simulate").first.click()
    await check_page(page)
    await page.locator("#simulate").get_by_role("button", name="Simulate").click()
    await page.get_by_role("heading", name="what each would have paid").wait_for()
    await check_page(page)


async def test_they_fit_a_phone_in_the_dark(page_as: PageAs, check_page: CheckPage) -> None:
    page = await page_as("operator", phone=True, dark=True)
    for path in (
        "organisations",
        "pools",
        f"pools/{MODEL}",
        "hardware",
        "margins",
        "reconciliation",
        "prices",
    ):
        await page.goto(f"/portal/operator/{path}")
        await check_page(page)
