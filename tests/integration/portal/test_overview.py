"""The first page: the same numbers as everywhere, first steps that tick themselves, and nothing of others."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest
from benches.gateway import MODEL
from benches.portal import Site

from penstock.endpoints import serverless
from penstock_base import money
from penstock_billing import budgets, usage, wallets
from penstock_billing.budgets import Period, Plan, Scope
from penstock_billing.leases import Wallet
from penstock_billing.record import Funding

HERE = "/portal"
HTMX = {"hx-request": "true"}


async def ask(site: Site, key: str | None = None) -> str:
    body = {"model": MODEL, "messages": [{"role": "user", "content": "Hello"}], "max_tokens": 8}
    async with httpx.AsyncClient(base_url=site.url, timeout=20) as client:
        answer = await client.post(
            "/v1/chat/completions", json=body, headers={"authorization": f"Bearer {key or site.key}"}
        )
    request_id: str = answer.headers["x-request-id"]
    await site.bench.event(request_id)
    return request_id


def dollars(nano_usd: int) -> str:
    whole, fraction = money.nano_to_usd(nano_usd).split(".")
    return f"${whole}.{fraction.rstrip('0').ljust(2, '0')}"


def done(page: str) -> dict[str, bool]:
    """The first steps, and whether each is ticked."""
    return {
        title: word == "Done"
        for word, title in re.findall(r'aria-label="(Done|To do)".*?<h3>([^<]+)</h3>', page, re.DOTALL)
    }


async def test_a_newcomer_is_led_and_each_step_ticks_itself(site: Site) -> None:
    initech = await site.organisation("initech")
    await site.database.execute(
        "update access.api_key set revoked_at = now() where organisation_id = $1", initech.id
    )
    client = await initech.client("owner")
    page = (await client.get(HERE)).text
    assert done(page) == {
        "Try a model": False,
        "Make an API key": False,
        "Send the first request": False,
        "Invite somebody": False,
    }
    assert f"curl {site.bench.gateway.serverless.base_url}/v1/chat/completions" in page
    assert MODEL in page
    assert "h-failed" in page
    again = await site.organisation("initech")
    await ask(site, again.key)
    await initech.person("viewer")
    part = (await client.get(f"{HERE}?part=steps", headers=HTMX)).text
    assert "<html" not in part
    assert done(part) == {
        "Try a model": False,
        "Make an API key": True,
        "Send the first request": True,
        "Invite somebody": True,
    }
    answer = await client.post(f"{HERE}/first-steps")
    assert answer.status_code == 303
    assert done((await client.get(HERE)).text) == {}


async def test_the_numbers_are_those_of_usage_and_of_the_wallet(site: Site) -> None:
    for _ in range(3):
        await ask(site)
    await ask(site, (await site.organisation("globex")).key)
    now = datetime.now(UTC)
    month = now.replace(day=1, hour=0, minute=0, second=0, microsecond=0)
    minute = now.replace(second=0, microsecond=0)
    used = await usage.totals(site.database, site.acme.id, month, minute + timedelta(hours=1))
    page = (await (await site.client("viewer")).get(HERE)).text
    cost = used.cost_nano_usd
    assert cost > 0
    assert f'<a href="/portal/usage">{dollars(cost)}</a>' in page
    assert "3 in the last hour" in page
    assert f'<dt>Owed</dt><dd><a href="/portal/billing">{dollars(cost)}</a></dd>' in page


async def test_prepaid_credit_is_said_with_how_long_it_lasts(site: Site) -> None:
    await wallets.set_terms(site.database, Wallet(site.acme.id, 0), Funding.PREPAID)
    page = (await (await site.client("viewer")).get(HERE)).text
    assert "Credit left" in page
    assert "nothing was spent in the last 7 days" in page


async def test_failures_endpoints_and_budgets_of_this_organisation_are_shown(site: Site) -> None:
    globex = await site.organisation("globex")
    (engine,) = site.bench.engines
    await engine.breaks(cut_at_token=2)
    async with httpx.AsyncClient(base_url=site.url, timeout=20) as api:
        body: dict[str, Any] = {
            "model": MODEL,
            "messages": [{"role": "user", "content": "Hello"}],
            "max_tokens": 8,
            "stream": True,
        }
        answer = await api.post(
            "/v1/chat/completions", json=body, headers={"authorization": f"Bearer {site.key}"}
        )
    failed = (await site.bench.event(answer.headers["x-request-id"]))["request_id"]
    await engine.mend()
    card = site.bench.gateway.shelf.get(MODEL)
    assert card is not None
    async with site.database.acquire() as connection:
        project = await connection.fetchval(
            "select id from access.project where organisation_id = $1", site.acme.id
        )
        await serverless.create(
            connection, b"p" * 32, site.acme.id, project, "support-desk", card, serverless.Wish()
        )
    await ask(site)
    async with site.database.acquire() as connection:
        await budgets.put(
            connection, Scope(site.acme.id), Period.MONTH, Plan(limit_nano_usd=1, enforced=False)
        )
    page = (await (await site.client("viewer")).get(HERE)).text
    for mine in (failed[-8:], "support-desk", "Budgets near their end", "The organisation"):
        assert mine in page
    theirs = (await (await globex.client("viewer")).get(HERE)).text
    for mine in (failed[-8:], "support-desk", "Budgets near their end"):
        assert mine not in theirs


@pytest.mark.parametrize("role", ["owner", "operator"])
async def test_operators_see_how_the_installation_is(site: Site, role: str) -> None:
    page = (await (await site.client(role)).get(HERE)).text
    assert ("1 ready" in page and "every answer is noted before it ends" in page) == (role == "operator")


async def test_an_operator_of_no_organisation_sees_the_installation_alone(site: Site) -> None:
    client = await site.client("operator")
    await site.database.execute("delete from access.membership where organisation_id = $1", site.acme.id)
    await site.database.execute("update access.session set organisation_id = null")
    answer = await client.get(HERE)
    assert answer.status_code == 200
    assert "Installation" in answer.text
    assert 'id="now"' not in answer.text
    assert (await client.get("/portal/requests")).status_code == 200
