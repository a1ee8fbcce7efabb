"""The catalog's pages: searched as one types, one page per model, models side by side; the same over REST."""

from __future__ import annotations

import asyncio
import html
import os
import re
import shutil
import sys
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from benches.gateway import EMBED
from benches.portal import Site

from penstock.access import keys
from penstock_base import money
from penstock_billing import price_changes, rating
from penstock_billing.price_changes import Change, When
from penstock_engines import pools
from penstock_engines.autoscale import ScaleRules
from penstock_engines.inventory import Inventory
from penstock_engines.pool_settings import PoolSettings
from penstock_engines.spec import Device

CHAT = "penstock/demo-chat"
HTMX = {"hx-request": "true"}
CODE = re.compile(r'<section id="code-(\w+)".*?<code>(.*?)</code>', re.DOTALL)
ROW = re.compile(r'<h3><a href="/portal/models/([^"]+)"')


def rows(text: str) -> list[str]:
    return ROW.findall(text)


async def asleep(site: Site, model: str) -> None:
    """Give a model a pool without engines."""
    card = site.bench.gateway.shelf.get(model)
    assert card is not None
    async with site.database.acquire() as connection:
        await pools.create(connection, card, PoolSettings(scale=ScaleRules(replicas_min=0)))
    await site.bench.gateway.directory.refresh(site.database)


async def test_the_catalog_lists_every_model_the_live_ones_first(site: Site) -> None:
    await asleep(site, "qwen/qwen3-0.6b")
    text = (await (await site.client("viewer")).get("/portal/models")).text
    assert rows(text)[:2] == [CHAT, "qwen/qwen3-0.6b"]
    assert f"{len(site.bench.gateway.shelf.cards)} models" in text
    for state in ("live", "sleeping", "not deployed"):
        assert f">{state}</span>" in text


async def test_a_search_is_a_link_and_as_one_types_only_the_list_is_sent(site: Site) -> None:
    client = await site.client("viewer")
    asked = "/portal/models?q=qwen&capability=tools&sort=size&state="
    whole, part = (await client.get(asked)).text, await client.get(asked, headers=HTMX)
    assert rows(whole) == rows(part.text) != []
    assert all(each.startswith("qwen/") for each in rows(whole))
    assert "<!doctype" in whole
    assert "<!doctype" not in part.text
    assert part.headers["hx-replace-url"] == "/portal/models?q=qwen&capability=tools&sort=size"
    assert 'value="qwen"' in whole
    # Coming back by the browser's button, the whole page is wanted.
    again = await client.get(asked, headers=HTMX | {"hx-history-restore-request": "true"})
    assert "<!doctype" in again.text


@pytest.mark.parametrize(
    "typed",
    ["<script>alert(1)</script>", '"><img src=x onerror=alert(1)>', "\u202egpt", "{{ 7*7 }}", "q" * 5000],
)
async def test_whatever_is_typed_comes_back_as_text(site: Site, typed: str) -> None:
    client = await site.client("viewer")
    for headers in ({}, HTMX):
        answer = await client.get("/portal/models", params={"q": typed}, headers=headers)
        assert answer.status_code == 200
        assert "<script>alert" not in answer.text
        assert "<img src=x" not in answer.text
        assert "&lt;" in answer.text or "<" not in typed


async def test_where_nothing_is_found_each_way_out_finds_something(site: Site) -> None:
    client = await site.client("viewer")
    text = (await client.get("/portal/models?task=chat&q=bge")).text
    ways = re.findall(r'<a class="button" href="(/portal/models[^"]*)">(?:Any|Without|All)', text)
    assert len(ways) == 3
    for way in ways:
        assert rows((await client.get(way.replace("&amp;", "&"))).text)


async def test_up_to_four_models_are_chosen_and_stay_so_whatever_is_searched(site: Site) -> None:
    client = await site.client("viewer")
    chosen = [card.id for card in site.bench.gateway.shelf.cards[:6]]
    asked = "/portal/models?q=demo-chat&" + "&".join(f"model={each}" for each in [*chosen, "no/such"])
    text = (await client.get(asked)).text
    assert text.count('type="hidden" name="model"') == 4
    assert "Compare 4" in text
    assert "At most 4 models" in text
    assert "no/such" not in text
    assert rows(text) == [CHAT]
    assert re.search(r'value="penstock/demo-chat" id="[^"]+" disabled', text)


async def test_a_models_page_tells_what_it_is_costs_and_does_here(site: Site) -> None:
    async with site.database.acquire() as connection:
        await pools.put_hardware(connection, "here", Inventory(device=Device.CPU, cpu_slots=2, memory_gib=8))
    text = (await (await site.client("developer")).get(f"/portal/models/{CHAT}")).text
    for there in (
        "$0.10",
        "$0.40",
        "An engine is ready.",
        "cpu-2g",
        f'href="/portal/playground?model={CHAT}"',
        f'href="/portal/endpoints/new?model={CHAT}"',
        "LoRA up to rank 16",
        "3,541,248",
    ):
        assert there in text, there
    assert text.count(f"{site.url}/v1") == 3


@pytest.mark.parametrize("model", [CHAT, EMBED])
async def test_the_code_that_is_shown_works(site: Site, model: str) -> None:
    if model == EMBED:
        await site.bench.start_engine("e", model=EMBED)
    text = (await (await site.client("viewer")).get(f"/portal/models/{model}")).text
    code = {name: html.unescape(shown) for name, shown in CODE.findall(text)}
    assert list(code) == ["curl", "python", "typescript"]
    # A gateway under test knows no public address: the page tells the one that it was asked at.
    assert all(f"{site.url}/v1" in shown for shown in code.values())
    environment = os.environ | {"PENSTOCK_API_KEY": site.key}
    programs = [[sys.executable, "-c", code["python"]]]
    if shutil.which("curl"):
        programs.append(["sh", "-c", code["curl"]])
    for program in programs:
        process = await asyncio.create_subprocess_exec(
            *program, env=environment, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
        )
        said, complained = await process.communicate()
        assert process.returncode == 0, complained.decode()
        assert said.strip()
        assert b'"error"' not in said


async def test_what_cannot_run_here_is_not_offered_to_be_deployed(site: Site) -> None:
    client = await site.client("owner")
    path = "/portal/models/deepseek-ai/deepseek-r1"
    assert "has not told yet what hardware there is" in (await client.get(path)).text
    async with site.database.acquire() as connection:
        await pools.put_hardware(connection, "here", Inventory(device=Device.CPU, cpu_slots=2, memory_gib=8))
    text = (await client.get(path)).text
    assert "needs 627.1 GiB of memory; this machine has 7.2 GiB" in text
    assert "/portal/endpoints/new" not in text
    assert "/portal/playground?" not in text
    # Pinned to a commit, which is there to be copied.
    assert "56d4cbbb4d29f4355bab4b9a39ccb717a14ad5ad" in text


async def test_a_viewer_is_not_offered_to_deploy(site: Site) -> None:
    text = (await (await site.client("viewer")).get(f"/portal/models/{CHAT}")).text
    assert "/portal/endpoints/new" not in text


async def test_a_model_that_is_not_there_is_a_page_that_says_which_is_near(site: Site) -> None:
    answer = await (await site.client("viewer")).get("/portal/models/penstock/demo-chatt")
    assert answer.status_code == 404
    assert "penstock/demo-chat" in answer.text
    hostile = await (await site.client("viewer")).get("/portal/models/%3Cscript%3E/%E2%80%AEx")
    assert hostile.status_code == 404
    assert "<script>" not in hostile.text.split("<main")[1]


async def test_prices_over_time_are_the_organisations_own(site: Site) -> None:
    globex = await site.organisation("globex")
    later = datetime.now(UTC) + timedelta(days=3)
    async with site.database.acquire() as connection:
        friends = await price_changes.new_list(connection, "friends")
        cheap = Change(input_pico_usd=20_000, cached_input_pico_usd=1_000, output_pico_usd=30_000)
        await price_changes.add(connection, CHAT, cheap, When(), friends.id)
        await price_changes.add(connection, CHAT, Change(input_pico_usd=90_000), When(valid_from=later))
        acme = await keys.find_organisation(connection, "acme")
        await price_changes.assign(connection, acme, friends.id, When())
    await site.bench.gateway.prices.load(site.database)
    own = (await (await site.client("viewer")).get(f"/portal/models/{CHAT}")).text
    assert "its own price list <strong>friends</strong>" in own
    assert "$0.02" in own
    assert "$0.09" not in own
    other = (await (await globex.client("viewer")).get(f"/portal/models/{CHAT}")).text
    assert "friends" not in other
    assert "$0.02" not in other
    assert "$0.09" in other
    assert "scheduled" in other


async def test_speed_is_what_the_requests_took(site: Site) -> None:
    async with site.acme.api() as api:
        body = {
            "model": CHAT,
            "messages": [{"role": "user", "content": "Hi"}],
            "stream": True,
            "max_tokens": 16,
        }
        for _ in range(3):
            answer = await api.post("/v1/chat/completions", json=body)
            await site.bench.event(answer.headers["x-request-id"])
        events = await site.database.fetch("select first_token_us from billing.usage_event")
        told = (await api.get(f"/api/v1/models/{CHAT}/speed")).json()
    middle = sorted(each[0] for each in events)[1]
    assert told["requests"] == 3
    assert told["first_token_p50_ms"] == pytest.approx(middle / 1000, rel=0.06)
    assert [day["requests"] for day in told["days"]] == [0] * 6 + [3]
    text = (await (await site.client("viewer")).get(f"/portal/models/{CHAT}")).text
    assert "Time to the first token" in text
    assert 'data-chart="first-token-data"' in text


async def test_a_comparison_reckons_exactly_what_the_ledger_would_charge(site: Site) -> None:
    client = await site.client("viewer")
    price = site.bench.gateway.prices.current(CHAT)
    assert price is not None
    traffic = "requests_per_day=12,345&input_tokens=777&cached_tokens=77&output_tokens=33"
    asked = f"/portal/compare?model={CHAT}&model=penstock/demo-embed&{traffic}"
    request = rating.cost_nano_usd(price, input_tokens=777, cached_tokens=77, output_tokens=33)
    month = money.nano_to_usd(request * 12_345 * 30).rstrip("0")
    for headers in ({}, HTMX):
        text = (await client.get(asked, headers=headers)).text
        assert month in text.replace(",", "")
    part = await client.get(asked, headers=HTMX)
    assert "<!doctype" not in part.text
    assert "cached_tokens=77" in part.headers["hx-replace-url"]
    assert f"model={CHAT.replace('/', '%2F')}" in part.headers["hx-replace-url"]


async def test_what_is_wrong_in_the_calculator_is_said_and_kept(site: Site) -> None:
    client = await site.client("viewer")
    text = (await client.get(f"/portal/compare?model={CHAT}&output_tokens=<b>lots&cached_tokens=5000")).text
    assert 'value="&lt;b&gt;lots"' in text
    assert "Output tokens per request: a whole number from 0" in text
    assert "at most the 1,000 input tokens can be cached" in text


async def test_a_comparison_says_what_it_leaves_out(site: Site) -> None:
    client = await site.client("viewer")
    models = [card.id for card in site.bench.gateway.shelf.cards[:5]]
    text = (
        await client.get("/portal/compare?model=<i>&" + "&".join(f"model={each}" for each in models))
    ).text
    assert "There is no model &#39;&lt;i&gt;&#39;" in text
    assert f"so {models[4]} is left out" in text
    assert text.count("Remove<span") == 4
    empty = (await client.get("/portal/compare?model=")).text
    assert "Nothing to compare yet" in empty


async def test_rest_has_the_same_models_facets_and_prices(site: Site) -> None:
    async with site.acme.api() as api:

        async def ask(path: str) -> Any:
            answer = await api.get(path)
            assert answer.status_code == 200, answer.text
            return answer.json()

        found = await ask("/api/v1/models?q=qwen&capability=tools&limit=2&sort=size")
        assert found["total"] > len(found["data"]) == 2
        page = (
            await (await site.client("viewer")).get("/portal/models?q=qwen&capability=tools&sort=size")
        ).text
        assert rows(page)[:2] == [each["id"] for each in found["data"]]
        counts = {each["value"]: each["count"] for each in found["facets"]["task"]}
        assert counts == {"chat": found["total"]}
        one = await ask(f"/api/v1/models/{CHAT}")
        assert one["state"] == "live"
        assert one["prices_usd_per_1m_tokens"] == {"input": "0.10", "cached_input": "0.05", "output": "0.40"}
        assert one["versions"][0]["current"]
        assert "path" not in str(one["versions"])
        prices = await ask(f"/api/v1/models/{CHAT}/prices")
        assert [each["status"] for each in prices["data"]] == ["in force"]
        cost = await ask(f"/api/v1/estimates?model={CHAT}&requests_per_day=1&input_tokens=1&output_tokens=0")
        assert cost["data"][0]["usd_per_month"] == "0.000003000"
        for refused, param in (
            ("/api/v1/models?task=talk", "task"),
            ("/api/v1/models?limit=0", "limit"),
            (f"/api/v1/estimates?model={CHAT}&input_tokens=-1", "input_tokens"),
            ("/api/v1/estimates?" + "&".join(f"model={n}" for n in range(5)), "model"),
        ):
            answer = await api.get(refused)
            assert (answer.status_code, answer.json().get("param")) == (400, param), answer.text
        assert (await api.get("/api/v1/models/no/such")).status_code == 404
    visitor = await site.visitor()
    assert (await visitor.get("/api/v1/models")).status_code == 401


async def test_the_state_of_an_open_page_is_asked_for_by_itself(site: Site) -> None:
    client = await site.client("viewer")
    page = (await client.get("/portal/models/penstock/demo-chat")).text
    asked = "/portal/models/penstock/demo-chat/state"
    assert f'hx-get="{asked}"' in page
    part = await client.get(asked)
    assert part.status_code == 200
    assert ">live<" in part.text
    assert "<html" not in part.text
    assert (await client.get("/portal/models/no/body/state")).status_code == 404
