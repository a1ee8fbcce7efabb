"""Windows of a browser, and what every page in one must keep to."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

from axe_playwright_python.async_playwright import Axe
from playwright.async_api import (
    Browser,
    ConsoleMessage,
    Page,
    Request,
    Response,
    async_playwright,
    expect,
)

PATIENCE_MS = 60_000
"""A busy machine takes its time; what never comes is told after this."""
expect.set_options(timeout=PATIENCE_MS)
RULES = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]
"""What axe looks for: WCAG 2.2 AA, and what it recommends beyond."""
EXPECTED = ("Failed to load resource", "htmx:sendAbort", "htmx:afterRequest")
"""What a console says of requests; htmx tells even of those that a later one replaced as somebody types."""
DESKTOP, PHONE = {"width": 1360, "height": 900}, {"width": 360, "height": 780}


@dataclass
class Watch:
    """What went on behind a page that nobody looking at it sees."""

    origin: str
    problems: list[str] = field(default_factory=list)

    def on(self, page: Page) -> None:
        page.on("console", self._said)
        page.on("pageerror", lambda error: self.problems.append(f"a script failed: {error}"))
        page.on("request", self._asked)
        page.on("response", self._answered)

    def _said(self, message: ConsoleMessage) -> None:
        # What could not be loaded is judged by its answer: a refused form is no defect.
        if message.type == "error" and not message.text.startswith(EXPECTED):
            self.problems.append(f"the console says: {message.text}")

    def _asked(self, request: Request) -> None:
        if not request.url.startswith((self.origin + "/", "data:", "blob:", "about:")):
            self.problems.append(f"something foreign was asked for: {request.url}")

    def _answered(self, response: Response) -> None:
        part = response.request.resource_type not in {"document", "fetch", "xhr", "eventsource"}
        if response.status >= (400 if part else 500):
            self.problems.append(f"{response.url} was answered with {response.status}")


@dataclass
class Windows:
    """Opens windows, each a browser of its own to the site, and checks the pages in them."""

    browser: Browser
    origin: str
    _watched: list[tuple[Page, Watch]] = field(default_factory=list)

    async def open(self, *, cookies: dict[str, str] | None = None, **options: Any) -> Page:
        """Open a window; `options` are those of Playwright's `new_context`. Addresses may be paths."""
        told = {"base_url": self.origin, "viewport": DESKTOP, "reduced_motion": "reduce"}
        context = await self.browser.new_context(**(told | options))
        context.set_default_timeout(PATIENCE_MS)
        await context.add_cookies(
            [{"name": name, "value": value, "url": self.origin} for name, value in (cookies or {}).items()]
        )
        page = await context.new_page()
        watch = Watch(self.origin)
        watch.on(page)
        self._watched.append((page, watch))
        return page

    async def check(self, page: Page) -> None:
        """Everybody can use the page, it fits its window, nothing failed in it or came from elsewhere."""
        [watch] = [watch for watched, watch in self._watched if watched == page]
        problems, watch.problems = [f"{page.url}: {problem}" for problem in watch.problems], []
        wider = "document.documentElement.scrollWidth - document.documentElement.clientWidth"
        if (pixels := await page.evaluate(wider)) > 0:
            problems.append(f"{page.url}: it is {pixels} pixels wider than its window")
        found = await Axe().run(page, options={"runOnly": RULES, "resultTypes": ["violations"]})
        for each in found.response["violations"]:
            where = "; ".join(str(node["target"][0]) for node in each["nodes"][:4])
            problems.append(f"{page.url}: {each['id']} ({each['impact']}): {each['help']}, at {where}")
        assert not problems, "\n".join(problems)


@contextlib.asynccontextmanager
async def open_windows(address: str, origin: str) -> AsyncIterator[Windows]:
    """Windows of a running Chromium; all are closed afterwards."""
    async with async_playwright() as playwright:
        browser = await playwright.chromium.connect_over_cdp(address)
        try:
            yield Windows(browser, origin)
        finally:
            await browser.close()
