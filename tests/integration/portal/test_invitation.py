"""An invitation's link: who may use it, once, and until when."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from benches.portal import PASSWORD, Site

from penstock.access import invitations, people
from penstock.access.invitations import AlreadyMember
from penstock.access.people import BadPerson
from penstock.access.roles import Role

NEW = {"name": "Grace Hopper", "password": "a nanosecond of wire"}


async def invite(site: Site, email: str = "grace@example.org", role: Role = Role.DEVELOPER) -> str:
    async with site.database.acquire() as taken:
        connection: Any = taken
        token = await invitations.create(
            connection,
            organisation_id=site.acme.id,
            email=email,
            role=role,
            invited_by=await site.acme.person("owner"),
        )
    return f"/portal/invitation/{token}"


async def test_who_is_invited_makes_an_account_and_is_in(site: Site) -> None:
    link = await invite(site)
    client = await site.visitor()
    text = (await client.get(link)).text
    assert "Join <bdi" in text
    assert "Owner of acme" in text
    assert "grace@example.org" in text
    answer = await client.post(link, data=NEW)
    assert answer.headers["location"] == "/portal?notice=welcome"
    home = (await client.get("/portal")).text
    assert "Grace Hopper" in home
    assert "acme" in home
    role = await site.database.fetchval(
        "select role from access.membership join access.person on id = person_id where email = $1",
        "grace@example.org",
    )
    assert role == "developer"
    other = await site.visitor()
    assert (await other.get(link)).status_code == 410
    assert (await other.post(link, data=NEW)).status_code == 410


async def test_a_refused_form_leaves_the_invitation_open_and_the_name_typed(site: Site) -> None:
    link = await invite(site)
    client = await site.visitor()
    for form, beside in (
        ({"name": "Grace <b>", "password": "short"}, "password"),
        ({"name": "", "password": NEW["password"]}, "name"),
        ({"name": "x" * 101, "password": NEW["password"]}, "name"),
        ({"name": "Grace", "password": "grace-1906-1992"}, "password"),
    ):
        answer = await client.post(link, data=form)
        assert answer.status_code == 422
        assert f'id="e-{beside}"' in answer.text
    assert "Grace" in answer.text
    assert await site.database.fetchval("select count(*) from access.person") == 1
    assert (await client.post(link, data=NEW)).status_code == 303


async def test_who_has_an_account_signs_in_and_joins_with_it(site: Site) -> None:
    globex = await site.organisation("globex")
    await globex.person("viewer")
    link = await invite(site, globex.email("viewer").upper())
    client = await site.visitor()
    text = (await client.get(link)).text
    assert "There is an account for this address" in text
    assert 'name="password"' not in text
    # Nobody takes an account over by an invitation to its address.
    answer = await client.post(link, data=NEW)
    assert answer.status_code == 422
    form = {"email": globex.email("viewer"), "password": PASSWORD, "next": link}
    assert (await client.post("/portal/sign-in", data=form)).headers["location"] == link
    assert "Join as" in (await client.get(link)).text
    joined = await client.post(f"{link}/join")
    assert joined.headers["location"] == "/portal?notice=joined"
    text = (await client.get("/portal")).text
    assert "<option selected>acme</option>" in text


async def test_an_invitation_is_for_its_address(site: Site) -> None:
    link = await invite(site)
    globex = await site.organisation("globex")
    client = await globex.client("viewer")
    assert "You are signed in as" in (await client.get(link)).text
    answer = await client.post(f"{link}/join")
    assert answer.status_code == 410
    assert "for somebody else" in answer.text
    assert (await (await site.visitor()).post(f"{link}/join")).status_code == 303


@pytest.mark.parametrize("end", ["expires_at = now()", "revoked_at = now()"])
async def test_one_that_is_over_makes_nobody(site: Site, end: str) -> None:
    link = await invite(site)
    await site.database.execute(f"update access.invitation set {end}")
    client = await site.visitor()
    assert (await client.get(link)).status_code == 410
    assert (await client.post(link, data=NEW)).status_code == 410
    assert await site.database.fetchval("select count(*) from access.person") == 1


@pytest.mark.parametrize("token", ["x", "x" * 2000, "%F0%9F%92%A9", "%27%3B--"])
async def test_a_link_that_never_was_is_answered_like_one_that_is_over(site: Site, token: str) -> None:
    assert (await (await site.visitor()).get(f"/portal/invitation/{token}")).status_code == 410


async def test_two_browsers_accept_once(site: Site) -> None:
    link = await invite(site)
    clients = [await site.visitor() for _ in range(3)]
    answers = await asyncio.gather(*(client.post(link, data=NEW) for client in clients))
    assert sorted(answer.status_code for answer in answers)[0] == 303
    assert [answer.status_code for answer in answers].count(303) == 1
    assert await site.database.fetchval("select count(*) from access.person") == 2


async def test_a_newer_invitation_ends_the_older(site: Site) -> None:
    older, newer = await invite(site), await invite(site, "Grace@Example.org", Role.VIEWER)
    client = await site.visitor()
    assert "taken back" in (await client.get(older)).text
    assert (await client.get(newer)).status_code == 200
    [waiting] = await invitations.listed(site.database, site.acme.id)
    assert (waiting.role, waiting.invited_by, waiting.expired) == (Role.VIEWER, "Owner of acme", False)
    globex = await site.organisation("globex")
    assert await invitations.listed(site.database, globex.id) == []
    assert await invitations.revoke(site.database, globex.id, waiting.id) is None
    assert await invitations.revoke(site.database, site.acme.id, waiting.id) == "Grace@Example.org"
    assert await invitations.listed(site.database, site.acme.id) == []


async def test_members_and_what_is_no_address_are_not_invited(site: Site) -> None:
    with pytest.raises(AlreadyMember):
        await invite(site, site.acme.email("owner").upper())
    for email in ("", "grace", "a b@example.org", "a@" + "x" * 300, "a@b\n", "<a@example.org>", "a\x07@b.c"):
        if email.strip() == "a@b":
            continue
        with pytest.raises(BadPerson):
            await invite(site, email)


async def test_who_belongs_already_stays_what_they_are(site: Site) -> None:
    globex = await site.organisation("globex")
    person_id = await globex.person("viewer")
    link = await invite(site, globex.email("viewer"), Role.VIEWER)
    client = await globex.client("viewer")
    async with site.database.acquire() as taken:
        connection: Any = taken
        await people.join(connection, person_id, site.acme.id, Role.OWNER)
    await client.post(f"{link}/join")
    query = "select role from access.membership where person_id = $1 and organisation_id = $2"
    assert await site.database.fetchval(query, person_id, site.acme.id) == "owner"
