"""Operators see everybody, invite into any organisation, help, and let in no more."""

from __future__ import annotations

import re

import pytest
from benches.portal import PASSWORD, Site

PEOPLE = "/portal/operator/people"


async def sign_in(site: Site, role: str, password: str) -> int:
    form = {"email": site.acme.email(role), "password": password}
    return (await (await site.visitor()).post("/portal/sign-in", data=form)).status_code


@pytest.mark.parametrize("role", ["owner", "developer", "viewer"])
async def test_nobody_else_comes_in(site: Site, role: str) -> None:
    client = await site.client(role)
    operator = await site.acme.person("operator")
    for path in (PEOPLE, f"{PEOPLE}/{operator}"):
        assert (await client.get(path)).status_code == 403
    for path, data in (
        (PEOPLE, {"email": "a@example.org", "organisation": "acme"}),
        (f"{PEOPLE}/{operator}", {"do": "disable"}),
        (f"{PEOPLE}/{operator}/password", {}),
    ):
        assert (await client.post(path, data=data)).status_code == 403
    assert await site.database.fetchval("select count(*) from access.invitation") == 0
    assert await sign_in(site, "operator", PASSWORD) == 303


async def test_everybody_is_listed_and_found(site: Site) -> None:
    globex = await site.organisation("globex")
    await globex.person("viewer")
    client = await site.client("operator")
    text = (await client.get(PEOPLE)).text
    assert globex.email("viewer") in text
    assert site.acme.email("operator") in text
    found = (await client.get(PEOPLE, params={"q": "VIEWER of"})).text
    assert globex.email("viewer") in found
    assert site.acme.email("operator") not in found
    assert "No address or name has that in it" in (await client.get(PEOPLE, params={"q": "%"})).text
    rows = await client.get(
        PEOPLE, params={"q": "viewer"}, headers={"hx-request": "true", "hx-target": "people"}
    )
    assert rows.text.strip().startswith('<div id="people"')


async def test_somebody_is_invited_into_any_organisation(site: Site) -> None:
    client = await site.client("operator")
    await site.organisation("globex")
    form = {"email": "ada@example.org", "organisation": "globex", "role": "owner"}
    text = (await client.post(PEOPLE, data=form)).text
    link = re.search(r"/portal/invitation/\w+", text)
    assert link is not None
    person = await site.visitor()
    assert "Join <bdi" in (await person.get(link[0])).text
    answer = await person.post(link[0], data={"name": "Ada", "password": "five other long words"})
    assert answer.status_code == 303
    assert "globex" in (await person.get("/portal")).text


@pytest.mark.parametrize(
    ("form", "said"),
    [
        ({"email": "nobody", "organisation": "acme"}, "This is no address"),
        ({"email": "a@example.org", "organisation": "nowhere"}, "There is no organisation named"),
        ({"email": "owner@acme.example", "organisation": "acme"}, "belongs to this organisation already"),
        ({"email": "a@example.org", "organisation": "acme", "role": "king"}, "king"),
    ],
)
async def test_who_cannot_be_invited_is_said_and_kept(site: Site, form: dict[str, str], said: str) -> None:
    await site.acme.person("owner")
    client = await site.client("operator")
    answer = await client.post(PEOPLE, data=form)
    assert answer.status_code == 422
    assert said in answer.text
    assert form["email"] in answer.text


async def test_an_account_is_disabled_and_let_in_again(site: Site) -> None:
    person_id, client = await site.acme.person("developer"), await site.client("operator")
    theirs = await site.client("developer")
    done = await client.post(f"{PEOPLE}/{person_id}", data={"do": "disable"})
    assert done.headers["location"] == f"{PEOPLE}/{person_id}?notice=person-disable"
    assert (await theirs.get("/portal")).status_code == 303
    assert await sign_in(site, "developer", PASSWORD) == 422
    assert "Let them in again" in (await client.get(f"{PEOPLE}/{person_id}")).text
    await client.post(f"{PEOPLE}/{person_id}", data={"do": "enable"})
    assert await sign_in(site, "developer", PASSWORD) == 303


async def test_a_new_password_is_shown_once_and_ends_the_old(site: Site) -> None:
    person_id, client = await site.acme.person("developer"), await site.client("operator")
    shown = await client.post(f"{PEOPLE}/{person_id}/password")
    password = re.search(r"<code>((?:[0-9a-z]{5}-){3}[0-9a-z]{5})</code>", shown.text)
    assert password is not None
    assert await sign_in(site, "developer", PASSWORD) == 422
    assert await sign_in(site, "developer", password[1]) == 303
    assert password[1] not in (await client.get(f"{PEOPLE}/{person_id}")).text


async def test_operators_make_operators_and_never_end_themselves(site: Site) -> None:
    person_id, own_id = await site.acme.person("developer"), await site.acme.person("operator")
    client = await site.client("operator")
    await client.post(f"{PEOPLE}/{person_id}", data={"do": "make-operator"})
    other = await site.client("developer")
    assert (await other.get(PEOPLE)).status_code == 200
    for do in ("disable", "no-operator"):
        answer = await client.post(f"{PEOPLE}/{own_id}", data={"do": do})
        assert answer.status_code == 422
        assert "You cannot do this to yourself" in answer.text
    await client.post(f"{PEOPLE}/{person_id}", data={"do": "no-operator"})
    assert (await other.get(PEOPLE)).status_code == 403


@pytest.mark.parametrize("number", ["0", "999999", "9" * 30, "x"])
async def test_an_account_that_is_not_there_is_told(site: Site, number: str) -> None:
    client = await site.client("operator")
    assert (await client.get(f"{PEOPLE}/{number}")).status_code == 404
    assert (await client.post(f"{PEOPLE}/{number}/password")).status_code == 404
