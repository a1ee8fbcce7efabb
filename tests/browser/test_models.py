"""From the catalog to a decision: searching as one types, comparing, reckoning, reading about one model."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable

from benches.portal import Site
from playwright.async_api import Page, expect

PageAs = Callable[..., Awaitable[Page]]
CheckPage = Callable[[Page], Awaitable[None]]
CHAT = "penstock/demo-chat"
SETTLED = "!document.querySelector('.htmx-request, .htmx-swapping, .htmx-settling, .htmx-added')"


async def test_one_finds_compares_and_reckons_without_leaving_the_keyboard(
    page_as: PageAs, check_page: CheckPage
) -> None:
    page = await page_as("viewer")
    await page.goto("/portal/models")
    await check_page(page)
    await page.get_by_label("Search models").press_sequentially("qwen cod", delay=30)
    rows = page.locator(".model h3")
    await expect(rows.first).to_have_text("Qwen3 Coder 30B A3B Instruct")
    await expect(page).to_have_url(re.compile(r"/portal/models\?q=qwen\+cod$"))
    assert await page.evaluate("document.activeElement.id") == "q"
    await expect(page.locator("#tally")).to_have_text(re.compile(r"^\d+ found$"))

    await page.wait_for_function(SETTLED)
    # A facet is a checkbox: it keeps the focus while what it narrows is replaced.
    tools = page.get_by_role("checkbox", name=re.compile("^tools"))
    await tools.focus()
    await page.keyboard.press("Space")
    await expect(page).to_have_url(re.compile("capability=tools"))
    await expect(page.locator("#x-capability-tools")).to_be_focused()

    await page.get_by_role("checkbox", name=re.compile("Compare Qwen3 Coder")).check()
    await expect(page.get_by_role("region", name="Models to compare")).to_be_visible()
    await page.get_by_label("Search models").fill("demo chat")
    await expect(rows.first).to_have_text("Penstock demo chat")
    await page.get_by_role("checkbox", name=re.compile("Compare Penstock demo chat")).check()
    await check_page(page)
    await page.get_by_role("link", name="Compare 2").click()
    await page.wait_for_url(re.compile("/portal/compare"))
    await check_page(page)

    await page.get_by_label("Requests per day").fill("1000")
    await page.get_by_label("Input tokens per request").fill("2000")
    await page.get_by_label("Output tokens per request").fill("500")
    # 1000 requests of 2000 tokens at $0.10 and 500 at $0.40 per million, 30 times.
    await expect(page.locator("#costs")).to_contain_text("$12.00")
    await expect(page).to_have_url(re.compile("output_tokens=500"))
    await page.get_by_label("Of these, cached").fill("lots")
    await expect(page.locator("#costs .error")).to_contain_text("a whole number")
    await check_page(page)


async def test_nothing_found_leads_on(page_as: PageAs, check_page: CheckPage) -> None:
    page = await page_as("viewer", phone=True, dark=True)
    await page.goto("/portal/models?q=%3Cimg+src=x+onerror=alert(1)%3E&licence=MIT")
    await expect(page.get_by_role("heading", name="No model is like that")).to_be_visible()
    await check_page(page)
    await page.get_by_role("link", name=re.compile("Without the words")).click()
    await expect(page.locator(".model").first).to_be_visible()
    await page.wait_for_load_state("load")
    filters = page.get_by_role("button", name="Filters (1)")
    await filters.click()
    await page.get_by_role("checkbox", name=re.compile("^chat")).check()
    await expect(page).to_have_url(re.compile("task=chat"))
    # What one opened stays open while the list changes.
    await expect(page.get_by_role("button", name="Filters (2)")).to_have_attribute("aria-expanded", "true")
    await check_page(page)


async def test_a_models_page_shows_how_it_is_called(
    site: Site, page_as: PageAs, check_page: CheckPage
) -> None:
    async with site.acme.api() as api:
        body = {"model": CHAT, "messages": [{"role": "user", "content": "Hi"}], "stream": True}
        answer = await api.post("/v1/chat/completions", json=body)
        await site.bench.event(answer.headers["x-request-id"])
    page = await page_as("developer")
    await page.goto(f"/portal/models/{CHAT}")
    await expect(page.get_by_role("heading", name="Measured speed, last 7 days")).to_be_visible()
    curl = page.get_by_role("tab", name="curl")
    await expect(curl).to_have_attribute("aria-selected", "true")
    await curl.focus()
    await page.keyboard.press("ArrowRight")
    await expect(page.get_by_role("tab", name="Python")).to_be_focused()
    await expect(page.get_by_role("tabpanel")).to_contain_text("from openai import OpenAI")
    await check_page(page)
    # The choice is kept for the next model.
    await page.goto("/portal/models/penstock/demo-embed")
    await expect(page.get_by_role("tab", name="Python")).to_have_attribute("aria-selected", "true")
    await check_page(page)


async def test_the_catalog_works_without_scripts(page_as: PageAs) -> None:
    page = await page_as("viewer", java_script_enabled=False)
    await page.goto("/portal/models")
    await page.get_by_label("Search models").fill("demo")
    await page.get_by_role("button", name="Search").click()
    await expect(page.locator(".model h3")).to_have_count(2)
    for box in await page.locator(".pick input").all():
        await box.check()
    await page.get_by_role("button", name="Compare those that are ticked").click()
    await expect(page.locator(".side-by-side thead th")).to_have_count(2)
    await page.get_by_label("Requests per day").fill("0")
    await page.get_by_role("button", name="Reckon").click()
    await expect(page.locator("#costs")).to_contain_text("$0.00")
    await page.goto(f"/portal/models/{CHAT}")
    for language in ("curl", "Python", "TypeScript"):
        await expect(page.get_by_role("heading", name=language, exact=True)).to_be_visible()
