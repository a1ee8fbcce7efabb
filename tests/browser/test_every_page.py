"""Every page that the menu and the pages themselves lead to, as each kind of visitor, empty and full."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable
from urllib.parse import urlsplit

import pytest
from benches.gateway import MODEL
from benches.portal import Site
from playwright.async_api import Page

PageAs = Callable[..., Awaitable[Page]]
CheckPage = Callable[[Page], Awaitable[None]]
HOSTILE = "<script>alert(1)</script> \u202egnp.exe " + "unbroken" * 7
"""A name that is markup, turns the direction of reading, and does not break."""
MENU = "[...document.querySelectorAll('nav a[href]')].map((link) => link.getAttribute('href'))"
LINKS = "[...document.querySelectorAll('main a[href]')].map((link) => link.getAttribute('href'))"
NUMBER = re.compile(r"\d+|[0-9a-f-]{12,}|req_\w+")


async def traffic(site: Site) -> None:
    """Some requests, one of a key with a name that nobody wants to see on a page, and an endpoint."""
    client = await site.client("owner")
    async with site.acme.api() as api:
        made = await api.post("/api/v1/serverless-endpoints", json={"name": "front-desk", "model": MODEL})
        assert made.status_code == 201, made.text
        body = {"model": MODEL, "messages": [{"role": "user", "content": "Hello"}], "max_tokens": 8}
        answers = await asyncio.gather(*(api.post("/v1/chat/completions", json=body) for _ in range(12)))
        await site.bench.event(answers[0].headers["x-request-id"])
    await client.post("/portal/projects", data={"name": HOSTILE[:100]})


async def pages_of(page: Page) -> list[str]:
    """The pages that the menu leads to."""
    await page.goto("/portal")
    return list(dict.fromkeys(await page.evaluate(MENU)))


async def walk(page: Page, check: CheckPage) -> set[str]:
    """Check what the menu leads to, and one of each kind that those pages lead to."""
    waiting = [(path, True) for path in await pages_of(page)]
    seen: set[str] = set()
    while waiting:
        path, leads = waiting.pop(0)
        kind = NUMBER.sub("1", urlsplit(path).path)
        if kind in seen or not path.startswith("/portal") or re.search(r"sign-out|\.csv|\.yaml", path):
            continue
        seen.add(kind)
        answer = await page.goto(path)
        assert answer is not None
        assert answer.status == 200, f"{path} was answered with {answer.status}"
        assert await page.locator("h1").count() == 1, f"{path} has no single heading"
        await check(page)
        if leads:
            waiting += [(link, False) for link in await page.evaluate(LINKS)]
    return seen


@pytest.mark.parametrize("role", ["owner", "viewer", "operator"])
async def test_every_page_of_an_installation_that_nobody_has_used(
    page_as: PageAs, check_page: CheckPage, role: str
) -> None:
    assert len(await walk(await page_as(role), check_page)) > 12


@pytest.mark.parametrize(("phone", "dark"), [(False, False), (True, True)], ids=["desktop", "phone"])
async def test_every_page_of_one_in_use(
    site: Site, page_as: PageAs, check_page: CheckPage, phone: bool, dark: bool
) -> None:
    await traffic(site)
    page = await page_as("operator", phone=phone, dark=dark)
    assert len(await walk(page, check_page)) > 18
    assert not await page.evaluate("window.alerted ?? false")
