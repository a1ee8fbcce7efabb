"""Credit, the ledger and top-ups: what is shown is what is booked, and nobody does more than they may."""

from __future__ import annotations

import html
import re
from typing import Any

import httpx
import pytest
from benches.gateway import MODEL, until
from benches.portal import Site

from penstock.portal import formats
from penstock_billing import giving_back, promotions, wallets
from penstock_billing.leases import Wallet
from penstock_billing.record import Funding
from penstock_billing.wishes import Wish

DOLLAR = 1_000_000_000


async def request(site: Site) -> str:
    """One request of acme's that is in the ledger; its id."""
    async with site.acme.api() as client:
        body = {"model": MODEL, "messages": [{"role": "user", "content": "Hello"}], "max_tokens": 5}
        answer = await client.post("/v1/chat/completions", json=body)
        assert answer.status_code == 200, answer.text
    request_id = answer.headers["x-request-id"]

    async def booked() -> Any:
        return await site.database.fetchval(
            "select ledger_transaction_id from billing.usage_event where request_id = $1", request_id
        )

    await until(booked)
    return request_id


def rows(page: str) -> list[str]:
    """The table rows of a page as text."""
    return [
        html.unescape(" ".join(re.sub(r"<[^>]+>", " ", row).split()))
        for row in re.findall(r"<tr[^>]*>(.*?)</tr>", page, re.DOTALL)
    ]


async def test_the_credit_is_what_the_accounts_hold(site: Site) -> None:
    async with site.database.acquire() as connection:
        wallet = Wallet(site.acme.id, 0)
        await wallets.set_terms(connection, wallet, Funding.PREPAID, strict=True)
        await wallets.top_up(connection, Wish(ref="bank:1", amount_nano_usd=12_345_678_901), wallet)
        await promotions.promote(
            connection, Wish(ref="gift:1", amount_nano_usd=5 * DOLLAR, note="<i>Welcome</i>"), wallet, None
        )
    page = (await (await site.client("viewer")).get("/portal/billing")).text
    assert formats.usd(17_345_678_901) in page
    assert "$12.345678901 paid for, $5.00 promotional" in page
    assert "Prepaid, strict" in page
    assert "&lt;i&gt;Welcome" in page
    assert "Add credit" not in page
    assert any("bank:1" in row and "+$12.345678901 credit" in row for row in rows(page))


async def test_who_pays_afterwards_sees_what_is_owed_and_why(site: Site) -> None:
    request_id = await request(site)
    client = await site.client("viewer")
    owed = await site.database.fetchval(
        "select posted_nano_usd from billing.account where organisation_id = $1 and kind = 'receivable'",
        site.acme.id,
    )
    assert owed > 0
    page = (await client.get("/portal/billing")).text
    assert f"<dd>{formats.usd(owed)}</dd>" in page
    assert "Postpaid" in page
    ledger = (await client.get("/portal/billing/ledger")).text
    [number] = re.findall(r'<td><a href="/portal/billing/ledger/(\d+)"', ledger)
    assert f"+{formats.usd(owed)} owed" in rows(ledger)[1]
    shown = (await client.get(f"/portal/billing/ledger/{number}")).text
    assert f'href="/portal/requests/{request_id}"' in shown
    assert "ship:" not in shown


async def test_a_refund_is_shown_beside_what_it_makes_good(site: Site) -> None:
    request_id = await request(site)
    async with site.database.acquire() as connection:
        wish = Wish(ref="refund:1", amount_nano_usd=0, note="It was slow")
        booked = await giving_back.refund_request(connection, wish, site.acme.id, request_id)
    client = await site.client("developer")
    ledger = (await client.get("/portal/billing/ledger?show=given-back")).text
    [row] = rows(ledger)[1:]
    assert "Refund" in row
    assert "It was slow" in row
    charge = re.findall(r'makes <a href="/portal/billing/ledger/(\d+)"', ledger)[0]
    assert f"Refund {booked.id}" in (await client.get(f"/portal/billing/ledger/{charge}")).text


async def test_the_ledger_is_read_page_by_page_with_its_filters(site: Site) -> None:
    async with site.database.acquire() as connection:
        for number in range(30):
            wish = Wish(ref=f"bank:{number}", amount_nano_usd=DOLLAR + number)
            await wallets.top_up(connection, wish, Wallet(site.acme.id, 0))
    client = await site.client("viewer")
    address, seen = "/portal/billing/ledger?show=credit", []
    while address:
        page = (await client.get(address)).text
        seen += re.findall(r"<code>(bank:\d+)</code>", page)
        links = re.findall(r'href="(/portal/billing/ledger\?before=[^"]+)"', page)
        address = html.unescape(links[0]) if links else ""
        assert not address or "show=credit" in address
    assert seen == [f"bank:{number}" for number in reversed(range(30))]
    refused = await client.get("/portal/billing/ledger?since=yesterday")
    assert refused.status_code == 400
    assert 'id="e-since"' in refused.text


async def test_others_bookings_are_not_here(site: Site) -> None:
    globex = await site.organisation("globex")
    async with site.database.acquire() as connection:
        made = await wallets.top_up(
            connection, Wish(ref="secret:1", amount_nano_usd=DOLLAR), Wallet(globex.id, 0)
        )
    client = await site.client("owner")
    assert (await client.get(f"/portal/billing/ledger/{made.id}")).status_code == 404
    assert "secret:1" not in (await client.get("/portal/billing/ledger")).text
    assert "No money has moved yet" in (await client.get("/portal/billing/ledger")).text


async def post_top_up(client: httpx.AsyncClient, **fields: str) -> httpx.Response:
    form = {"amount_usd": "25.50", "reference": "bank:2026-1", "note": "Transfer", "wallet": "0"}
    return await client.post("/portal/billing/top-up", data=form | fields)


async def test_an_operator_adds_credit_once_however_often_it_is_sent(site: Site) -> None:
    client = await site.client("operator")
    page = (await client.get("/portal/billing/top-up")).text
    assert re.search(r'name="reference"[^>]*value="top-up:\w+"', page)
    first = await post_top_up(client)
    assert first.status_code == 303
    assert "notice=topped-up" in first.headers["location"]
    again = await post_top_up(client)
    assert again.headers["location"].endswith("notice=topped-up-before")
    held = await site.database.fetch(
        "select -posted_nano_usd as credit from billing.account"
        " where organisation_id = $1 and kind = 'prepaid'",
        site.acme.id,
    )
    assert [row["credit"] for row in held] == [25_500_000_000]
    shown = (await client.get(first.headers["location"])).text
    assert "Booked by" in shown
    assert site.acme.email("operator") in shown
    # Who pays sees what was booked, and not who of us did it.
    shown = (await (await site.client("owner")).get(first.headers["location"])).text
    assert site.acme.email("operator") not in shown


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"amount_usd": "much"}, "amount_usd"),
        ({"amount_usd": "0"}, "amount_usd"),
        ({"amount_usd": "-5"}, "amount_usd"),
        ({"amount_usd": "1.0000000001"}, "amount_usd"),
        ({"amount_usd": "1000001"}, "amount_usd"),
        ({"amount_usd": ""}, "amount_usd"),
        ({"reference": ""}, "reference"),
        ({"reference": "ship:1"}, "reference"),
        ({"reference": "r" * 201}, "reference"),
        ({"note": "n" * 501}, "note"),
        ({"wallet": "999"}, "wallet"),
    ],
)
async def test_what_is_no_top_up_is_refused_beside_its_field_and_kept(
    site: Site, fields: dict[str, str], field: str
) -> None:
    answer = await post_top_up(await site.client("operator"), **fields)
    assert answer.status_code == 422
    assert f'id="e-{field}"' in answer.text
    assert "Transfer" in answer.text or field == "note"
    assert await site.database.fetchval("select count(*) from billing.ledger_transaction") == 0


async def test_a_reference_of_another_booking_is_refused_beside_it(site: Site) -> None:
    client = await site.client("operator")
    assert (await post_top_up(client)).status_code == 303
    answer = await post_top_up(client, amount_usd="26")
    assert answer.status_code == 422
    assert 'id="e-reference"' in answer.text
    assert "nothing was booked" in answer.text


async def test_nobody_but_an_operator_adds_credit(site: Site) -> None:
    for role in ("owner", "viewer"):
        client = await site.client(role)
        assert (await client.get("/portal/billing/top-up")).status_code == 403
        assert (await post_top_up(client)).status_code == 403
    assert await site.database.fetchval("select count(*) from billing.ledger_transaction") == 0


async def test_an_operator_says_how_a_wallet_pays_and_nobody_else_does(site: Site) -> None:
    terms = "/portal/billing/terms"
    owner = await site.client("owner")
    assert (await owner.get(terms)).status_code == 403
    assert (await owner.post(terms, data={"pays": "prepaid"})).status_code == 403
    assert terms not in (await owner.get("/portal/billing")).text
    client = await site.client("operator")
    assert f'href="{terms}"' in (await client.get("/portal/billing")).text
    project = await site.database.fetchval(
        "select id from access.project where organisation_id = $1", site.acme.id
    )

    async def standing() -> list[tuple[int, str, bool, int | None]]:
        rows = await site.database.fetch(
            "select project_id, funding, strict, owed_max_nano_usd from billing.wallet"
            " where organisation_id = $1 order by 1",
            site.acme.id,
        )
        return [tuple(row.values()) for row in rows]

    for wrong, field in (
        ({"pays": "golden"}, "pays"),
        ({}, "pays"),
        ({"pays": "prepaid", "owed_max_usd": "5"}, "owed_max_usd"),
        ({"pays": "postpaid", "owed_max_usd": "5e99"}, "owed_max_usd"),
        ({"pays": "postpaid", "owed_max_usd": "<b>"}, "owed_max_usd"),
        ({"pays": "postpaid", "wallet": "999999"}, "wallet"),
    ):
        answer = await client.post(terms, data=wrong)
        assert answer.status_code == 422, wrong
        assert f'id="e-{field}"' in answer.text
    assert await standing() == []
    done = await client.post(terms, data={"pays": "strict", "wallet": "0"})
    assert done.headers["location"] == "/portal/billing?notice=terms-set"
    again = await client.post(
        terms, data={"pays": "postpaid", "wallet": f"{project}", "owed_max_usd": "12.5"}
    )
    assert again.headers["location"] == f"/portal/billing?wallet={project}&notice=terms-set"
    assert await standing() == [(0, "prepaid", True, None), (project, "postpaid", False, 12_500_000_000)]
    page = (await client.get(f"{terms}?wallet={project}")).text
    assert 'value="12.50' in page
    assert re.search(r'<option value="strict" selected>', (await client.get(terms)).text)
    log = (await client.get("/portal/audit")).text
    assert "Operator of acme" in log
    # It holds for the next request.
    async with site.acme.api() as api:

        async def refused() -> bool:
            body = {"model": MODEL, "messages": [{"role": "user", "content": "Hello"}]}
            return (await api.post("/v1/chat/completions", json=body)).status_code == 402

        await client.post(terms, data={"pays": "prepaid", "wallet": f"{project}"})
        await until(refused)
