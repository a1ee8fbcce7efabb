"""The pages of keys and projects: what each role may do there, and what they say when it cannot be done."""

from __future__ import annotations

import html
import re
from typing import Any

import httpx
import pytest

HOSTILE = "<script>alert(1)</script>\"'&" + "x" * 60


def secret_of(page: str) -> str:
    found = re.search(r'data-copy="(sk-penstock-[^"]+)"', page)
    assert found is not None
    return found[1]


def id_of(page: str) -> str:
    found = re.search(r'data-after="/portal/keys/(\w+)"', page)
    assert found is not None
    return found[1]


async def make(client: httpx.AsyncClient, **values: str) -> httpx.Response:
    form = {"name": "laptop", "project": "default", "role": "developer"} | values
    return await client.post("/portal/keys", data=form)


async def test_a_key_that_is_made_works_at_once_and_shows_its_secret_once(site: Any) -> None:
    client = await site.client("developer")
    made = await make(client, requests_per_minute="1,000")
    assert made.status_code == 201
    assert made.headers["cache-control"] == "no-store"
    secret = secret_of(made.text)
    assert f'api_key="{secret}"' in made.text
    async with httpx.AsyncClient(base_url=site.url, headers={"authorization": f"Bearer {secret}"}) as program:
        assert (await program.get("/v1/models")).status_code == 200
        assert (await program.get("/api/v1/keys")).status_code == 200
    for page in ("/portal/keys", f"/portal/keys/{id_of(made.text)}"):
        text = (await client.get(page)).text
        assert secret not in text
        assert secret[-10:-6] in text
        assert "1,000 requests a minute" in text


async def test_a_revoked_key_is_refused_and_listed_as_revoked(site: Any) -> None:
    client = await site.client("owner")
    made = await make(client, name="gone")
    key_id = id_of(made.text)
    answer = await client.post(f"/portal/keys/{key_id}/revoke")
    assert (answer.status_code, answer.headers["location"]) == (303, "/portal/keys?notice=key-revoked")
    await site.bench.gateway.keyring.refresh()
    async with httpx.AsyncClient(
        base_url=site.url, headers={"authorization": f"Bearer {secret_of(made.text)}"}
    ) as program:
        assert (await program.get("/api/v1/keys")).status_code == 401
    assert "gone" not in (await client.get("/portal/keys")).text
    assert "gone" in (await client.get("/portal/keys?state=revoked")).text
    for path in ("", "/limits"):
        late = await client.post(f"/portal/keys/{key_id}{path}", data={"name": "x", "role": "viewer"})
        assert late.status_code == 400


async def test_a_viewer_looks_and_changes_nothing(site: Any) -> None:
    owner, viewer = await site.client("owner"), await site.client("viewer")
    key_id = id_of((await make(owner)).text)
    page = await viewer.get("/portal/keys")
    assert page.status_code == 200
    assert "laptop" in page.text
    assert "Create a key" not in page.text
    assert "Revoke" not in (await viewer.get(f"/portal/keys/{key_id}")).text
    for path, values in (
        ("/portal/keys", {"name": "x", "project": "default"}),
        (f"/portal/keys/{key_id}", {"name": "x", "role": "viewer"}),
        (f"/portal/keys/{key_id}/limits", {}),
        (f"/portal/keys/{key_id}/revoke", {}),
        ("/portal/projects", {"name": "x"}),
        ("/portal/projects/1", {"name": "x"}),
        ("/portal/projects/1/limits", {}),
    ):
        assert (await viewer.post(path, data=values)).status_code == 403
    assert (await viewer.get("/portal/keys/new")).status_code == 403


async def test_a_developer_neither_makes_nor_touches_an_owners_key(site: Any) -> None:
    owner, developer = await site.client("owner"), await site.client("developer")
    key_id = id_of((await make(owner, role="owner")).text)
    refused = await make(developer, role="owner")
    assert refused.status_code == 422
    assert "only an owner makes a key of an owner" in refused.text
    assert (await developer.post(f"/portal/keys/{key_id}/revoke")).status_code == 403
    mine = id_of((await make(developer)).text)
    raised = await developer.post(f"/portal/keys/{mine}", data={"name": "x", "role": "owner"})
    assert raised.status_code == 422


async def test_other_organisations_keys_and_projects_are_not_there(site: Any) -> None:
    globex = await site.organisation("globex")
    theirs = id_of((await make(await globex.client("owner"))).text)
    client = await site.client("owner")
    project = await site.database.fetchval(
        "select id from access.project where organisation_id = $1", globex.id
    )
    for path in (f"/portal/keys/{theirs}", f"/portal/projects/{project}"):
        assert (await client.get(path)).status_code == 404
        assert (await client.post(path, data={"name": "x", "role": "viewer"})).status_code == 404
        assert (await client.post(f"{path}/limits")).status_code == 404
    assert (await client.post(f"/portal/keys/{theirs}/revoke")).status_code == 404


@pytest.mark.parametrize(
    ("values", "field", "told"),
    [
        ({"name": ""}, "name", "fill this in"),
        ({"name": "x" * 101}, "name", "1 to 100 characters"),
        ({"name": "a\u202eb"}, "name", "U+202E"),
        ({"project": "nowhere"}, "project", "no project named"),
        ({"requests_per_minute": "many"}, "requests_per_minute", "a whole number from 1"),
        ({"tokens_per_minute": "0"}, "tokens_per_minute", "a whole number from 1"),
        ({"concurrent_requests": "9" * 30}, "concurrent_requests", "a whole number from 1"),
        ({"requests_per_minute": "²"}, "requests_per_minute", "a whole number from 1"),
    ],
)
async def test_what_is_wrong_is_said_beside_its_field_and_what_was_typed_is_kept(
    site: Any, values: dict[str, str], field: str, told: str
) -> None:
    client = await site.client("developer")
    answer = await make(client, **({"name": "kept name"} | values))
    assert answer.status_code == 422
    beside = re.search(rf'id="e-{field}">([^<]*)<', answer.text)
    assert beside is not None
    assert told in html.unescape(beside[1])
    assert "name" in values or 'value="kept name"' in answer.text


async def test_hostile_names_are_text(site: Any) -> None:
    client = await site.client("owner")
    made = await make(client, name=HOSTILE)
    await client.post("/portal/projects", data={"name": "<b>bold</b>".replace("/", "")})
    for path in ("/portal/keys", f"/portal/keys/{id_of(made.text)}", "/portal/projects", "/portal/audit"):
        page = await client.get(path)
        assert page.status_code == 200
        assert "<script>alert" not in page.text
        assert "<b>bold" not in page.text


async def test_a_project_is_made_renamed_and_limited(site: Any) -> None:
    client = await site.client("developer")
    assert (await client.post("/portal/projects", data={"name": "search"})).status_code == 303
    taken = await client.post("/portal/projects", data={"name": "search"})
    assert taken.status_code == 422
    assert "already" in taken.text
    number = await site.database.fetchval("select id from access.project where name = 'search'")
    renamed = await client.post(f"/portal/projects/{number}", data={"name": "finding"})
    assert renamed.status_code == 303
    await client.post(f"/portal/projects/{number}/limits", data={"tokens_per_minute": "5000"})
    page = (await client.get("/portal/projects")).text
    assert "finding" in page
    assert "5,000 tokens a minute" in page
    clash = await client.post(f"/portal/projects/{number}", data={"name": "default"})
    assert clash.status_code == 422
    wrong = await client.post(f"/portal/projects/{number}/limits", data={"tokens_per_minute": "-1"})
    assert wrong.status_code == 422
    await make(client, project="finding", name="for finding")
    assert "for finding" in (await client.get(f"/portal/projects/{number}")).text
    assert "for finding" not in (await client.get("/portal/keys?project=default")).text


async def test_what_keys_cost_and_when_they_were_used_is_what_the_ledger_has(site: Any) -> None:
    client = await site.client("owner")
    async with site.acme.api() as program:
        answer = await program.post(
            "/v1/chat/completions",
            json={"model": "penstock/demo-chat", "messages": [{"role": "user", "content": "Hi"}]},
        )
        request_id = answer.headers["x-request-id"]
    event = await site.bench.event(request_id)
    key = await site.database.fetchrow("select id from access.api_key where name = 'test'")
    page = (await client.get(f"/portal/keys/{key['id']}")).text
    cost = f"${event['cost_nano_usd'] / 1e9:.9f}".rstrip("0")
    assert cost in page
    assert event["ended_at"].strftime("%Y-%m-%d %H:%M") in page
    assert cost in (await client.get("/portal/projects")).text


async def test_keys_are_found_by_name_id_and_last_four(site: Any) -> None:
    client = await site.client("owner")
    made = await make(client, name="Nightly Evaluation")
    secret, key_id = secret_of(made.text), id_of(made.text)
    await client.post("/portal/projects", data={"name": "search"})
    await make(client, name="other", project="search")
    for text in ("nightly", key_id[:6], secret[-10:-6], secret):
        page = (await client.get("/portal/keys", params={"q": text})).text
        assert "Nightly Evaluation" in page
        assert ">other<" not in page
    part = await client.get("/portal/keys?q=nobody", headers={"hx-request": "true", "hx-target": "keys"})
    assert "No such key" in part.text
    assert "<html" not in part.text


async def test_of_very_many_keys_the_newest_are_shown(site: Any) -> None:
    client = await site.client("viewer")
    await site.database.execute(
        "insert into access.api_key (id, organisation_id, project_id, name, digest, last_four, created_at) "
        "select 'k' || lpad(n::text, 11, '0'), organisation_id, project_id, 'key ' || n, digest, '0000', "
        "now() - make_interval(secs => n) from access.api_key, generate_series(1, 250) as n "
        "where name = 'test'"
    )
    page = (await client.get("/portal/keys")).text
    assert page.count('href="/portal/keys/k0') == 199
    assert "51 more are there" in page
    assert ">key 249<" in (await client.get("/portal/keys?q=key+249")).text.replace("<bdi>", ">").replace(
        "</bdi>", "<"
    ).replace(">>", ">").replace("<<", "<")
