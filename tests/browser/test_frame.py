"""What holds on every page: the way in, the menu of a narrow window, keys, the theme, paper, and zoom."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from benches.portal import PASSWORD, Site
from benches.windows import Windows
from playwright.async_api import Page

PageAs = Callable[..., Awaitable[Page]]
CheckPage = Callable[[Page], Awaitable[None]]
FOCUSED = "document.activeElement.closest('nav, header.top, main')?.tagName ?? 'BODY'"


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


async def test_the_menu_of_a_phone_keeps_the_focus_until_it_is_closed(
    page_as: PageAs, check_page: CheckPage
) -> None:
    page = await page_as("operator", phone=True, dark=True)
    await page.goto("/portal")
    await check_page(page)
    menu = page.get_by_role("button", name="Menu")
    await menu.click()
    assert await menu.get_attribute("aria-expanded") == "true"
    assert await page.evaluate("document.activeElement.getAttribute('aria-current')") == "page"
    await check_page(page)
    visited = set()
    for _ in range(40):
        await page.keyboard.press("Tab")
        visited.add(await page.evaluate(FOCUSED))
    assert visited <= {"NAV", "HEADER", "BODY"}
    assert "NAV" in visited
    await page.keyboard.press("Escape")
    assert not await page.locator("#sidebar").is_visible()


async def test_escape_gives_the_focus_back_to_the_menus_button(page_as: PageAs) -> None:
    page = await page_as("viewer", phone=True)
    await page.goto("/portal")
    await page.get_by_role("button", name="Menu").press("Enter")
    await page.keyboard.press("Escape")
    assert await page.evaluate("document.activeElement.hasAttribute('data-menu')")


async def test_the_first_key_leads_past_the_menu(page_as: PageAs) -> None:
    page = await page_as("viewer")
    await page.goto("/portal")
    await page.keyboard.press("Tab")
    await page.keyboard.press("Enter")
    await page.keyboard.press("Tab")
    assert await page.evaluate(FOCUSED) == "MAIN"


async def test_a_theme_that_was_chosen_stays(page_as: PageAs, check_page: CheckPage) -> None:
    page = await page_as("viewer")
    await page.goto("/portal")
    light = await page.evaluate("getComputedStyle(document.body).backgroundColor")
    await page.get_by_role("button", name="Light or dark").click()
    await page.reload()
    assert await page.evaluate("getComputedStyle(document.body).backgroundColor") != light
    await check_page(page)


async def test_paper_gets_the_page_and_not_the_menu(page_as: PageAs) -> None:
    page = await page_as("operator", dark=True)
    await page.goto("/portal")
    await page.emulate_media(media="print")
    assert not await page.locator("#sidebar").is_visible()
    assert await page.locator("h1").is_visible()
    assert await page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"


async def test_at_four_times_its_size_a_page_still_fits(page_as: PageAs, check_page: CheckPage) -> None:
    # WCAG 2.2, 1.4.10: 1280 pixels at 400 % are 320.
    page = await page_as("operator", viewport={"width": 320, "height": 256})
    await page.goto("/portal")
    await check_page(page)


async def test_what_was_done_is_said_once(page_as: PageAs) -> None:
    page = await page_as("viewer")
    await page.goto("/portal/sign-in?notice=signed-out")
    assert "notice" not in page.url


async def test_a_page_that_is_not_there_says_so(page_as: PageAs, check_page: CheckPage) -> None:
    page = await page_as("viewer")
    answer = await page.goto("/portal/nowhere")
    assert answer is not None
    assert answer.status == 404
    await check_page(page)
