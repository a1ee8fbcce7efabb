"""What a key may do under /api/v1 by its role: asked of every route there is, so that none is forgotten."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from typing import Any

import httpx
import pytest

from penstock.access import keys, people
from penstock.access.roles import Role
from penstock.edge.once import CHANGING

PEPPER = b"p" * 32
MANAGEMENT = "/api/v1"
SAMPLES = {"int": "1", "str": "some-name"}
OWNERS_ONLY = {
    ("POST", "/api/v1/invitations"),
    ("DELETE", "/api/v1/invitations/{invitation_id:int}"),
    ("DELETE", "/api/v1/members/{person_id:int}"),
    ("PATCH", "/api/v1/members/{person_id:int}"),
}
"""Who belongs to an organisation is its owners' business."""


@pytest.fixture
async def key_of(bench: Any) -> AsyncIterator[Callable[[Role], Any]]:
    """A client for each role."""
    clients: list[httpx.AsyncClient] = []

    async def make(role: Role) -> httpx.AsyncClient:
        async with bench.database.acquire() as connection:
            text = await keys.create(
                connection, PEPPER, name=f"a {role.value}", organisation="acme", role=role
            )
        client = httpx.AsyncClient(
            base_url=bench.url, headers={"authorization": f"Bearer {text}"}, timeout=20
        )
        clients.append(client)
        return client

    yield make
    for client in clients:
        await client.aclose()


def changing_routes(bench: Any) -> set[tuple[str, str]]:
    """Every method and path under /api/v1 that is not only for reading."""
    found = set()
    for route in bench.server.config.app.routes:
        if route.path.startswith(MANAGEMENT):
            found |= {(method, route.path) for method in getattr(route, "methods", set()) & CHANGING}
    return found


def address(path: str) -> str:
    """A path with something in place of its parameters."""
    parts = [SAMPLES[part[1:-1].partition(":")[2]] if part[:1] == "{" else part for part in path.split("/")]
    return "/".join(parts)


async def test_a_viewers_key_changes_nothing_whatever_the_route(
    bench: Any, key_of: Callable[[Role], Any]
) -> None:
    viewer = await key_of(Role.VIEWER)
    routes = changing_routes(bench)
    assert len(routes) > 15
    for method, path in sorted(routes):
        answer = await viewer.request(method, address(path), json={})
        assert answer.status_code == 403, f"{method} {path} answered {answer.status_code}: {answer.text}"
        body = answer.json()
        assert body["code"] == "role_too_low"
        assert body["role"] == "viewer"
        assert body["needed_role"] == ("owner" if (method, path) in OWNERS_ONLY else "developer")
        assert answer.headers["content-type"] == "application/problem+json"


async def test_only_owners_keys_decide_who_belongs(bench: Any, key_of: Callable[[Role], Any]) -> None:
    developer = await key_of(Role.DEVELOPER)
    refused = set()
    for method, path in sorted(changing_routes(bench)):
        answer = await developer.request(method, address(path), json={})
        if answer.status_code == 403 and answer.json()["code"] == "role_too_low":
            refused.add((method, path))
            assert answer.json()["needed_role"] == "owner"
    assert refused == OWNERS_ONLY


async def test_a_key_is_for_calling_models_whatever_its_role(
    bench: Any, key_of: Callable[[Role], Any], chat: Callable[..., bytes]
) -> None:
    await bench.start_engine()
    for role in Role:
        client = await key_of(role)
        answer = await client.post(
            "/v1/chat/completions", content=chat(), headers={"content-type": "application/json"}
        )
        assert answer.status_code == 200
        for path in ("keys", "projects", "members", "audit", "limits", "budgets"):
            assert (await client.get(f"{MANAGEMENT}/{path}")).status_code == 200


async def test_no_key_makes_changes_or_ends_one_with_more_power(
    bench: Any, key_of: Callable[[Role], Any]
) -> None:
    owner, developer = await key_of(Role.OWNER), await key_of(Role.DEVELOPER)
    made = (await owner.post(f"{MANAGEMENT}/keys", json={"name": "strong", "role": "owner"})).json()
    assert made["role"] == "owner"
    for answer in (
        await developer.post(f"{MANAGEMENT}/keys", json={"name": "mine", "role": "owner"}),
        await developer.patch(f"{MANAGEMENT}/keys/{made['id']}", json={"name": "mine"}),
        await developer.delete(f"{MANAGEMENT}/keys/{made['id']}"),
    ):
        assert answer.status_code == 403
        assert (answer.json()["code"], answer.json()["needed_role"]) == ("role_too_low", "owner")
    weak = (await developer.post(f"{MANAGEMENT}/keys", json={"name": "weak", "role": "viewer"})).json()
    raised = await developer.patch(f"{MANAGEMENT}/keys/{weak['id']}", json={"role": "owner"})
    assert raised.status_code == 403
    assert (await owner.delete(f"{MANAGEMENT}/keys/{made['id']}")).status_code == 204


async def test_a_key_lives_over_the_api(bench: Any, key_of: Callable[[Role], Any]) -> None:
    owner = await key_of(Role.OWNER)
    made = await owner.post(
        f"{MANAGEMENT}/keys", json={"name": " laptop ", "limits": {"requests_per_minute": 9}}
    )
    assert made.status_code == 201
    assert made.headers["cache-control"] == "no-store"
    key = made.json()
    assert key["api_key"].startswith("sk-penstock-")
    assert (key["name"], key["role"], key["limits"]) == ("laptop", "developer", {"requests_per_minute": 9})
    listed = {each["id"]: each for each in (await owner.get(f"{MANAGEMENT}/keys")).json()["data"]}
    assert "api_key" not in listed[key["id"]]
    assert listed[key["id"]]["last_four"] == key["api_key"][-10:-6]
    async with httpx.AsyncClient(
        base_url=bench.url, headers={"authorization": f"Bearer {key['api_key']}"}
    ) as client:
        limited = await client.post(f"{MANAGEMENT}/keys", json={"name": "free"})
        assert limited.status_code == 403
        changed = await owner.patch(f"{MANAGEMENT}/keys/{key['id']}", json={"role": "viewer"})
        assert changed.json()["role"] == "viewer"
        await bench.gateway.keyring.refresh()
        assert (await client.post(f"{MANAGEMENT}/projects", json={"name": "x"})).status_code == 403
        assert (await owner.delete(f"{MANAGEMENT}/keys/{key['id']}")).status_code == 204
        await bench.gateway.keyring.refresh()
        assert (await client.get(f"{MANAGEMENT}/keys")).status_code == 401
    again = await owner.patch(f"{MANAGEMENT}/keys/{key['id']}", json={"name": "x"})
    assert (again.status_code, again.json()["code"]) == (409, "key_revoked")


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"name": ""}, "name"),
        ({"name": "x" * 101}, "name"),
        ({"name": "a\u202eb"}, "name"),
        ({"name": "a\nb"}, "name"),
        ({"name": "x", "project": "nowhere"}, "project"),
        ({"name": "x", "role": "king"}, "role"),
        ({"name": "x", "limits": {"requests_per_minute": 0}}, None),
        ({"name": "x", "power": "all"}, None),
    ],
)
async def test_a_key_that_cannot_be_made_says_why(
    bench: Any, body: dict[str, Any], param: str | None
) -> None:
    async with bench.client() as client:
        answer = await client.post(f"{MANAGEMENT}/keys", json=body)
    assert answer.status_code == 400
    assert param is None or param in (answer.json().get("param") or answer.json()["detail"])


async def test_a_project_lives_over_the_api(bench: Any) -> None:
    async with bench.client() as client:
        made = await client.post(f"{MANAGEMENT}/projects", json={"name": "search"})
        assert (made.status_code, made.json()["keys"]) == (201, 0)
        taken = await client.post(f"{MANAGEMENT}/projects", json={"name": "search"})
        assert (taken.status_code, taken.json()["code"]) == (409, "project_exists")
        await client.post(f"{MANAGEMENT}/keys", json={"name": "k", "project": "search"})
        renamed = await client.patch(f"{MANAGEMENT}/projects/search", json={"name": "find & search"})
        assert (renamed.json()["name"], renamed.json()["keys"]) == ("find & search", 1)
        assert (await client.get(f"{MANAGEMENT}/projects/search")).status_code == 404
        assert (await client.get(f"{MANAGEMENT}/projects/find & search")).status_code == 200
        clash = await client.patch(f"{MANAGEMENT}/projects/find & search", json={"name": "default"})
        assert clash.json()["code"] == "project_exists"
        assert (await client.post(f"{MANAGEMENT}/projects", json={"name": "a/b"})).status_code == 400


async def test_members_over_the_api_keep_an_owner(bench: Any, key_of: Callable[[Role], Any]) -> None:
    owner = await key_of(Role.OWNER)
    ids = {}
    async with bench.database.acquire() as connection:
        acme = await keys.find_organisation(connection, "acme")
        for name, role in (("ada", Role.OWNER), ("bob", Role.VIEWER)):
            ids[name] = await people.create(
                connection, email=f"{name}@example.org", name=name, password="correct horse battery"
            )
            await people.join(connection, ids[name], acme, role)
    listed = (await owner.get(f"{MANAGEMENT}/members")).json()["data"]
    assert [(each["name"], each["role"]) for each in listed] == [("ada", "owner"), ("bob", "viewer")]
    for answer in (
        await owner.patch(f"{MANAGEMENT}/members/{ids['ada']}", json={"role": "viewer"}),
        await owner.delete(f"{MANAGEMENT}/members/{ids['ada']}"),
    ):
        assert (answer.status_code, answer.json()["code"]) == (409, "last_owner")
    changed = await owner.patch(f"{MANAGEMENT}/members/{ids['bob']}", json={"role": "owner"})
    assert changed.json()["role"] == "owner"
    assert (await owner.delete(f"{MANAGEMENT}/members/{ids['ada']}")).status_code == 204
    assert (await owner.get(f"{MANAGEMENT}/members/{ids['ada']}")).status_code == 404
    assert (await owner.delete(f"{MANAGEMENT}/members/999")).status_code == 404


async def test_an_invitation_is_made_listed_and_taken_back_over_the_api(
    bench: Any, key_of: Callable[[Role], Any]
) -> None:
    owner = await key_of(Role.OWNER)
    made = await owner.post(f"{MANAGEMENT}/invitations", json={"email": "ada@example.org", "role": "viewer"})
    assert made.status_code == 201
    assert made.headers["cache-control"] == "no-store"
    link = made.json()["link"]
    assert link.startswith("http")
    listed = (await owner.get(f"{MANAGEMENT}/invitations")).json()["data"]
    assert [(each["email"], each["role"]) for each in listed] == [("ada@example.org", "viewer")]
    assert link.rpartition("/")[2] not in str(listed)
    for wrong in ({"email": "ada", "role": "viewer"}, {"email": "ada@example.org", "role": "king"}):
        assert (await owner.post(f"{MANAGEMENT}/invitations", json=wrong)).status_code == 400
    assert (await owner.delete(f"{MANAGEMENT}/invitations/{listed[0]['id']}")).status_code == 204
    assert (await owner.delete(f"{MANAGEMENT}/invitations/{listed[0]['id']}")).status_code == 404
    assert (await owner.delete(f"{MANAGEMENT}/invitations/{10**30}")).status_code == 404
    found = (await owner.get(f"{MANAGEMENT}/audit", params={"what": "invitation"})).json()["data"]
    assert [entry["action"] for entry in found] == ["revoked", "created"]
    assert found[1]["after"]["digest"] == "hidden, another"


async def test_nobody_elses_things_are_seen_or_changed(bench: Any) -> None:
    async with bench.database.acquire() as connection:
        theirs = await keys.create(
            connection, PEPPER, name="theirs", organisation="globex", project="secret", role=Role.OWNER
        )
    parsed = keys.parse(theirs)
    assert parsed is not None
    async with bench.client() as client:
        for path in ("keys", "projects", "members", "audit"):
            assert "theirs" not in (await client.get(f"{MANAGEMENT}/{path}")).text
        for answer in (
            await client.get(f"{MANAGEMENT}/keys/{parsed.id}"),
            await client.patch(f"{MANAGEMENT}/keys/{parsed.id}", json={"name": "mine"}),
            await client.delete(f"{MANAGEMENT}/keys/{parsed.id}"),
            await client.patch(f"{MANAGEMENT}/projects/secret", json={"name": "mine"}),
        ):
            assert answer.status_code == 404


async def test_what_a_key_did_is_in_the_audit_log_with_its_request(bench: Any) -> None:
    async with bench.client() as client:
        made = await client.post(
            f"{MANAGEMENT}/projects", json={"name": "search"}, headers={"idempotency-key": "one"}
        )
        again = await client.post(
            f"{MANAGEMENT}/projects", json={"name": "search"}, headers={"idempotency-key": "one"}
        )
        assert again.headers["idempotent-replayed"] == "true"
        found = (await client.get(f"{MANAGEMENT}/audit", params={"what": "project", "name": "search"})).json()
        (entry,) = found["data"]
        parsed = keys.parse(bench.key)
        assert parsed is not None
        assert entry["actor"] == {"kind": "key", "id": parsed.id, "name": "test"}
        assert entry["request_id"] == made.headers["x-request-id"]
        assert entry["address"] == "127.0.0.1"
        assert entry["object"]["name"] == "search"
        for query in ({"what": "dragon"}, {"since": "yesterday"}, {"after": "x"}, {"limit": 0}):
            assert (await client.get(f"{MANAGEMENT}/audit", params=query)).status_code == 400
        first = (await client.get(f"{MANAGEMENT}/audit", params={"limit": 1})).json()
        second = (
            await client.get(f"{MANAGEMENT}/audit", params={"limit": 1, "after": first["next_after"]})
        ).json()
        assert second["data"][0]["id"] < first["data"][0]["id"]
        today = entry["at"][:10]
        assert (await client.get(f"{MANAGEMENT}/audit", params={"since": today, "until": today})).json()[
            "data"
        ]
