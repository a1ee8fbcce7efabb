"""A key's whole life, an invitation, and the log that tells of both, in a real browser."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import httpx
from benches.portal import Site
from playwright.async_api import Page

PageAs = Callable[..., Awaitable[Page]]
CheckPage = Callable[[Page], Awaitable[None]]
HOSTILE = '<img src=x onerror="document.title=1">'


async def test_a_key_is_made_used_and_revoked_and_the_log_tells_it(
    site: Site, page_as: PageAs, check_page: CheckPage
) -> None:
    page = await page_as("developer")
    await page.goto("/portal/keys")
    await check_page(page)
    await page.get_by_role("link", name="Create a key").first.click()
    await page.get_by_role("button", name="Create the key").wait_for()
    await check_page(page)
    # What is wrong is said beside the field, and the rest is kept.
    await page.get_by_label("Name").fill("laptop")
    await page.get_by_label("Requests a minute").fill("many")
    await page.get_by_role("button", name="Create the key").click()
    await page.wait_for_selector("#e-requests_per_minute")
    assert await page.get_by_label("Name").input_value() == "laptop"
    await check_page(page)
    await page.get_by_label("Requests a minute").fill("1000")
    await page.get_by_label("Viewer").check()
    await page.get_by_role("button", name="Create the key").click()
    await page.wait_for_selector(".secret")
    await check_page(page)
    secret = await page.locator("[data-copy]").first.get_attribute("data-copy")
    assert secret is not None
    async with httpx.AsyncClient(base_url=site.url, headers={"authorization": f"Bearer {secret}"}) as program:
        assert (await program.get("/api/v1/keys")).status_code == 200
        # Loading the page again shows the key, makes no second one, and has no secret.
        await page.reload()
        assert secret not in await page.content()
        assert await site.database.fetchval("select count(*) from access.api_key where name = 'laptop'") == 1
        await check_page(page)
        await page.get_by_role("button", name="Revoke", exact=True).click()
        await check_page(page)
        await page.get_by_role("button", name="Keep it").click()
        await page.get_by_role("button", name="Revoke", exact=True).click()
        await page.get_by_role("button", name="Revoke the key").click()
        await page.get_by_text("The key is revoked.").wait_for()
        await site.bench.gateway.keyring.refresh()
        assert (await program.get("/api/v1/keys")).status_code == 401
    await page.goto("/portal/audit")
    await page.get_by_label("Called").fill("lapto")
    await page.locator(".log > li").nth(2).wait_for(state="detached")
    assert await page.locator(".log > li").count() == 2
    await page.locator(".log summary").first.click()
    await check_page(page)
    assert "revoked the API key laptop" in " ".join((await page.locator(".log").inner_text()).split())


async def test_a_link_makes_a_member_and_hostile_names_do_nothing(
    site: Site, page_as: PageAs, check_page: CheckPage
) -> None:
    page = await page_as("owner", phone=True, dark=True)
    await page.goto("/portal/members")
    await check_page(page)
    await page.get_by_label("Email").fill("ada@example.org")
    await page.get_by_label("Developer").check()
    await page.get_by_role("button", name="Make the link").click()
    await page.wait_for_selector(".secret")
    await check_page(page)
    link = await page.locator("[data-copy]").first.get_attribute("data-copy")
    assert link is not None
    visitor = await site.visitor()
    path = "/portal/" + link.partition("/portal/")[2]
    joined = await visitor.post(path, data={"name": HOSTILE, "password": "correct horse battery"})
    assert joined.status_code == 303
    for shown in ("/portal/members", "/portal/audit", "/portal/projects"):
        await page.goto(shown)
        await check_page(page)
        assert await page.title() != "1"
    await page.goto("/portal/members")
    await page.get_by_role("link", name="Change <img").click()
    await page.get_by_label("Owner").wait_for()
    await check_page(page)
    await page.get_by_role("button", name="Remove", exact=True).click()
    await check_page(page)
    await page.get_by_role("dialog").get_by_role("button", name="Remove").click()
    await page.get_by_text("They belong to this organisation no more.").wait_for()


async def test_a_project_is_made_and_renamed_without_a_mouse(page_as: PageAs, check_page: CheckPage) -> None:
    page = await page_as("developer", phone=True)
    await page.goto("/portal/projects")
    await page.get_by_label("New project").focus()
    await page.keyboard.type("search")
    await page.keyboard.press("Enter")
    await page.get_by_text("The project is there.").wait_for()
    await check_page(page)
    await page.get_by_role("link", name="search").press("Enter")
    await page.get_by_label("Name").fill("finding")
    await page.keyboard.press("Enter")
    await page.get_by_role("heading", name="finding").wait_for()
    await check_page(page)
