"""The audit log's page: sentences, filters, pages and CSV, each organisation's own."""

from __future__ import annotations

import csv
from typing import Any

from penstock.access import keys, projects


async def fill(site: Any, count: int, organisation: str = "acme") -> None:
    async with site.database.acquire() as connection:
        found = await keys.find_organisation(connection, organisation)
        for number in range(count):
            await projects.create(connection, found, f"project {number:03}")


async def test_a_change_in_the_portal_is_told_with_who_made_it_and_from_where(site: Any) -> None:
    client = await site.client("developer")
    await client.post("/portal/projects", data={"name": "search"})
    number = await site.database.fetchval("select id from access.project where name = 'search'")
    changed = await client.post(f"/portal/projects/{number}/limits", data={"tokens_per_minute": "5000"})
    page = (await client.get("/portal/audit?what=project&who=Developer")).text
    assert "<bdi>Developer of acme</bdi>" in page
    assert "<bdi>developer@acme.example</bdi>" in page
    assert "limited the project" in page
    assert "limits: tokens per minute" in page
    assert "5,000" in page
    assert changed.headers["x-request-id"] in page
    assert "127.0.0.1" in page


async def test_filters_hold_and_say_what_is_wrong(site: Any) -> None:
    client = await site.client("viewer")
    await fill(site, 3)
    assert "project 001" in (await client.get("/portal/audit?name=project+001")).text
    assert "project 002" not in (await client.get("/portal/audit?name=project+001")).text
    assert "Nothing like that" in (await client.get("/portal/audit?since=2001-01-01&until=2001-01-02")).text
    wrong = await client.get("/portal/audit?since=yesterday")
    assert wrong.status_code == 422
    assert 'id="e-since"' in wrong.text
    assert (await client.get("/portal/audit?after=nonsense")).status_code == 400
    part = await client.get("/portal/audit?name=project", headers={"hx-request": "true", "hx-target": "log"})
    assert "<nav" not in part.text.partition('id="log"')[0]
    assert "project 001" in part.text


async def test_pages_lead_to_the_oldest_entry(site: Any) -> None:
    client = await site.client("viewer")
    await fill(site, 120)
    path, seen = "/portal/audit?what=project", 0
    while path:
        page = (await client.get(path)).text
        seen += page.count("<summary>")
        found = page.partition('class="row spread pages"')[2].rpartition('href="')[2].partition('"')
        older = found[0].replace("&amp;", "&") if "Older" in found[2] else ""
        assert older != path
        path = older
    assert seen == 121


async def test_csv_has_every_entry_and_no_formula(site: Any) -> None:
    client = await site.client("viewer")
    await fill(site, 60)
    async with site.database.acquire() as connection:
        found = await keys.find_organisation(connection, "acme")
        await projects.create(connection, found, "=1+1")
    answer = await client.get("/portal/audit.csv?what=project")
    assert answer.headers["content-type"].startswith("text/csv")
    table = list(csv.DictReader(answer.text.splitlines()))
    assert len(table) == 62
    assert table[0]["object_name"] == "'=1+1"
    assert {row["organisation"] for row in table} == {"acme"}


async def test_nobody_reads_anothers_log_and_an_operator_reads_all(site: Any) -> None:
    await site.organisation("globex")
    await fill(site, 2, "globex")
    for role in ("owner", "viewer"):
        client = await site.client(role)
        for path in (
            "/portal/audit",
            "/portal/audit?scope=installation",
            "/portal/audit.csv?scope=installation",
        ):
            assert "project 001" not in (await client.get(path)).text
    operator = await site.client("operator")
    assert "project 001" not in (await operator.get("/portal/audit")).text
    everything = (await operator.get("/portal/audit?scope=installation")).text
    assert "project 001" in everything
    assert "globex" in everything
    assert "globex" in (await operator.get("/portal/audit.csv?scope=installation")).text


async def test_hostile_names_are_text_in_the_log(site: Any) -> None:
    client = await site.client("owner")
    await client.post("/portal/keys", data={"name": "<script>x", "project": "default"})
    page = (await client.get("/portal/audit")).text
    assert "<script>x" not in page
    assert "&lt;script&gt;x" in page
