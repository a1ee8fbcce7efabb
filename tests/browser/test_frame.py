"""What holds on every page: the menu on a phone, the theme, the keyboard, and the way in."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from benches.portal import PASSWORD, Site
from benches.windows import Windows
from playwright.async_api import Page

PageAs = Callable[..., Awaitable[Page]]
CheckPage = Callable[[Page], Awaitable[None]]


async def test_one_signs_in_and_lands_where_one_wanted_to_go(
    site: Site, windows: Windows, check_page: CheckPage
) -> None:
    await site.acme.person("owner")
    page = await windows.open()
    await page.goto("/portal?from=here")
    await page.get_by_label("Email").fill(site.acme.email("owner"))
    await page.get_by_label("Password").fill("not the password")
    await page.get_by_role("button", name="Sign in").click()
    await page.wait_for_selector(".field.wrong")
    assert await page.get_by_label("Email").input_value() == site.acme.email("owner")
    await check_page(page)
    await page.get_by_label("Password").fill(PASSWORD)
    await page.get_by_role("button", name="Sign in").click()
    await page.wait_for_selector("nav.sidebar")
    assert page.url == f"{site.url}/portal?from=here"
    await check_page(page)


async def test_the_first_page_holds_on_a_phone_in_the_dark(page_as: PageAs, check_page: CheckPage) -> None:
    page = await page_as("operator", phone=True, dark=True)
    await page.goto("/portal")
    await check_page(page)
