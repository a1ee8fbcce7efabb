"""A person's way with their account in a real browser: invited, a second factor, another browser."""

from __future__ import annotations

import re
import time
from collections.abc import Awaitable, Callable
from typing import Any

import pyotp
from benches.portal import PASSWORD, Site
from benches.windows import PHONE, Windows
from playwright.async_api import Page

from penstock.access import invitations
from penstock.access.roles import Role

PageAs = Callable[..., Awaitable[Page]]
CheckPage = Callable[[Page], Awaitable[None]]


async def press(page: Page, name: str) -> None:
    await page.get_by_role("button", name=name, exact=True).click()
    await page.wait_for_load_state("load")


async def test_invited_in_then_a_second_factor_then_another_browser(
    site: Site, windows: Windows, check_page: CheckPage
) -> None:
    async with site.database.acquire() as taken:
        connection: Any = taken
        token = await invitations.create(
            connection,
            organisation_id=site.acme.id,
            email="grace@example.org",
            role=Role.DEVELOPER,
            invited_by=await site.acme.person("owner"),
        )
    page = await windows.open(viewport=PHONE)
    await page.goto(f"/portal/invitation/{token}")
    await check_page(page)
    await page.get_by_label("Your name").fill("Grace \u202e<b>Hopper</b>")
    await page.get_by_label("Password").fill("short")
    await press(page, "Make the account and join")
    await check_page(page)
    assert await page.get_by_label("Your name").input_value() == "Grace \u202e<b>Hopper</b>"
    await page.get_by_label("Password").fill(PASSWORD)
    await press(page, "Make the account and join")
    await page.get_by_text("Your account is ready.").wait_for()

    await page.goto("/portal/account")
    await check_page(page)
    await page.get_by_role("link", name="Set up a second factor").click()
    await page.get_by_role("textbox", name="Your password").fill("not my password")
    await press(page, "Go on")
    await check_page(page)
    await page.get_by_role("textbox", name="Your password").fill(PASSWORD)
    await press(page, "Go on")
    await check_page(page)
    # The picture is really there: the content-security-policy lets it in.
    assert await page.locator("img.qr").evaluate("picture => picture.naturalWidth") > 100
    await page.get_by_text("It cannot be scanned").click()
    key = re.sub(r"\s", "", await page.locator(".copyable code").inner_text())
    totp = pyotp.TOTP(key)
    await page.get_by_label("Six digits").fill(totp.now())
    await press(page, "Turn it on")
    await check_page(page)
    codes = (await page.get_by_label("ten recovery codes").inner_text()).split()
    assert len(codes) == 10
    await page.get_by_role("link", name="I have kept them").click()
    await page.get_by_text("10 recovery codes are left").wait_for()
    await check_page(page)

    other = await windows.open(color_scheme="dark")
    await other.goto("/portal/account")
    await other.get_by_label("Email").fill("grace@example.org")
    await other.get_by_label("Password").fill(PASSWORD)
    await press(other, "Sign in")
    await check_page(other)
    await other.get_by_label("Code").fill("000000")
    await press(other, "Sign in")
    await check_page(other)
    await other.get_by_label("Code").fill(totp.at(int(time.time()) + 30))
    await press(other, "Sign in")
    assert other.url == f"{site.url}/portal/account"
    await check_page(other)
    await other.get_by_text("Dark", exact=True).click()
    await press(other, "Save")
    assert await other.locator("html").get_attribute("data-theme") == "dark"
    await press(other, "Sign out everywhere else")
    await page.goto("/portal/account")
    await page.get_by_text("Your session has ended").wait_for()

    await page.get_by_label("Email").fill("grace@example.org")
    await page.get_by_label("Password").fill(PASSWORD)
    await press(page, "Sign in")
    await page.get_by_role("link", name="Lost the device?").click()
    await check_page(page)
    await page.get_by_label("Recovery code").fill(codes[0])
    await press(page, "Sign in")
    assert page.url == f"{site.url}/portal/account"


async def test_an_invitation_that_is_over_says_so(windows: Windows, check_page: CheckPage) -> None:
    page = await windows.open()
    await page.goto("/portal/invitation/nothing")
    await page.get_by_role("heading", name="This is no invitation").wait_for()


async def test_an_operator_finds_somebody_and_gives_them_a_new_password(
    page_as: PageAs, site: Site, check_page: CheckPage
) -> None:
    await site.acme.person("developer")
    page = await page_as("operator", phone=True)
    await page.goto("/portal/operator/people")
    await check_page(page)
    await page.get_by_role("searchbox").press_sequentially("developer@")
    await page.locator("#people tbody tr").nth(1).wait_for(state="detached")
    await page.get_by_role("link", name="Developer of acme").click()
    await check_page(page)
    await press(page, "New password")
    await check_page(page)
    await press(page, "Make it")
    await page.get_by_role("heading", name="The new password").wait_for()
    await check_page(page)
