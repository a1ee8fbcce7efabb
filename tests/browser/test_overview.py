"""A newcomer's first minutes on the first page: what is asked of them ticks itself."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from benches.gateway import MODEL
from benches.portal import Site
from playwright.async_api import Page, expect

PageAs = Callable[..., Awaitable[Page]]
CheckPage = Callable[[Page], Awaitable[None]]


async def test_a_newcomers_first_request_ticks_its_step(
    site: Site, page_as: PageAs, check_page: CheckPage
) -> None:
    page = await page_as("owner", phone=True)
    await page.goto("/portal")
    steps = page.locator("#steps li")
    await expect(steps).to_have_count(4)
    await expect(steps.filter(has_text="Send the first request").get_by_label("To do")).to_be_visible()
    await check_page(page)
    body = {"model": MODEL, "messages": [{"role": "user", "content": "Hello"}], "max_tokens": 8}
    async with site.acme.api() as api:
        answer = await api.post("/v1/chat/completions", json=body)
    await site.bench.event(answer.headers["x-request-id"])
    done = steps.filter(has_text="Send the first request").get_by_label("Done")
    await expect(done).to_be_visible(timeout=15_000)
    await page.reload()
    await expect(page.locator("#requests-day")).to_be_visible()
    await expect(page.locator("#now")).to_contain_text("1 in the last hour")
    await check_page(page)
    await page.get_by_role("button", name="Hide").click()
    await expect(page.locator("#now")).to_be_visible()
    await expect(page.locator("#steps")).to_have_count(0)


async def test_an_operator_sees_the_installation_in_the_dark(page_as: PageAs, check_page: CheckPage) -> None:
    page = await page_as("operator", dark=True)
    await page.goto("/portal")
    await expect(page.get_by_role("heading", name="Installation", level=2, exact=True).last).to_be_visible()
    await check_page(page)
