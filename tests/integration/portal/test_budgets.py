"""Budgets: an owner sets, changes and ends them, everybody sees them, and a request feels them."""

from __future__ import annotations

import re

import httpx
import pytest
from benches.portal import Site

PATH = "/portal/billing/budgets"
FORM = {
    "whose": "organisation",
    "period": "month",
    "limit_usd": "25",
    "alert_percents": "50, 80",
    "hard": "yes",
}


async def create(client: httpx.AsyncClient, **fields: str) -> httpx.Response:
    return await client.post(PATH, data=FORM | fields)


async def live(site: Site) -> list[tuple[int | None, str | None, int, list[int], bool]]:
    found = await site.database.fetch(
        "select project_id, key_id, limit_nano_usd, alert_percents, enforced from billing.budget"
        " where ended_at is null order by id"
    )
    return [tuple(row) for row in found]


async def test_an_owner_sets_changes_and_ends_a_budget(site: Site) -> None:
    client = await site.client("owner")
    assert "Set the first budget" in (await client.get(PATH)).text
    assert (await create(client)).headers["location"] == f"{PATH}?notice=budget-set"
    assert await live(site) == [(None, None, 25_000_000_000, [50, 80], True)]
    page = (await client.get(PATH)).text
    assert "of $25.00 each month" in page
    [address] = re.findall(rf'href="({PATH}/\d+)"', page)
    form = (await client.get(address)).text
    assert 'value="25"' in form
    changed = await client.post(
        address, data={"limit_usd": "0.000000001", "alert_percents": "", "hard": "no"}
    )
    assert changed.headers["location"] == f"{PATH}?notice=budget-changed"
    assert await live(site) == [(None, None, 1, [], False)]
    [address] = re.findall(rf'href="({PATH}/\d+)"', (await client.get(PATH)).text)
    ended = await client.post(f"{address}/delete")
    assert ended.headers["location"] == f"{PATH}?notice=budget-ended"
    assert await live(site) == []
    assert (await client.get(address)).status_code == 404


async def test_budgets_of_projects_and_keys_are_this_organisations_own(site: Site) -> None:
    globex = await site.organisation("globex")
    client = await site.client("owner")
    keys = {
        row["organisation_id"]: row
        for row in await site.database.fetch("select id, project_id, organisation_id from access.api_key")
    }
    own, foreign = keys[site.acme.id], keys[globex.id]
    assert (await create(client, whose=f"project:{own['project_id']}", period="total")).status_code == 303
    assert (await create(client, whose=f"key:{own['id']}")).status_code == 303
    assert [budget[:2] for budget in await live(site)] == [(own["project_id"], None), (None, own["id"])]
    for whose in (f"project:{foreign['project_id']}", f"key:{foreign['id']}", "project:x", "everybody"):
        refused = await create(client, whose=whose)
        assert refused.status_code == 422
        assert 'id="e-whose"' in refused.text
    theirs = re.findall(rf'href="{PATH}/(\d+)"', (await client.get(PATH)).text)
    stranger = await globex.client("owner")
    assert (await stranger.post(f"{PATH}/{theirs[0]}/delete")).status_code == 404
    assert len(await live(site)) == 2


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"limit_usd": "a lot"}, "limit_usd"),
        ({"limit_usd": "-1"}, "limit_usd"),
        ({"limit_usd": ""}, "limit_usd"),
        ({"limit_usd": "99999999999999999999"}, "limit_usd"),
        ({"alert_percents": "half"}, "alert_percents"),
        ({"alert_percents": "0"}, "alert_percents"),
        ({"alert_percents": "1,2,3,4,5,6,7,8,9,10,11"}, "alert_percents"),
        ({"period": "week"}, "period"),
    ],
)
async def test_what_is_no_budget_is_refused_beside_its_field_and_kept(
    site: Site, fields: dict[str, str], field: str
) -> None:
    answer = await create(await site.client("owner"), **fields)
    assert answer.status_code == 422
    assert f'id="e-{field}"' in answer.text
    typed = fields[field]
    assert field == "period" or not typed or f'value="{typed}"' in answer.text
    assert await live(site) == []


async def test_a_second_budget_of_the_same_kind_does_not_replace_the_first_unseen(site: Site) -> None:
    client = await site.client("owner")
    await create(client)
    refused = await create(client, limit_usd="9999")
    assert refused.status_code == 422
    assert "$25 for this period already" in refused.text
    assert len(await live(site)) == 1


@pytest.mark.parametrize("role", ["developer", "viewer"])
async def test_others_see_budgets_and_change_none(site: Site, role: str) -> None:
    await create(await site.client("owner"))
    client = await site.client(role)
    page = (await client.get(PATH)).text
    assert "of $25.00 each month" in page
    assert "New budget" not in page
    assert (await create(client)).status_code == 403
    number = await site.database.fetchval("select id from billing.budget where ended_at is null")
    assert (await client.post(f"{PATH}/{number}", data=FORM)).status_code == 403
    assert (await client.post(f"{PATH}/{number}/delete")).status_code == 403
    assert len(await live(site)) == 1
