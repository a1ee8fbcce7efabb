"""The portal as a newcomer meets it after `bash ops/up`: a real browser, real vLLM, the real ledger."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from decimal import Decimal
from typing import Any

import asyncpg
import openai
import pytest
from benches.windows import Windows, open_windows
from playwright.async_api import Page, expect

MODEL = "penstock/demo-chat"
NAME = "front-desk"
ANSWERS_WITHIN_MS = 60_000
"""A real engine on shared cores."""
COST = "select cost_nano_usd, input_tokens, output_tokens from billing.usage_event where request_id = $1"


@pytest.fixture
async def windows(platform: Any, chromium: str) -> AsyncIterator[Windows]:
    async with open_windows(chromium, platform.root_url) as windows:
        yield windows


@pytest.fixture
async def page(platform: Any, windows: Windows) -> Page:
    """A window in which the first account has signed in, from the bare address on."""
    page = await windows.open()
    await page.goto("/")
    await windows.check(page)
    await page.get_by_label("Email").fill(platform.portal_email)
    await page.get_by_label("Password").fill(platform.portal_password)
    await page.get_by_role("button", name="Sign in").click()
    await expect(page.locator("nav.sidebar")).to_be_visible()
    await windows.check(page)
    return page


def dollars(nano_usd: int) -> str:
    """An amount as pages write it: every digit that is not zero."""
    text = f"{Decimal(nano_usd) / 10**9:,.9f}".rstrip("0")
    whole, fraction = text.split(".")
    return f"${whole}.{fraction.ljust(2, '0')}"


async def booked(ledger: asyncpg.Connection, request_id: str) -> asyncpg.Record:
    """What the ledger has of a request, as soon as it has it."""
    for _ in range(200):
        if row := await ledger.fetchrow(COST, request_id):
            return row
        await ledger.execute("select pg_sleep(0.1)")
    raise AssertionError(f"{request_id} was not recorded within 20 s")


async def test_from_a_model_to_its_bill(
    platform: Any, page: Page, windows: Windows, ledger: asyncpg.Connection
) -> None:
    # The catalog: as one types, what fits is left.
    await page.get_by_role("link", name="Models").first.click()
    await page.get_by_label("Search models").fill("demo chat")
    await expect(page.locator("main h3 a").first).to_have_text("Penstock demo chat")
    await windows.check(page)
    await page.get_by_role("link", name="Penstock demo chat").first.click()
    await expect(page.get_by_role("heading", level=1)).to_contain_text("Penstock demo chat")
    await windows.check(page)
    model_page = page.url

    # The playground: real tokens, and what they cost to the last digit.
    await page.get_by_role("link", name="Try").first.click()
    await page.wait_for_url("**/portal/playground*")
    # Keys mean something as soon as the page's script runs.
    await page.wait_for_load_state("load")
    await page.get_by_label("Message", exact=True).fill("How am I billed?")
    await page.keyboard.press("Enter")
    cost = page.locator("[data-part=cost] a")
    await expect(cost).to_have_count(1, timeout=ANSWERS_WITHIN_MS)
    tried = re.search(r"req_\w+", str(await cost.get_attribute("href")))
    assert tried is not None
    assert await cost.inner_text() == dollars((await booked(ledger, tried[0]))["cost_nano_usd"])
    assert len((await page.locator("article.answer").inner_text()).split()) > 5
    await windows.check(page)

    # An endpoint in two clicks from the model's page.
    await page.goto(model_page)
    await page.get_by_role("link", name="Deploy").click()
    await windows.check(page)
    await page.get_by_label("Name").fill(NAME)
    await page.get_by_role("button", name="Create endpoint").click()
    await expect(page.get_by_text(f"{platform.root_url}/serverless/{NAME}/v1").first).to_be_visible()
    await windows.check(page)

    # A key, shown once.
    await page.get_by_role("link", name="API keys").click()
    await windows.check(page)
    await page.get_by_role("link", name="Create a key").first.click()
    await page.get_by_label("Name").fill("acceptance")
    await windows.check(page)
    await page.get_by_role("button", name="Create the key").click()
    secret = await page.locator(".copyable code").first.inner_text()
    assert secret.startswith("sk-penstock-")
    await windows.check(page)

    # OpenAI's client, at that endpoint with that key.
    async with openai.AsyncOpenAI(
        base_url=f"{platform.root_url}/serverless/{NAME}/v1", api_key=secret, max_retries=5
    ) as client:
        answer = await client.chat.completions.with_raw_response.create(
            model=MODEL, messages=[{"role": "user", "content": "Hello"}], max_tokens=20
        )
    request_id = answer.headers["x-request-id"]
    row = await booked(ledger, request_id)
    usage = answer.parse().usage
    assert usage is not None
    assert (row["input_tokens"], row["output_tokens"]) == (usage.prompt_tokens, usage.completion_tokens)

    # Its page, its cost, and the bill that it is on.
    await page.goto(f"/portal/requests/{request_id}")
    await expect(page.get_by_text(dollars(row["cost_nano_usd"])).first).to_be_visible()
    await expect(page.get_by_text("That is the stored cost")).to_be_visible()
    await windows.check(page)
    await page.get_by_role("link", name="Usage").first.click()
    spent = await ledger.fetchval(
        "select sum(cost_nano_usd)::bigint from billing.usage_event where endpoint = $1", NAME
    )
    await page.goto(f"/portal/usage?by=endpoint&endpoint={NAME}")
    await expect(page.get_by_role("cell", name=dollars(spent)).first).to_be_visible()
    await windows.check(page)
    await page.get_by_role("link", name="Billing").first.click()
    await expect(page.get_by_role("heading", level=1)).to_contain_text("Billing")
    await windows.check(page)


@pytest.mark.parametrize(("phone", "dark"), [(False, False), (True, True)], ids=["desktop", "phone"])
async def test_every_page_of_the_menu_on_a_running_platform(
    page: Page, windows: Windows, phone: bool, dark: bool
) -> None:
    if phone:
        await page.set_viewport_size({"width": 360, "height": 780})
    await page.emulate_media(color_scheme="dark" if dark else "light", reduced_motion="reduce")
    links = await page.locator("nav.sidebar a").evaluate_all("all => all.map(one => one.pathname)")
    assert len(set(links)) > 18
    for path in dict.fromkeys(links):
        answer = await page.goto(path)
        assert answer is not None
        assert answer.status == 200, f"{path} was answered with {answer.status}"
        await windows.check(page)
