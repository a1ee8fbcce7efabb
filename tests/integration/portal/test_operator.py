"""The operator's pages: who may see them, what they change, and what they refuse with words."""

from __future__ import annotations

import re

import pytest
from benches.portal import Site

PAGES = (
    "organisations",
    "pools",
    "pools/penstock/demo-chat",
    "hardware",
    "margins",
    "margins?days=30",
    "reconciliation",
    "prices",
)
MODEL = "penstock/demo-chat"
EMBED = "penstock/demo-embed"


@pytest.mark.parametrize("page", PAGES)
async def test_only_operators_see_them(site: Site, page: str) -> None:
    assert (await (await site.client("owner")).get(f"/portal/operator/{page}")).status_code == 403
    assert (await (await site.client("operator")).get(f"/portal/operator/{page}")).status_code == 200


async def test_an_owner_can_change_nothing_here(site: Site) -> None:
    client = await site.client("owner")
    for path, form in (
        ("organisations", {"name": "new"}),
        ("organisations/plan", {"organisation": "acme", "plan": "standard"}),
        ("pools", {"model": "penstock/demo-embed"}),
        (f"pool/set/{MODEL}", {"replicas_max": "3"}),
        ("prices", {"model": MODEL, "input": "0.5"}),
        ("prices/simulate", {"proposal": "models: {}"}),
    ):
        assert (await client.post(f"/portal/operator/{path}", data=form)).status_code == 403
    query = "select count(*) from engines.pool"
    assert await site.bench.database.fetchval(query) == 1


async def test_an_organisation_is_made_once_and_given_a_plan(site: Site) -> None:
    client = await site.client("operator")
    made = await client.post("/portal/operator/organisations", data={"name": "Initech <b>"})
    assert made.status_code == 303
    page = (await client.get("/portal/operator/organisations")).text
    assert "Initech &lt;b&gt;" in page
    again = await client.post("/portal/operator/organisations", data={"name": "Initech <b>"})
    assert again.status_code == 422
    assert "there is an organisation of this name already" in again.text
    assert 'value="Initech &lt;b&gt;"' in again.text
    wrong = {"organisation": "Initech <b>", "plan": "golden"}
    refused = await client.post("/portal/operator/organisations/plan", data=wrong)
    assert refused.status_code == 422
    assert "there is no plan" in refused.text


async def test_a_pools_settings_are_changed_or_refused_with_what_would_be_accepted(site: Site) -> None:
    client = await site.client("operator")
    path = f"/portal/operator/pool/set/{MODEL}"
    done = await client.post(path, data={"replicas_max": "2", "policy": "least_load", "instance_type": ""})
    assert done.status_code == 303
    query = "select settings->>'policy' from engines.pool where model = $1"
    assert await site.bench.database.fetchval(query, MODEL) == "least_load"
    refused = await client.post(path, data={"wait_max_s": "99999"})
    assert refused.status_code == 422
    assert "nearest: 3600" in refused.text
    assert 'value="99999"' in refused.text
    assert (await client.post("/portal/operator/pool/set/no/model", data={})).status_code == 404
    assert (await client.post(f"/portal/operator/pool/drop/{MODEL}", data={})).status_code == 404


async def test_a_pool_is_made_and_lives_in_the_list(site: Site) -> None:
    client = await site.client("operator")
    made = await client.post("/portal/operator/pools", data={"model": EMBED})
    assert made.headers["location"].startswith(f"/portal/operator/pools/{EMBED}")
    refused = await client.post("/portal/operator/pools", data={"model": "no/such"})
    assert refused.status_code == 422
    live = await client.get("/portal/operator/pools", headers={"hx-request": "true"})
    assert MODEL in live.text
    assert EMBED in live.text
    assert "<html" not in live.text


async def test_margins_are_what_was_charged(site: Site) -> None:
    async with site.bench.client() as caller:
        for _ in range(3):
            body = {"model": MODEL, "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 7}
            (await caller.post("/v1/chat/completions", json=body)).raise_for_status()

    async def shipped() -> int | None:
        query = "select sum(cost_nano_usd)::bigint from billing.usage_event having count(*) = 3"
        found: int | None = await site.bench.database.fetchval(query)
        return found

    charged = await site.bench.until(shipped)
    assert charged
    client = await site.client("operator")
    page = (await client.get("/portal/operator/margins?days=1")).text
    written = f"${charged / 1e9:.9f}".rstrip("0")
    assert re.search(rf"Earned</dt><dd>{re.escape(written)}<", page)
    assert (await client.get("/portal/operator/margins?days=5")).status_code == 400


async def test_a_price_is_added_and_a_wrong_one_is_refused_beside_its_field(site: Site) -> None:
    client = await site.client("operator")
    wrong = {"model": MODEL, "input": "a lot", "note": "spring"}
    refused = await client.post("/portal/operator/prices", data=wrong)
    assert refused.status_code == 422
    assert "is not a decimal number" in refused.text
    assert 'value="spring"' in refused.text
    right = {"model": MODEL, "input": "0.75", "valid_from": "2099-01-01T00:00"}
    late = await client.post("/portal/operator/prices", data=right)
    assert late.status_code == 422
    assert (await client.post("/portal/operator/prices", data=right | {"valid_from": ""})).status_code == 303
    assert "$0.75" in (await client.get("/portal/operator/prices")).text


async def test_a_proposal_is_simulated_and_changes_nothing(site: Site) -> None:
    async with site.bench.client() as caller:
        body = {"model": MODEL, "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 7}
        raw = await caller.post("/v1/chat/completions", json=body)
    event = await site.bench.event(raw.headers["x-request-id"])
    client = await site.client("operator")
    proposal = f'models:\n  {MODEL}:\n    input: "1"\n    cached_input: "1"\n    output: "1"\n'
    told = await client.post("/portal/operator/prices/simulate", data={"proposal": proposal, "days": "1"})
    assert told.status_code == 200
    would_pay = (event["input_tokens"] + event["output_tokens"]) * 1_000
    assert f"${would_pay / 1e9:.9f}".rstrip("0") in told.text
    query = "select count(*) from billing.price_version where origin = 'operator'"
    assert await site.bench.database.fetchval(query) == 0
    wrong = await client.post("/portal/operator/prices/simulate", data={"proposal": "models:\n  x: 1"})
    assert wrong.status_code == 422
    assert "proposal:2" in wrong.text


async def test_organisations_and_prices_are_searched_by_a_part_of_the_name(site: Site) -> None:
    made = (
        "insert into access.organisation (name) select format('Tenant %s', n) from generate_series(1, 230) n"
    )
    await site.database.execute(made)
    client = await site.client("operator")
    here = "/portal/operator/organisations"
    whole = (await client.get(here)).text
    assert whole.count("Look inside") == 200
    assert "The first 200 of 231" in whole
    found = (await client.get(here, params={"q": "TENANT 22"}, headers={"hx-target": "found"})).text
    assert found.count("Look inside") == 11
    assert "<html" not in found
    none = (await client.get(here, params={"q": "<b>"})).text
    assert "No organisation fits" in none
    assert 'value="&lt;b&gt;"' in none
    prices = (await client.get("/portal/operator/prices", params={"q": "embed"})).text
    assert f'href="/portal/models/{EMBED}"' in prices
    assert f'href="/portal/models/{MODEL}"' not in prices
