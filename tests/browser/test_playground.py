"""The playground in a real browser: answers and their price, two models, hostile text, what goes wrong."""

from __future__ import annotations

import asyncio
import base64
import os
import re
import sys
from asyncio.subprocess import PIPE
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from benches.gateway import EMBED, MODEL, Engine
from benches.portal import Site
from playwright.async_api import Page, expect

from penstock.access import limits
from penstock.access.limits import RateLimits
from penstock.portal import formats
from penstock_billing import prices
from penstock_billing.prices import Offer

PageAs = Callable[..., Awaitable[Page]]
CheckPage = Callable[[Page], Awaitable[None]]
VISION = "qwen/qwen2.5-vl-7b-instruct"
PIXEL = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
)
HOSTILE = [
    "<img src=x onerror=window.pwned=1>",
    "<script>window.pwned=1</script>",
    "[click](javascript:window.pwned=1)",
    "\u202e</article></main>",
    "```html\n<iframe src=//evil.example></iframe>\n",
]


async def ask(page: Page, text: str) -> None:
    await page.get_by_label("Message", exact=True).fill(text)
    await page.keyboard.press("Enter")


async def costs(page: Page, count: int) -> list[str]:
    """The prices of the answers, once there are so many."""
    links = page.locator("[data-part=cost] a")
    await expect(links).to_have_count(count, timeout=20_000)
    return await links.all_inner_texts()


async def booked(site: Site) -> list[str]:
    """What the ledger took for each request, as people read it."""
    query = "select cost_nano_usd from billing.usage_event order by ended_at"
    return [formats.usd(row["cost_nano_usd"]) for row in await site.database.fetch(query)]


async def only_slow(site: Site, tokens_per_second: int, **options: object) -> Engine:
    """An engine whose tokens come one by one, in place of the one that was there."""
    slow = await site.bench.start_engine("slow", tokens_per_second=tokens_per_second, **options)
    await site.database.execute("delete from engines.replica where id = 'a'")
    await site.bench.gateway.directory.refresh(site.database)
    return slow


async def test_a_model_is_tried_beside_another_and_every_price_is_the_ledgers(
    site: Site, page_as: PageAs, check_page: CheckPage
) -> None:
    page = await page_as("developer")
    await page.goto(f"/portal/playground?model={MODEL}")
    await check_page(page)
    await page.get_by_label("Temperature").fill("0.2")
    await page.get_by_label("Max tokens").fill("5")
    await ask(page, "Hello there")
    await expect(page.locator("article.answer")).to_contain_text("t0 t1 t2 t3 t4")
    assert await costs(page, 1) == await booked(site)
    await expect(page.get_by_text("cut off at the limit")).to_be_visible()
    await page.get_by_role("button", name="Compare").click()
    await ask(page, "And again")
    assert sorted(await costs(page, 3)) == sorted(await booked(site))
    # Whoever joins goes on from the same conversation.
    inputs = await page.locator(".turn:last-child [data-part=input]").all_inner_texts()
    assert inputs[0] == inputs[1]
    total = sum(
        row["cost_nano_usd"]
        for row in await site.database.fetch("select cost_nano_usd from billing.usage_event")
    )
    await expect(page.locator("#total")).to_have_text(f"3 answers, {formats.usd(total)}")
    await check_page(page)
    await page.get_by_role("button", name="View code").click()
    await page.get_by_role("button", name="Python").click()
    await expect(page.locator("#code-python code")).to_contain_text(f'base_url="{site.url}/v1"')
    await expect(page.locator("#code-python code")).to_contain_text("temperature=0.2,")
    await check_page(page)
    await page.keyboard.press("Escape")
    shared = await page.evaluate("location.href")
    assert "Hello" not in shared
    other = await page_as("developer", phone=True, dark=True)
    await other.goto(shared)
    await expect(other.locator("#side-1")).to_be_visible()
    await other.get_by_role("button", name="Settings", exact=True).click()
    await expect(other.get_by_label("Temperature")).to_have_value("0.2")
    await check_page(other)


async def test_whatever_a_model_writes_is_read_and_never_run(
    site: Site, page_as: PageAs, check_page: CheckPage
) -> None:
    call = {"index": 0, "id": "c1", "function": {"name": "<svg onload=window.pwned=1>", "arguments": "<b>"}}
    deltas: list[dict[str, Any]] = [{"reasoning": "<i>hm</i>"}]
    deltas += [{"content": text + "\n\n"} for text in HOSTILE]
    await site.bench.engines[0].breaks(deltas=[*deltas, {"tool_calls": [call]}])
    page = await page_as("developer")
    await page.goto("/portal/playground")
    await ask(page, "<b onmouseover=window.pwned=1>hover</b>")
    await costs(page, 1)
    await page.get_by_text("Reasoning").click()
    for text in ["<i>hm</i>", *(text.removeprefix("```html\n").strip() for text in HOSTILE), "<svg onload"]:
        await expect(page.locator("article.answer")).to_contain_text(text)
    found = await page.evaluate(
        "[window.pwned, document.querySelectorAll("
        "'#turns :is(img, script, iframe, svg[onload], b, i, a[href^=javascript])').length]"
    )
    assert found == [None, 0]
    await check_page(page)


async def test_a_tool_call_is_answered_by_hand_and_the_model_goes_on(
    site: Site, page_as: PageAs, check_page: CheckPage
) -> None:
    pieces = ['{"ci', 'ty": "Bern"}']
    first = {"index": 0, "id": "c1", "type": "function", "function": {"name": "get_weather", "arguments": ""}}
    deltas = [{"tool_calls": [first]}]
    deltas += [{"tool_calls": [{"index": 0, "function": {"arguments": piece}}]} for piece in pieces]
    engine = site.bench.engines[0]
    await engine.breaks(deltas=deltas)
    page = await page_as("developer")
    await page.goto("/portal/playground")
    await page.locator("#tools-part summary").click()
    await page.locator("#s-tools").fill('[{"type": "function"}]')
    await ask(page, "What is the weather?")
    await expect(page.locator("#e-tools")).to_contain_text("Tool 1 needs")
    await page.locator("[data-example=tools]").click()
    await expect(page.locator("#e-tools")).to_be_hidden()
    await expect(page.locator("#s-tools")).to_have_value(re.compile("get_weather"))
    await page.get_by_label("Message", exact=True).press("Enter")
    await expect(page.locator(".call code").last).to_have_text('{\n  "city": "Bern"\n}')
    await engine.mend()
    await page.get_by_label("Result of get_weather").fill("sunny")
    await page.get_by_role("button", name="Give it the results").click()
    await expect(page.locator("article.answer").nth(1)).to_contain_text("t0 t1")
    assert sorted(await costs(page, 2)) == sorted(await booked(site))
    await check_page(page)


async def test_escape_stops_an_answer_which_costs_what_was_made(site: Site, page_as: PageAs) -> None:
    await only_slow(site, 40, answer_tokens=1000)
    page = await page_as("developer")
    await page.goto("/portal/playground")
    await ask(page, "Count")
    await expect(page.locator("article.answer")).to_contain_text("t3")
    await expect(page.get_by_role("button", name="Stop")).to_be_visible()
    await page.keyboard.press("Escape")
    await expect(page.get_by_text("stopped", exact=True)).to_be_visible()
    [cost] = await costs(page, 1)
    assert [cost] == await booked(site)
    event = await site.database.fetchrow("select outcome, output_tokens from billing.usage_event")
    assert event["outcome"] == "client_gone"
    assert 3 < event["output_tokens"] < 1000
    assert await page.locator("[data-part=output]").inner_text() == str(event["output_tokens"])


async def test_an_engine_that_fails_and_a_session_that_ends_are_said_and_tried_again(
    site: Site, page_as: PageAs, check_page: CheckPage
) -> None:
    engine = await only_slow(site, 50)
    await engine.breaks(error_at_token=4)
    page = await page_as("developer")
    await page.goto("/portal/playground")
    await ask(page, "Hello")
    await expect(page.get_by_role("alert")).to_contain_text("nothing is billed")
    assert await costs(page, 1) == ["$0.00"]
    await engine.mend()
    await page.get_by_role("button", name="Retry").click()
    await expect(page.locator("article.answer")).to_contain_text("t15")
    await costs(page, 1)
    person = await site.acme.person("developer")
    await site.database.execute("delete from access.session where person_id = $1", person)
    await ask(page, "A long thought that took an hour to type")
    await expect(page.get_by_role("alert").last).to_contain_text("Your session has ended")
    await expect(page.locator(".turn").last).to_contain_text("took an hour")
    await check_page(page)
    client = await site.client("developer")
    cookie = {"name": "penstock_session", "value": client.cookies["penstock_session"], "url": site.url}
    await page.context.add_cookies([cookie])  # type: ignore[list-item]
    await page.locator(".turn").last.get_by_role("button", name="Retry").click()
    await expect(page.locator(".turn").last).to_contain_text("t15")
    await page.context.set_offline(True)
    await ask(page, "Anybody?")
    await expect(page.get_by_role("alert").last).to_contain_text("cannot be reached")
    await page.context.set_offline(False)


async def test_a_sleeping_model_is_waited_for_in_words(site: Site, page_as: PageAs) -> None:
    await site.database.execute("delete from engines.replica")
    await site.bench.gateway.directory.refresh(site.database)
    page = await page_as("developer")
    await page.goto("/portal/playground")
    await expect(page.locator("#model-0-state")).to_have_text("asleep")
    await ask(page, "Good morning")
    await expect(page.locator("[data-part=wait-words]")).to_contain_text("asleep")
    await site.bench.start_engine("b")
    await expect(page.locator("article.answer")).to_contain_text("t15")


async def test_an_image_goes_to_a_model_that_sees_and_to_no_other(
    site: Site, page_as: PageAs, check_page: CheckPage
) -> None:
    await site.bench.start_engine("v", model=VISION)
    async with site.database.acquire() as connection:
        offers = [Offer(MODEL, 100_000, 50_000, 400_000), Offer(VISION, 200_000, 200_000, 200_000)]
        await prices.sync_list(connection, offers)
    await site.bench.gateway.prices.load(site.database)
    page = await page_as("developer")
    await page.goto(f"/portal/playground#model={MODEL}")
    await page.get_by_role("button", name="Add images").click()
    await expect(page.locator("#complaint")).to_contain_text("reads text only")
    await page.get_by_label("Model", exact=True).select_option(VISION)
    picture = {"name": "pixel.png", "mimeType": "image/png", "buffer": PIXEL}
    await page.locator("#files").set_input_files(picture)  # type: ignore[arg-type]
    await expect(page.get_by_alt_text("pixel.png")).to_be_visible()
    large = picture | {"name": "large.png", "buffer": PIXEL + bytes(80_000)}
    await page.locator("#files").set_input_files(large)  # type: ignore[arg-type]
    await expect(page.locator("#complaint")).to_contain_text("large.png is too large")
    await check_page(page)
    await ask(page, "What is this?")
    await costs(page, 1)
    await expect(page.locator(".bubble img")).to_be_visible()


async def test_json_that_was_asked_for_is_laid_out_and_a_limit_is_said_in_words(
    site: Site, page_as: PageAs, check_page: CheckPage
) -> None:
    async with site.database.acquire() as connection:
        await limits.limit_project(connection, site.acme.id, "default", RateLimits(requests_per_minute=1))
    await site.bench.engines[0].breaks(deltas=[{"content": '{"stars":'}, {"content": " 5}"}])
    page = await page_as("developer", phone=True)
    await page.goto("/portal/playground")
    await page.get_by_role("button", name="Settings", exact=True).click()
    await page.locator("#schema-part summary").click()
    await page.locator("[data-example=schema]").click()
    await page.keyboard.press("Escape")
    await ask(page, "Rate it")
    await expect(page.locator("article.answer pre code")).to_have_text('{\n  "stars": 5\n}')
    await costs(page, 1)
    await ask(page, "Again")
    refused = page.get_by_role("alert").last
    await expect(refused).to_contain_text("requests")
    await expect(refused).to_contain_text("Try again in")
    await expect(refused.get_by_role("button", name="Retry")).to_be_visible()
    await check_page(page)


async def test_a_message_is_changed_an_answer_asked_for_again_and_all_of_it_cleared(
    site: Site, page_as: PageAs, check_page: CheckPage
) -> None:
    page = await page_as("developer")
    await page.goto("/portal/playground")
    turns = page.locator(".turn")
    for at, text in enumerate(["one", "two", "three"]):
        await ask(page, text)
        await costs(page, at + 1)
    await turns.nth(1).hover()
    await turns.nth(1).get_by_role("button", name="Edit this message").click()
    await turns.nth(1).get_by_label("Changed message").fill("two and a half")
    await check_page(page)
    await page.keyboard.press("Enter")
    await expect(turns).to_have_count(2)
    assert await costs(page, 2)
    # One word more than before: what was said then is not sent again.
    inputs = "select input_tokens from billing.usage_event order by ended_at"
    read = [row["input_tokens"] for row in await site.database.fetch(inputs)]
    assert read[3] == read[1] + 3
    await turns.nth(1).get_by_role("button", name="Answer again").click()
    await expect(page.locator("article.answer")).to_have_count(2)
    await costs(page, 2)
    read = [row["input_tokens"] for row in await site.database.fetch(inputs)]
    assert read[4] == read[3]
    await page.get_by_role("button", name="Clear").click()
    await expect(turns).to_have_count(0)
    await page.get_by_role("button", name="Undo").click()
    await expect(turns).to_have_count(2)
    await check_page(page)


async def run(*command: str, key: str) -> str:
    """What a program says that has the key in its environment."""
    process = await asyncio.create_subprocess_exec(
        *command, env=os.environ | {"PENSTOCK_API_KEY": key}, stdout=PIPE, stderr=PIPE
    )
    told, wrong = await process.communicate()
    assert process.returncode == 0, wrong.decode()
    return told.decode()


async def test_the_code_that_is_shown_asks_the_same(site: Site, page_as: PageAs, tmp_path: Path) -> None:
    page = await page_as("developer")
    await page.goto("/portal/playground")
    await page.get_by_label("System prompt").fill('It\'s "quoted" \\ $HOME `x`\n\u00fc \U0001f642')
    await page.get_by_label("Max tokens").fill("3")
    await page.locator("#tools-part summary").click()
    await page.locator("[data-example=tools]").click()
    await page.get_by_label("Message", exact=True).fill("Say 'hello'")
    await page.get_by_role("button", name="View code").click()
    shown = {}
    for name in ("curl", "python", "typescript"):
        shown[name] = await page.locator(f"#code-{name} code").text_content() or ""
    assert f'baseURL: "{site.url}/v1"' in shown["typescript"]
    program = tmp_path / "sample.py"
    program.write_text(shown["python"])
    assert await run(sys.executable, str(program), key=site.key) == " t0 t1 t2"
    assert "data: [DONE]" in await run("bash", "-c", shown["curl"], key=site.key)
    await page.keyboard.press("Escape")
    await ask(page, "Say 'hello'")
    await costs(page, 1)
    read = await site.database.fetch("select input_tokens, output_tokens from billing.usage_event")
    assert len(read) == 3
    assert len(set(map(tuple, read))) == 1


STREAM = """async (base) => {
    const { events } = await import(`${base}/js/playground/events.js`);
    const bytes = new TextEncoder().encode(
        ": waits\\r\\n\\r\\ndata: one\\ndata:  two\\n\\ndata: \u00fc\\r\\n\\r\\nevent: x\\n\\ndata: cut");
    const body = new ReadableStream({
        start(controller) {
            for (const byte of bytes) controller.enqueue(new Uint8Array([byte]));
            controller.close();
        },
    });
    const found = [];
    for await (const event of events(body)) found.push(event);
    return found;
}"""
BLOCKS = """async (base) => {
    const { blocks } = await import(`${base}/js/playground/text.js`);
    const text = "a\\nb\\n\\n\\n# T\\n````py\\nx\\n```\\n\\ny\\n````\\nend\\n~~~\\nopen";
    return blocks(text).map(({ kind, text, language }) => [kind, text, language ?? ""]);
}"""


async def test_a_stream_is_read_in_any_pieces_and_a_text_taken_apart(page_as: PageAs) -> None:
    page = await page_as("developer")
    await page.goto("/portal/playground")
    address = await page.locator("script[src$='js/playground.js']").get_attribute("src")
    assert address is not None
    base = address.removesuffix("/js/playground.js")
    # What no blank line ends is cut off, and no event.
    expected = [{"comment": "waits"}, {"data": "one\n two"}, {"data": "ü"}]
    assert await page.evaluate(STREAM, base) == expected
    assert await page.evaluate(BLOCKS, base) == [
        ["text", "a\nb", ""],
        ["heading", "T", ""],
        ["code", "x\n```\n\ny", "py"],
        ["text", "end", ""],
        ["code", "open", ""],
    ]


async def test_texts_are_compared_and_the_price_is_the_ledgers(
    site: Site, page_as: PageAs, check_page: CheckPage
) -> None:
    await site.bench.start_engine("e", model=EMBED)
    page = await page_as("developer", phone=True)
    await page.goto("/portal/playground/embeddings")
    await check_page(page)
    for at, text in enumerate(["one", "<img src=x onerror=window.pwned=1>", "three words here"]):
        await page.get_by_label(f"Text {at + 1}", exact=True).fill(text)
    await page.get_by_role("button", name="Compare").click()
    link = page.locator("#cost a")
    await expect(link).to_be_visible()
    assert [await link.inner_text()] == await booked(site)
    await expect(page.locator("#rows tr")).to_have_count(3)
    await expect(page.locator("#rows tr").nth(1).locator("th")).to_contain_text("<img src=x")
    await check_page(page)


async def test_who_only_looks_is_told_so(page_as: PageAs, check_page: CheckPage) -> None:
    page = await page_as("viewer", phone=True, dark=True)
    await page.goto("/portal/playground")
    await expect(page.get_by_text("looks and does not spend")).to_be_visible()
    await expect(page.get_by_label("Message", exact=True)).to_be_disabled()
    await check_page(page)
