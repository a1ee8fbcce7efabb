"""The portal in a real browser: `site` as in `integration/portal`, and windows of people who signed in."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import asyncpg
import pytest
from benches.portal import Site, Tenant, open_site
from benches.windows import PHONE, Windows, open_windows
from playwright.async_api import Page

COOKIE = "penstock_session"


@pytest.fixture
async def site(database_url: str, database: asyncpg.Pool) -> AsyncIterator[Site]:
    async with open_site(database_url, database) as site:
        yield site


@pytest.fixture
async def windows(chromium: str, site: Site) -> AsyncIterator[Windows]:
    """Windows of nobody yet."""
    async with open_windows(chromium, site.url) as windows:
        yield windows


@pytest.fixture
def page_as(windows: Windows, site: Site) -> Callable[..., Awaitable[Page]]:
    """`await page_as("viewer", phone=True, dark=True)`: a window that somebody of `acme` has signed in with.

    `of=` names another organisation's tenant; whatever else is given goes to Playwright's `new_context`.
    """

    async def open_page(
        role: str = "owner",
        *,
        phone: bool = False,
        dark: bool = False,
        of: Tenant | None = None,
        **options: Any,
    ) -> Page:
        client = await (of or site.acme).client(role)
        if phone:
            options |= {"viewport": PHONE, "has_touch": True}
        options |= {"color_scheme": "dark" if dark else "light"}
        return await windows.open(cookies={COOKIE: client.cookies[COOKIE]}, **options)

    return open_page


@pytest.fixture
def check_page(windows: Windows) -> Callable[[Page], Awaitable[None]]:
    """`await check_page(page)`: axe finds nothing (WCAG 2.2 AA), nothing failed, overflows or is foreign."""
    return windows.check
